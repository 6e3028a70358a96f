package scaffold

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/abi/sdk"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

// projects are all that there can be, with a name that stands in no template.
func projects() []Project {
	var list []Project
	for _, l := range Languages() {
		for _, g := range Grants() {
			list = append(list, Project{Name: "zebra-7", Language: l, Grant: g, Version: unpublished})
		}
	}
	return list
}

func TestLanguagesAreThoseOfTheSDKs(t *testing.T) {
	want := append([]string{"go"}, sdk.Languages()...)
	got := Languages()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("languages %q, and SDKs for %q", got, want)
	}
}

// TestProjects: what is made agrees with itself and with audit-host.
func TestProjects(t *testing.T) {
	for _, p := range projects() {
		t.Run(p.Language+"/"+p.Grant, func(t *testing.T) {
			dir := t.TempDir()
			folder, names, err := p.Write(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"README.md", "audit.toml", "build.sh", "manifest.json", ".gitignore"} {
				if !slices.Contains(names, name) {
					t.Errorf("no %s among %q", name, names)
				}
			}
			for _, name := range names {
				text, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(name)))
				if err != nil {
					t.Error(err)
				}
				sdk := strings.HasPrefix(name, "vendor/") || strings.HasPrefix(name, "audit-host-sdk/")
				if s := strings.ReplaceAll(string(text), "example.org/", ""); !sdk && name != "ABI.md" && (strings.Contains(s, placeholder) || strings.Contains(s, "{{.")) {
					t.Errorf("%s still holds the placeholder, or a piece of a template:\n%s", name, text)
				}
			}
			m := readManifest(t, filepath.Join(folder, "manifest.json"))
			if m.Name != p.Name || !slices.Equal(m.Capabilities, []string{p.Grant}) || m.Idempotent != (p.Grant == abi.CapabilitySQL) {
				t.Errorf("manifest %+v", m)
			}
			cfg, err := config.Load(filepath.Join(folder, "audit.toml"))
			if err != nil {
				t.Fatal(err)
			}
			s := cfg.Sinks[len(cfg.Sinks)-1]
			granted := map[string]bool{abi.CapabilityAppend: s.Grant.Append != nil, abi.CapabilityHTTP: s.Grant.HTTP != nil, abi.CapabilitySQL: s.Grant.SQL != nil}
			if s.Name != p.Name || filepath.Base(s.Plugin.Path) != p.Name+".wasm" || !granted[p.Grant] {
				t.Errorf("sink %+v", s)
			}
			if ledger, ok := cfg.Ledger(); !ok || ledger.Name != ledgerSink {
				t.Errorf("the ledger is %+v, %v", ledger, ok)
			}
			if p.Grant == abi.CapabilityHTTP {
				if _, err := config.Load(filepath.Join(folder, "collector.toml")); err != nil {
					t.Error(err)
				}
			}
			// What the README lists is there, and what is there it lists.
			readme := read(t, filepath.Join(folder, "README.md"))
			for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(readme, -1) {
				if _, err := os.Stat(filepath.Join(folder, m[1])); err != nil {
					t.Errorf("the README lists what is not there: %v", err)
				}
			}
			tops := map[string]bool{}
			for _, name := range names {
				if top, _, deep := strings.Cut(name, "/"); deep {
					name = top + "/"
				}
				tops[name] = true
			}
			for _, name := range slices.Sorted(maps.Keys(tops)) {
				if !strings.Contains(readme, "| `"+name+"`") && !slices.Contains([]string{"README.md", ".gitignore", "go.mod"}, name) {
					t.Errorf("the README does not list %s", name)
				}
			}
			if info, err := os.Stat(filepath.Join(folder, "build.sh")); err != nil || info.Mode().Perm()&0o111 == 0 {
				t.Errorf("build.sh: %v, %v", info.Mode(), err)
			}
		})
	}
}

func readManifest(t *testing.T, path string) manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse([]byte(read(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(m.ConfigSchema) {
		t.Errorf("%s: no schema", path)
	}
	return m
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// left wants these names in a folder and no others.
func left(t *testing.T, dir string, want ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the folder has %q, wanted %q", names, want)
	}
}

func TestRefused(t *testing.T) {
	good := Project{Name: "x", Language: "go", Grant: "append", Version: unpublished}
	with := func(change func(*Project)) Project {
		p := good
		change(&p)
		return p
	}
	for says, p := range map[string]Project{
		`the name "My_Sink" is not one of a plugin: 1 to 64 of a-z, 0-9 and -, the first no -, such as my-sink`: with(func(p *Project) { p.Name = "My_Sink" }),
		`the name "" is`:                with(func(p *Project) { p.Name = "" }),
		`the name "../x" is`:            with(func(p *Project) { p.Name = "../x" }),
		`the name "." is`:               with(func(p *Project) { p.Name = "." }),
		`the name "-x" is`:              with(func(p *Project) { p.Name = "-x" }),
		`the name "x\n" is`:             with(func(p *Project) { p.Name = "x\n" }),
		`no language "perl": there are`: with(func(p *Project) { p.Language = "perl" }),
		`no language "": there are`:     with(func(p *Project) { p.Language = "" }),
		`with the grant "kv": there`:    with(func(p *Project) { p.Grant = "kv" }),
	} {
		dir := t.TempDir()
		if _, _, err := p.Write(dir); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, wanted %q", p, err, says)
		}
		left(t, dir)
	}
	if _, _, err := good.Write(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make that one first") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// What exists is not touched, whatever it is.
func TestExistingIsRefused(t *testing.T) {
	p := Project{Name: "x", Language: "go", Grant: "append", Version: unpublished}
	for name, make := range map[string]func(string) error{
		"folder": func(at string) error { return os.Mkdir(at, 0o700) },
		"file":   func(at string) error { return os.WriteFile(at, []byte("mine"), 0o600) },
		"link":   func(at string) error { return os.Symlink("nowhere", at) },
	} {
		dir := t.TempDir()
		at := filepath.Join(dir, "x")
		if err := make(at); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(at)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Write(dir); err == nil || !strings.Contains(err.Error(), "is there already") {
			t.Errorf("%s: %v", name, err)
		}
		after, err := os.Lstat(at)
		if err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() || before.ModTime() != after.ModTime() {
			t.Errorf("%s: it was %v, is %v, %v", name, before, after, err)
		}
		left(t, dir, "x")
	}
}

// An error in the middle leaves nothing: here the second file can't be made.
func TestNothingHalfWritten(t *testing.T) {
	dir := t.TempDir()
	err := place(filepath.Join(dir, "x"), map[string][]byte{"a": nil, "a/b": nil})
	if err == nil {
		t.Fatal("written")
	}
	left(t, dir)
}

// Written where it is started, not in the system's folder for temporary files.
func TestWorkingDirectory(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := place("x", map[string][]byte{"a": nil}); err != nil {
		t.Fatal(err)
	}
	left(t, dir, "x")
	info, err := os.Stat("x")
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A name may be longer than that of a sink, or that of the other sink.
func TestSinkNames(t *testing.T) {
	for name, want := range map[string]string{
		strings.Repeat("a", 64): strings.Repeat("a", 32), "ledger": "my-ledger", "state": "state", "events": "events", "collector": "collector",
	} {
		for _, grant := range Grants() {
			folder, _, err := Project{Name: name, Language: "go", Grant: grant, Version: unpublished}.Write(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(filepath.Join(folder, "audit.toml"))
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Sinks[1].Name; got != want {
				t.Errorf("%s with %s: the sink is called %s, wanted %s", name, grant, got, want)
			}
		}
	}
}
