//go:build !wasip1

package guest

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// published is this module as a proxy serves it.
const (
	published = "github.com/audit-host/audit-host"
	version   = "v0.0.1"
)

// proxy is a module proxy that has this module only, and writes down what it is
// asked for.
type proxy struct {
	files map[string][]byte

	mu    sync.Mutex // guards asked
	asked []string
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, strings.TrimPrefix(r.URL.Path, "/"))
	p.mu.Unlock()
	text, ok := p.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Write(text) // an error is the client's
}

// fetched tells which go.mod files and modules were asked for since the last
// time. The rest are questions which module has a package, and which versions.
func (p *proxy) fetched() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.DeleteFunc(p.asked, func(s string) bool { return !strings.HasSuffix(s, ".mod") && !strings.HasSuffix(s, ".zip") })
	p.asked = nil
	slices.Sort(list)
	return slices.Compact(list)
}

// TestFootprint: a module that imports the SDK requires one module and downloads
// one, ours. Of what the rest of ours needs (wazero, SQLite, cobra …) not even
// the go.mod is asked for, because Go prunes the graph of a module behind those
// that the main one requires; see https://go.dev/ref/mod#graph-pruning.
func TestFootprint(t *testing.T) {
	p := publish(t)
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	env := append(os.Environ(), "GOPROXY="+server.URL, "GOSUMDB=off", "GOPRIVATE=", "GONOPROXY=", "GONOSUMDB=", "GOFLAGS=-modcacherw", "GOWORK=off",
		"GOTOOLCHAIN=local", "GOMODCACHE="+t.TempDir(), "CGO_ENABLED=0")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		c := exec.Command("go", args...)
		c.Dir, c.Env = dir, env
		var stdout, stderr bytes.Buffer
		c.Stdout, c.Stderr = &stdout, &stderr
		if err := c.Run(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
		}
		return stdout.String()
	}
	write("go.mod", "module example.org/mine\n\ngo 1.26\n")
	write("sink.go", sinkSource)
	write("sink_test.go", testSource)
	base := published + "/@v/" + version
	run("get", published+"/abi/guest@"+version)
	if got, want := p.fetched(), []string{base + ".mod", base + ".zip"}; !slices.Equal(got, want) {
		t.Errorf("go get fetches %q, wanted %q", got, want)
	}
	run("mod", "tidy")
	run("vet", "./...")
	run("test", "./...")
	env = append(env, "GOOS=wasip1", "GOARCH=wasm", "GOWASM=")
	run("build", "-buildmode=c-shared", "-o", "mine.wasm", ".")
	deps := strings.Fields(run("list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "."))
	if want := []string{published + "/abi", published + "/abi/guest", "example.org/mine"}; !slices.Equal(deps, want) {
		t.Errorf("it is built from %q, wanted %q", deps, want)
	}
	run("mod", "vendor")
	// The graph names what our go.mod requires, and fetches nothing for that.
	graph := run("mod", "graph")
	if !strings.Contains(graph, published+"@"+version+" github.com/tetratelabs/wazero@") {
		t.Errorf("the graph has no wazero, so this test proves nothing:\n%s", graph)
	}
	if got := p.fetched(); len(got) > 0 {
		t.Errorf("more was fetched: %q", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if want := "module example.org/mine\n\ngo 1.26.0\n\nrequire " + published + " " + version + "\n"; err != nil || string(text) != want {
		t.Errorf("go.mod is %q, %v; wanted %q", text, err, want)
	}
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	for line := range strings.Lines(string(sum)) {
		if !strings.HasPrefix(line, published+" ") {
			t.Errorf("go.sum has %s", line)
		}
	}
	if err != nil || len(sum) == 0 {
		t.Errorf("go.sum: %v", err)
	}
}

const sinkSource = `package main

import (
	"` + published + `/abi"
	"` + published + `/abi/guest"
)

func main() {}

func init() { guest.Register(sink{}) }

type sink struct{}

func (sink) Open([]byte) guest.Answer { return guest.OK(0) }

func (sink) Deliver(b abi.View) guest.Answer { return guest.OK(b.Len()) }
`

const testSource = `package main

import (
	"testing"

	"` + published + `/abi"
	"` + published + `/abi/guest"
)

func TestDeliver(t *testing.T) {
	var b abi.Batch
	frame := make([]byte, b.Size())
	b.Encode(frame)
	v, err := abi.Parse(frame)
	if a := (sink{}).Deliver(v); err != nil || a != guest.OK(0) {
		t.Errorf("%+v, %v", a, err)
	}
}
`

// publish packs the whole module, with all that imports the heavy ones, as a
// proxy would.
func publish(t *testing.T) *proxy {
	t.Helper()
	const root = "../.."
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	heavy := false
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if nested := err == nil && rel != "."; nested || strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" && rel != "go.mod" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		heavy = heavy || filepath.ToSlash(rel) == "host/host.go"
		w, err := z.Create(published + "@" + version + "/" + filepath.ToSlash(rel))
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	})
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if !heavy {
		t.Fatal("package host is not in the module, so this test proves nothing")
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	at := "/" + published + "/@v/"
	return &proxy{files: map[string][]byte{
		at + version + ".zip": packed.Bytes(), at + version + ".mod": mod,
		at + version + ".info": fmt.Appendf(nil, `{"Version":%q}`, version), at + "list": []byte(version + "\n"),
	}}
}
