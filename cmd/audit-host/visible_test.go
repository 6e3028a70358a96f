package main

import (
	"bytes"
	"encoding/hex"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/audit-host/audit-host/abi/manifest"
)

// TestNothingIsPrintedPastTheWriter: what goes to the standard output and error
// goes through package visible. Only main knows the files, only run puts the writer
// before them, and bytes that go past it are those of three commands.
func TestNothingIsPrintedPastTheWriter(t *testing.T) {
	where := map[string][]string{} // file, by what it uses
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "testdata" || d.Name() == "golang") {
			return err // what scaffold writes down is another program
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "visible") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			name := ""
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok {
					name = x.Name + "." + n.Sel.Name
				}
				if n.Sel.Name == "SetOut" || n.Sel.Name == "SetErr" {
					name = n.Sel.Name
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "print" || f.Name == "println") {
					name = f.Name
				}
			case *ast.ImportSpec:
				name = n.Path.Value
			}
			if name != "" && !slices.Contains(where[name], path) {
				where[name] = append(where[name], path)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"os.Stdout": "main.go", "os.Stderr": "main.go", "SetOut": "root.go", "SetErr": "root.go", "visible.NewWriter": "root.go",
		"visible.Data": "canonicalize.go dlq_list.go tail.go", "visible.Terminal": "plugin_check.go progress.go",
		"fmt.Print": "", "fmt.Println": "", "fmt.Printf": "", "print": "", "println": "", `"log"`: "", "slog.Default": "", "slog.Info": "", "slog.Warn": "", "slog.Error": "",
		"os.NewFile": "", "syscall.Write": "", "unix.Write": "",
	} {
		if got := strings.Join(where[name], " "); got != want {
			t.Errorf("%s is used in %q, wanted in %q", name, got, want)
		}
	}
	if len(where["c.OutOrStdout"]) < 10 {
		t.Errorf("the files were not read: %v", where["c.OutOrStdout"])
	}
}

// acting is the first part of a text that would act on a terminal; "" if none does.
func acting(text string) string {
	for i, r := range text {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029') {
			return text[max(0, i-40):min(len(text), i+20)]
		}
	}
	return ""
}

// TestHostileTextsAreSeen: names, versions and imports of a plugin and the fields
// of an event hold escape sequences, and no command hands one on.
func TestHostileTextsAreSeen(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "host", "testdata", "zoo", "unknown-import.hex"))
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(wasm, []byte("system")) != 1 {
		t.Fatal("the guest imports env.system no more")
	}
	wasm = bytes.Replace(wasm, []byte("system"), []byte("\x1b[2J\r\n"), 1)
	if wasm, err = manifest.Append(wasm, []byte(`{"name":"hostile","version":"1\u001b[1A\u009b2K\u202e\nfits: yes"}`)); err != nil {
		t.Fatal(err)
	}
	config := home(t)
	plugin := filepath.Join(filepath.Dir(config), "hostile.wasm")
	if err := os.WriteFile(plugin, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	see := func(args ...string) {
		t.Helper()
		var out, words bytes.Buffer
		run(t.Context(), args, strings.NewReader(""), &out, &words)
		for _, got := range []string{out.String(), words.String()} {
			if a := acting(got); a != "" {
				t.Errorf("%v: %q", args, a)
			}
			for line := range strings.Lines(got) {
				if strings.HasPrefix(line, "fits: yes") || strings.HasPrefix(line, ": wanted") {
					t.Errorf("%v: a line that the plugin made: %q", args, line)
				}
			}
		}
	}

	// Events first, while the configuration is sound.
	event := strings.NewReplacer("agent:alice", `agent:\u202e`, "rm -rf /", `\u001b[8m\u009b`, `"no"`, `"\u202e\u2066"`).Replace(refusal("e1"))
	edit(t, config, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nrequired = false\n"+
		"config.rules = [{do = \"reject\", text = \"no \\u009b2J\\u202e\"}]\n\n[dead_letters]")
	d := serve(t, config)
	d.post(t, "durable", event)
	until(t, "it is a dead letter", func() bool { return sinksOf(t, config)["mock"].DeadLettered == 1 })
	see("sink", "list", "-c", config)
	if a := acting(d.stop(t, 0)); a != "" {
		t.Errorf("log: %q", a)
	}
	see("tail", "-c", config)
	see("verify", "-c", config)
	see("dlq", "list", "-c", config)
	see("dlq", "show", "-c", config, "1")
	see("dlq", "purge", "-c", config, "--dry-run", "--force")
	if got := must(t, 0, "", "tail", "-c", config, "--json").stdout; !strings.Contains(got, "\u009b") {
		t.Errorf("a payload is not byte for byte what its hash says: %q", got)
	}

	see("plugin", "inspect", plugin)
	see("plugin", "inspect", plugin, "--json")
	see("plugin", "check", plugin)
	appendTo(t, config, "\n[[sink]]\nname = \"hostile\"\nplugin = \"hostile.wasm\"\n")
	see("run", "-c", config)
	see("plugin", "lock", "-c", config)
	edit(t, filepath.Join(filepath.Dir(config), "audit.lock"), `fits: yes`, `fits: no\u001b[8m`)
	see("plugin", "lock", "-c", config)
	edit(t, config, `#format = "text"`, `format = "json"`)
	see("run", "-c", config)
}
