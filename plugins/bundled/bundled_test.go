package bundled

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
)

const root = "../.."

func TestReadHasEveryPlugin(t *testing.T) {
	for _, name := range Names() {
		wasm, err := Read(name)
		if err != nil {
			t.Error(err)
			continue
		}
		m, err := manifest.Read(wasm)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// A file and a collector take what comes twice.
		idempotent := name != "sink-file" && name != "sink-http"
		if m.Name != name || m.Idempotent != idempotent || len(m.ConfigSchema) == 0 {
			t.Errorf("the manifest of %s is %+v", name, m)
		}
	}
	if _, err := Read("sink-none"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "sink-file, sink-http, sink-mock, sink-sqlite") {
		t.Errorf("an unknown plugin: %v", err)
	}
	if _, err := Read("../bundled/sink-mock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path: %v", err)
	}
}

// TestNamesAreTheFolders: each plugin has a folder with its sources, and each
// folder with sources in Go is a plugin. What needs another compiler is not
// bundled: a fresh clone is built with Go alone.
func TestNamesAreTheFolders(t *testing.T) {
	list, err := filepath.Glob(root + "/plugins/sink-*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range list {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	if !slices.Equal(names, Names()) {
		t.Errorf("folders %v, names %v", names, Names())
	}
}

// TestReproducible builds the plugins from a copy of the sources in another
// folder and compares every byte: with what is embedded, so it fails too when
// that is older than its sources.
func TestReproducible(t *testing.T) {
	dir := t.TempDir()
	copySources(t, dir)
	for _, name := range Names() {
		wasm, err := Read(name)
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, name+".wasm")
		build(t, dir, "./plugins/"+name, out, filepath.Join(dir, "plugins", name, "manifest.json"))
		if got := readFile(t, out); !bytes.Equal(got, wasm) {
			t.Errorf("%s built in %s has %d bytes and differs from the embedded one of %d; is it older than its sources or than this Go? run make -B plugins",
				name, dir, len(got), len(wasm))
		}
	}
}

// copySources copies what the plugins are built from.
func copySources(t *testing.T, dir string) {
	t.Helper()
	for _, part := range []string{"go.mod", "go.sum", "abi", "ledger", "plugins"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			target := filepath.Join(dir, rel)
			if d.IsDir() {
				return os.MkdirAll(target, 0o755)
			}
			if strings.HasSuffix(path, ".wasm") {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, text, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// build does what the Makefile does.
func build(t *testing.T, dir, pkg, out, manifestFile string) {
	t.Helper()
	command(t, dir, []string{"CGO_ENABLED=0", "GOWASM=", "GOOS=wasip1", "GOARCH=wasm"},
		"go", "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	command(t, dir, nil, "go", "run", "github.com/audit-host/audit-host/abi/cmd/add-manifest", manifestFile, out)
}

func command(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	c.Env = append(append(os.Environ(), "GOWORK=off", "GOFLAGS="), env...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// TestFreshCloneCompiles: without the built files the package compiles, and
// Read says what to do.
func TestFreshCloneCompiles(t *testing.T) {
	dir := t.TempDir()
	copySources(t, dir)
	program := filepath.Join(dir, "read", "main.go")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	text := `package main

import (
	"errors"
	"fmt"

	"github.com/audit-host/audit-host/plugins/bundled"
)

func main() {
	_, err := bundled.Read("sink-sqlite")
	fmt.Println(errors.Is(err, bundled.ErrNotBuilt), err)
}
`
	if err := os.WriteFile(program, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := command(t, dir, nil, "go", "run", "./read")
	if !strings.HasPrefix(got, "true read bundled plugin sink-sqlite: ") || !strings.Contains(got, `"make plugins"`) {
		t.Errorf("Read says %q", got)
	}
}

// TestBuildFromTheModuleCache runs the commands of the package comment in
// another module, which has this one from a module proxy: a folder.
func TestBuildFromTheModuleCache(t *testing.T) {
	const path, version = "github.com/audit-host/audit-host", "v0.0.1"
	sources, proxy, user := t.TempDir(), t.TempDir(), t.TempDir()
	copySources(t, sources)
	at := filepath.Join(proxy, filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		filepath.Join(at, version+".zip"):  pack(t, path+"@"+version+"/", sources),
		filepath.Join(at, version+".mod"):  readFile(t, filepath.Join(sources, "go.mod")),
		filepath.Join(at, version+".info"): fmt.Appendf(nil, `{"Version":%q}`, version),
		filepath.Join(at, "list"):          []byte(version + "\n"),
		filepath.Join(user, "go.mod"):      fmt.Appendf(nil, "module example.org/user\n\ngo 1.26\n\nrequire %s %s\n", path, version),
	} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"GOPROXY=file://" + filepath.ToSlash(proxy), "GONOSUMDB=*", "GONOSUMCHECK=1", "GOFLAGS=-mod=mod -modcacherw",
		"GOPRIVATE=", "GONOPROXY=", "GOMODCACHE=" + t.TempDir(), "GOTOOLCHAIN=local", "GOSUMDB=off"}
	// The commands as they stand, by a shell, as a person would run them.
	script := "set -e\n" + strings.Join(commandsOfTheComment(t), "\n")
	command(t, user, env, "sh", "-c", script)
	m, err := manifest.Read(readFile(t, filepath.Join(user, "sink-sqlite.wasm")))
	if err != nil || m.Name != "sink-sqlite" {
		t.Errorf("%+v, %v", m, err)
	}
}

// commandsOfTheComment are the indented lines of the package comment.
func commandsOfTheComment(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(.*)$`).FindAllStringSubmatch(string(readFile(t, "bundled.go")), -1) {
		list = append(list, m[1])
	}
	if len(list) != 3 {
		t.Fatalf("the package comment has the commands %q", list)
	}
	return list
}

// pack makes the zip file of a module, as a proxy serves it. copySources has
// left out what is not in version control.
func pack(t *testing.T, prefix, dir string) []byte {
	t.Helper()
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		w, err := z.Create(prefix + filepath.ToSlash(rel))
		if err != nil {
			return err
		}
		_, err = w.Write(readFile(t, path))
		return err
	})
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// TestMakeRebuildsOnlyWhatChanged asks make what it would do.
func TestMakeRebuildsOnlyWhatChanged(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Fatal("make is needed to build this project")
	}
	dir := t.TempDir()
	copySources(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), readFile(t, root+"/Makefile"), 0o644); err != nil {
		t.Fatal(err)
	}
	// A built file that is younger than all sources.
	for _, name := range Names() {
		if err := os.WriteFile(filepath.Join(dir, "plugins", "bundled", name+".wasm"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	would := func() []string {
		var list []string
		for line := range strings.Lines(command(t, dir, nil, "make", "-n", "plugins")) {
			if _, name, ok := strings.Cut(line, " build "); ok {
				list = append(list, name[strings.LastIndex(name, "/")+1:len(name)-1])
			}
		}
		return list
	}
	if got := would(); got != nil {
		t.Errorf("with nothing changed it builds %v", got)
	}
	for _, c := range []struct {
		file string
		want []string
	}{
		{"plugins/sink-sqlite/wasm_test.go", nil},
		{"plugins/bundled/bundled.go", nil},
		{"plugins/sink-sqlite/chain.go", []string{"sink-sqlite"}},
		{"plugins/sink-mock/manifest.json", []string{"sink-mock"}},
		{"ledger/chain/chain.go", []string{"sink-file", "sink-http", "sink-mock", "sink-sqlite"}},
		{"plugins/shape/shape.go", []string{"sink-file", "sink-http"}},
		{"abi/guest/wasm.go", []string{"sink-file", "sink-http", "sink-mock", "sink-sqlite"}},
	} {
		path := filepath.Join(dir, filepath.FromSlash(c.file))
		old, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		// Later than any clock tick between the writes above.
		later := old.ModTime().AddDate(0, 0, 1)
		if err := os.Chtimes(path, later, later); err != nil {
			t.Fatal(err)
		}
		got := would()
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("with %s changed it builds %v, wanted %v", c.file, got, c.want)
		}
		if err := os.Chtimes(path, old.ModTime(), old.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
}
