// Package scaffold makes the folder of a new sink plugin: its source, which
// works as it is, the SDK of its language, a script that builds it and a
// configuration that runs it.
//
// Guarantee: everything comes from the program itself, nothing from a network
// or a checkout; the folder appears whole or not at all, and what exists is not
// touched. The sources of the templates for Go are compiled and tested with
// this module. Not guaranteed: that the language's compiler is there; the
// script says so when it is missing.
package scaffold

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"text/template"

	audithost "github.com/audit-host/audit-host"
	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/abi/sdk"
)

//go:embed text golang
var templates embed.FS

// Project is what a new plugin is made of.
type Project struct {
	// Name is the plugin's, see [manifest.ValidName].
	Name string
	// Language is one of [Languages].
	Language string
	// Grant is one of [Grants]: what the sink writes to.
	Grant string
	// Version of the module github.com/audit-host/audit-host that a plugin in
	// Go requires; see [ModuleVersion].
	Version string
}

// language is what differs between languages outside their sources.
type language struct{ name, title, compiler, source, open, deliver string }

var languages = []language{
	{"go", "Go", "Go 1.26 or later", "sink.go", "Open", "Deliver"},
	{"c", "C", "clang and lld", "sink.c", "open_sink", "deliver"},
	{"rust", "Rust", "rustc with its target for WebAssembly", "sink.rs", "open", "deliver"},
	{"as", "AssemblyScript", "Node 20 or later, and once: npm install", "sink.ts", "open", "deliver"},
	{"zig", "Zig", "Zig 0.11", "sink.zig", "open", "deliver"},
}

// Languages lists what a plugin may be written in.
func Languages() []string {
	var list []string
	for _, l := range languages {
		list = append(list, l.name)
	}
	return list
}

// Grants lists what a sink may write to; the first is the default.
func Grants() []string { return []string{abi.CapabilityAppend, abi.CapabilityHTTP, abi.CapabilitySQL} }

// does says what the example with a grant does.
var does = map[string]string{
	abi.CapabilityAppend: "It writes one line for each event into a file: id, type and payload.",
	abi.CapabilityHTTP:   "It posts batches to a URL, as lines of JSON: the payload with the event's id in it.",
	abi.CapabilitySQL:    "It keeps id and payload of each event in a table of an SQLite database.",
}

// look is the command that shows where an event landed.
var look = map[string]string{
	abi.CapabilityAppend: "cat events.log",
	abi.CapabilityHTTP:   "cat received.jsonl",
	abi.CapabilitySQL:    "sqlite3 events.db 'SELECT * FROM events'",
}

// placeholder is the name that the examples have.
const placeholder = "example"

// sinkLimit is the most bytes that the name of a [[sink]] may have, and
// ledgerSink is taken by another one.
const (
	sinkLimit  = 32
	ledgerSink = "ledger"
)

// files returns the content of every file of the folder, by its path in it.
func (p Project) files() (map[string][]byte, error) {
	if !manifest.ValidName(p.Name) {
		return nil, fmt.Errorf("the name %q is not one of a plugin: 1 to 64 of a-z, 0-9 and -, the first no -%s", p.Name, p.better())
	}
	i := slices.IndexFunc(languages, func(l language) bool { return l.name == p.Language })
	if i < 0 {
		return nil, fmt.Errorf("no language %q: there are %s", p.Language, strings.Join(Languages(), ", "))
	}
	if !slices.Contains(Grants(), p.Grant) {
		return nil, fmt.Errorf("no example with the grant %q: there are %s", p.Grant, strings.Join(Grants(), ", "))
	}
	text, err := fs.ReadFile(audithost.GuestSources, "abi/README.md")
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{"ABI.md": text}
	if p.Language == "go" {
		err = p.golang(out)
	} else {
		err = p.foreign(out)
	}
	if err != nil {
		return nil, err
	}
	return out, p.texts(out, languages[i])
}

// better suggests a name that may be had.
func (p Project) better() string {
	name := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, p.Name), "-")
	if !manifest.ValidName(name) {
		return ""
	}
	return ", such as " + name
}

// sink is the name of the plugin's [[sink]].
func (p Project) sink() string {
	if p.Name == ledgerSink {
		return "my-" + ledgerSink
	}
	return p.Name[:min(len(p.Name), sinkLimit)]
}

// texts adds what does not depend on the language but for some words.
func (p Project) texts(out map[string][]byte, l language) error {
	words := struct {
		Project
		Title, Source, Open, Deliver, Sink, Does, Look string
		Commands                                       []string
	}{p, l.title, l.source, l.open, l.deliver, p.sink(), does[p.Grant], look[p.Grant], p.commands(l)}
	names := map[string]string{"README.md": "README.md", "audit.toml": "audit.toml", "gitignore": ".gitignore"}
	if p.Language == "as" {
		names["package.json"] = "package.json"
	}
	if p.Grant == abi.CapabilityHTTP {
		names["collector.toml"] = "collector.toml"
	}
	for _, from := range slices.Sorted(maps.Keys(names)) {
		t, err := template.New(from).Option("missingkey=error").ParseFS(templates, "text/"+from)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, words); err != nil {
			return err
		}
		out[names[from]] = b.Bytes()
	}
	return nil
}

// commands builds, checks and runs it, each with a comment.
func (p Project) commands(l language) []string {
	check := "audit-host plugin check " + p.Name + ".wasm"
	if p.Grant == abi.CapabilityHTTP {
		check += " --config audit.toml --sink " + p.sink() // its url is needed
	}
	list := []string{"sh build.sh", check, "audit-host run -c audit.toml"}
	width := 0
	for _, c := range list {
		width = max(width, len(c))
	}
	for i, why := range []string{
		"makes " + p.Name + ".wasm; needs " + l.compiler,
		"tries it against the rules of the ABI",
		"runs it beside a ledger, until Ctrl-C",
	} {
		list[i] = fmt.Sprintf("%-*s   # %s", width, list[i], why)
	}
	return list
}

// foreign adds the SDK of a language other than Go, and its example.
func (p Project) foreign(out map[string][]byte) error {
	all, err := fs.Sub(sdk.Files(), p.Language)
	if err != nil {
		return err
	}
	// The example with append is whole; the others have what differs from it.
	examples := []string{placeholder}
	if p.Grant != abi.CapabilityAppend {
		examples = append(examples, placeholder+"-"+p.Grant)
	}
	for _, dir := range examples {
		found, err := copyTree(out, "", all, dir, p.named)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("there is no example in %s with the grant %q yet: take --grant append and call the host's function, see audit-host-sdk/README.md", p.Language, p.Grant)
		}
	}
	_, err = copyTree(out, "audit-host-sdk", all, ".", func(name string, text []byte) (string, []byte) {
		if strings.HasPrefix(name, placeholder) {
			return "", nil
		}
		return name, text
	})
	return err
}

// named gives the example's files the plugin's name.
func (p Project) named(name string, text []byte) (string, []byte) {
	return strings.ReplaceAll(name, placeholder, p.Name), bytes.ReplaceAll(text, []byte(placeholder), []byte(p.Name))
}

// copyTree adds the files of a folder, as change makes them; those that it gives
// no name are left out. It reports whether there was one.
func copyTree(out map[string][]byte, to string, from fs.FS, dir string, change func(string, []byte) (string, []byte)) (found bool, err error) {
	if _, err := fs.Stat(from, dir); err != nil {
		return false, nil
	}
	err = fs.WalkDir(from, dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(from, at)
		if err != nil {
			return err
		}
		name := at
		if dir != "." {
			name = strings.TrimPrefix(at, dir+"/")
		}
		if name, text = change(name, text); name != "" {
			out[path.Join(to, name)] = text
			found = true
		}
		return nil
	})
	return found, err
}
