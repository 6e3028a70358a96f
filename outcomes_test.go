package audithost_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

// decided are the outcomes and reasons of which somebody has decided what they mean at
// each place that deals with them.
const decided = "OK Partial Retry Reject Busy BadConfig Trap Exit Fuel Deadline Memory HostPanic BadABI " +
	"ReasonOther ReasonLocked ReasonFull ReasonIO ReasonReadOnly ReasonNoAccess ReasonCorrupt ReasonFormat ReasonReplaced ReasonWentBack ReasonSchema"

// TestEveryPlaceOfAnOutcome: a new outcome or reason names the functions and tables
// that tell at least two of its kind apart, and so have to know it.
func TestEveryPlaceOfAnOutcome(t *testing.T) {
	set := token.NewFileSet()
	kinds := map[string]string{} // constant: its type
	for _, name := range []string{"abi/outcome.go", "abi/reason.go"} {
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
				kind := ""
				for _, s := range g.Specs {
					v := s.(*ast.ValueSpec)
					if id, ok := v.Type.(*ast.Ident); ok {
						kind = id.Name
					}
					if v.Names[0].Name != "FirstHostOutcome" {
						kinds[v.Names[0].Name] = kind
					}
				}
			}
		}
	}
	places := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "interop"):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			seen := map[string]map[string]bool{"Outcome": {}, "Reason": {}}
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "abi" && kinds[n.Sel.Name] != "" {
						seen[kinds[n.Sel.Name]][n.Sel.Name] = true
					}
					return false
				case *ast.Ident:
					if file.Name.Name == "abi" && kinds[n.Name] != "" {
						seen[kinds[n.Name]][n.Name] = true
					}
				}
				return true
			})
			for kind, names := range seen {
				if len(names) > 1 {
					places[kind] = append(places[kind], set.Position(d.Pos()).String())
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(decided)
	if len(places["Outcome"]) < 20 || len(places["Reason"]) < 3 || len(kinds) < len(known) {
		t.Fatalf("%d constants, and places: %v", len(kinds), places)
	}
	for name, kind := range kinds {
		if !slices.Contains(known, name) {
			t.Errorf("abi.%s is new: decide what it means at each of these, and in abi/README.md, and list it as decided:\n  %s",
				name, strings.Join(places[kind], "\n  "))
		}
	}
	reasons := 0
	for _, kind := range kinds {
		if kind == "Reason" {
			reasons++
		}
	}
	if reasons != len(abi.Reasons()) {
		t.Errorf("%d reasons, %d have a name", reasons, len(abi.Reasons()))
	}
}
