package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/sdk"
)

// TestFilesAreGenerated compares the files of the SDKs with what the constants
// make of them.
func TestFilesAreGenerated(t *testing.T) {
	list := files()
	if len(list) != 4 {
		t.Errorf("%d files, wanted one for each language", len(list))
	}
	for name, want := range list {
		got, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s is not what package abi makes of it (%v): run go generate ./abi/sdk", name, err)
		}
	}
}

// left are the constants of package abi that no SDK needs.
var left = map[string]string{
	"I32": "a value type", "I64": "a value type",
	"Trap": "made by the host", "Exit": "made by the host", "Fuel": "made by the host", "Deadline": "made by the host",
	"Memory": "made by the host", "HostPanic": "made by the host", "BadABI": "made by the host",
	"ImportModule":   "generated with the functions",
	"AttestUnsigned": "the flag says it", "AttestDaemonSigned": "the flag says it",
}

// TestEveryConstantIsKnown: a constant that is new in package abi is listed, or
// left out on purpose.
func TestEveryConstantIsKnown(t *testing.T) {
	known := map[string]bool{}
	for _, g := range groups() {
		for _, c := range g.list {
			if known[c.name] {
				t.Errorf("%s is listed twice", c.name)
			}
			known[c.name] = true
		}
	}
	set := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join("..", "..", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				for _, id := range s.(*ast.ValueSpec).Names {
					n := id.Name
					if !id.IsExported() {
						continue
					}
					seen++
					// The names of functions and capabilities are generated, or
					// checked below.
					if known[n] || left[n] != "" || strings.HasPrefix(n, "Import") || strings.HasPrefix(n, "Export") || strings.HasPrefix(n, "Capability") {
						continue
					}
					t.Errorf("abi.%s is in no SDK: add it to groups, or to left with a reason", n)
				}
			}
		}
	}
	if seen < len(known)-len(abi.Layout()) {
		t.Errorf("%d constants were found in package abi, %d are listed", seen, len(known)-len(abi.Layout()))
	}
}

// declares is how a language's own text spells an export or calls a host
// function.
var declares = map[string]struct{ exported, called string }{
	"c":    {exported: `AUDIT_EXPORT("%s")`, called: "audit_import_%s("},
	"rust": {exported: `pub extern "C" fn %s(`, called: "import_%s("},
	"as":   {exported: "export function %s(", called: "abi.import_%s("},
	"zig":  {exported: `.name = "%s"`, called: "abi.import.%s("},
}

// TestEveryFunctionIsThere looks for each export and import in the part that is
// written by hand. The signatures are checked where the compilers are, in
// interop/sdk.
func TestEveryFunctionIsThere(t *testing.T) {
	if n := len(sdk.Languages()); n != len(files()) {
		t.Errorf("%d languages, numbers are generated for %d", n, len(files()))
	}
	for _, lang := range sdk.Languages() {
		var text strings.Builder
		files, err := fs.Glob(sdk.Files(), lang+"/*")
		if err != nil {
			t.Fatal(err)
		}
		if lang == "rust" {
			files, err = fs.Glob(sdk.Files(), lang+"/src/*")
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range files {
			if strings.Contains(name, "abi.") || strings.HasSuffix(name, "_abi.h") || strings.HasSuffix(name, ".md") {
				continue
			}
			if info, err := fs.Stat(sdk.Files(), name); err != nil || info.IsDir() {
				continue
			}
			b, err := fs.ReadFile(sdk.Files(), name)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b)
		}
		d, ok := declares[lang]
		if !ok || text.Len() == 0 {
			t.Fatalf("%s: %d bytes, and this test knows how it spells a function: %v", lang, text.Len(), ok)
		}
		for _, s := range abi.Exports() {
			if s.Name != abi.ExportInitialize && !strings.Contains(text.String(), strings.ReplaceAll(d.exported, "%s", s.Name)) {
				t.Errorf("%s does not export %s", lang, s.Name)
			}
		}
		for _, s := range abi.Imports() {
			if !strings.Contains(text.String(), strings.ReplaceAll(d.called, "%s", s.Name)) {
				t.Errorf("%s has nothing that calls %s", lang, s.Name)
			}
		}
	}
}

func TestSnake(t *testing.T) {
	for in, want := range map[string]string{"SQLGuardFailed": "SQL_GUARD_FAILED", "MaxKVKey": "MAX_KV_KEY", "OutcomeOK": "OUTCOME_OK", "EntryID": "ENTRY_ID", "HTTPCut": "HTTP_CUT"} {
		if got := snake(in); got != want {
			t.Errorf("%s became %s, wanted %s", in, got, want)
		}
	}
}
