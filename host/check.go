package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
)

// maxProblems is how many problems an error lists: a module may have
// thousands.
const maxProblems = 20

// check compares a module with the ABI and its wishes with what is granted.
// Every problem is named, with what was wanted and what was found.
func check(m *module, c wazero.CompiledModule, granted map[string]bool) error {
	var problems []string
	add := func(format string, a ...any) { problems = append(problems, fmt.Sprintf(format, a...)) }

	exports := c.ExportedFunctions()
	if _, ok := exports[abi.ExportMarker]; !ok {
		add("export: wanted the version marker %s, found %s", abi.ExportMarker, abiFound(exports))
	}
	for _, want := range abi.Exports() {
		def, ok := exports[want.Name]
		switch {
		case ok && !same(def, want):
			add("export %s: wanted %s, found %s", want.Name, form(want.Params, want.Results), formOf(def))
		case !ok && !want.Optional && want.Name != abi.ExportMarker:
			add("export %s: wanted %s, found none", want.Name, form(want.Params, want.Results))
		}
	}
	if _, ok := c.ExportedMemories()[abi.ExportMemory]; !ok {
		add("export %s: wanted a memory, found none", abi.ExportMemory)
	}
	if m.start {
		add("start section: wanted none, found one; use the export %s", abi.ExportInitialize)
	}
	for _, i := range m.imports {
		if i.kind != "function" {
			add("import %s: wanted a function, found a %s", oneWord(i.module+"."+i.name), i.kind)
		}
	}
	for _, def := range c.ImportedFunctions() {
		mod, name, _ := def.Import()
		want, known := importOf(mod, name)
		switch {
		case !known:
			add("import %s: wanted a function of module %s or of the WASI shim, found an unknown one", oneWord(mod+"."+name), abi.ImportModule)
		case !same(def, want):
			add("import %s.%s: wanted %s, found %s", mod, name, form(want.Params, want.Results), formOf(def))
		case want.Capability != "" && !slices.Contains(m.manifest.Capabilities, want.Capability):
			add("import %s.%s: needs the capability %q, which the plugin's manifest does not ask for", mod, name, want.Capability)
		}
	}
	for _, want := range m.manifest.Capabilities {
		if _, known := granted[want]; !known {
			add("capability %q: wanted by the manifest, unknown to this host", want)
		}
	}
	var lacking error // not a nil *GrantError in the interface
	if e := missingGrants(m, granted); e != nil {
		lacking = e
	}
	if problems == nil {
		return lacking
	}
	slices.Sort(problems)
	problems = slices.Compact(problems)
	if n := len(problems) - maxProblems; n > 0 {
		problems = append(problems[:maxProblems], fmt.Sprintf("and %d more", n))
	}
	return errors.Join(fmt.Errorf("not a plugin of ABI %d:\n  %s", abi.Version, strings.Join(problems, "\n  ")), lacking)
}

const markerPrefix = "audit_abi_"

// abiFound names the version markers that a module has, for a person.
func abiFound(exports map[string]api.FunctionDefinition) string {
	var found []string
	for name := range exports {
		if strings.HasPrefix(name, markerPrefix) && len(found) < 8 {
			found = append(found, name)
		}
	}
	if found == nil {
		return "none"
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
}

func importOf(module, name string) (abi.Signature, bool) {
	list := wasiFunctions
	switch module {
	case abi.ImportModule:
		list = abi.Imports()
	case wasiModule:
	default:
		return abi.Signature{}, false
	}
	i := slices.IndexFunc(list, func(s abi.Signature) bool { return s.Name == name })
	if i < 0 {
		return abi.Signature{}, false
	}
	return list[i], true
}

// oneWord is a text of a module as one word of an error: it begins no line of its own.
func oneWord(s string) string {
	s = s[:min(len(s), 512)]
	if strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func same(def api.FunctionDefinition, want abi.Signature) bool {
	return formOf(def) == form(want.Params, want.Results)
}

func form(params, results []abi.ValueType) string {
	return fmt.Sprintf("(%s) -> (%s)", join(params), join(results))
}

// join lists types; a stranger's list may have thousands.
func join(types []abi.ValueType) string {
	names := make([]string, 0, 16)
	for i, t := range types {
		if i == 16 {
			names = append(names, fmt.Sprintf("and %d more", len(types)-i))
			break
		}
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

func formOf(def api.FunctionDefinition) string {
	names := func(types []api.ValueType) []abi.ValueType {
		out := make([]abi.ValueType, len(types))
		for i, t := range types {
			out[i] = abi.ValueType(api.ValueTypeName(t))
		}
		return out
	}
	return form(names(def.ParamTypes()), names(def.ResultTypes()))
}

// importEntry is one import. Kind is function, table, memory or global.
type importEntry struct{ module, name, kind string }

const (
	sectionImport = 2
	sectionStart  = 8
)

var errImports = errors.New("malformed import section")

// readImports lists what a module imports, of every kind: wazero's API tells
// functions and memories only; and whether it has a start section. The module
// has been through the meter, so the section is well formed; a reading beyond
// its end is an error all the same.
func readImports(wasm []byte) (list []importEntry, start bool, err error) {
	err = manifest.Sections(wasm, func(id byte, _ string, b []byte) error {
		switch id {
		case sectionStart:
			start = true
		case sectionImport:
			r := importReader{b: b}
			for range r.number() {
				e := importEntry{module: r.text(), name: r.text()}
				switch r.byte() {
				case 0:
					e.kind = "function"
					r.number()
				case 1:
					e.kind = "table"
					r.byte()
					r.limits()
				case 2:
					e.kind = "memory"
					r.limits()
				case 3:
					e.kind = "global"
					r.byte()
					r.byte()
				default:
					r.bad = true
				}
				if r.bad {
					return errImports
				}
				list = append(list, e)
			}
		}
		return nil
	})
	return list, start, err
}

// importReader reads an import section; bad is set by what can't be read.
type importReader struct {
	b   []byte
	bad bool
}

func (r *importReader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *importReader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<32-1 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *importReader) text() string {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *importReader) limits() {
	flag := r.byte()
	r.number()
	if flag&1 != 0 {
		r.number()
	}
}
