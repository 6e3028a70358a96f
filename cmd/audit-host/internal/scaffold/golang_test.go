package scaffold

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	audithost "github.com/audit-host/audit-host"
	"github.com/audit-host/audit-host/abi/manifest"
)

func TestModuleVersion(t *testing.T) {
	for program, want := range map[string]string{
		"v0.1.0": "v0.1.0", "v1.20.3": "v1.20.3", "v0.1.0-rc.1": "v0.1.0-rc.1", "v0.1.0+dirty": "v0.1.0",
		"v0.0.0-20261125034653-289714800000":       "v0.0.0-20261125034653-289714800000",
		"v0.0.0-20261125034653-289714800000+dirty": "v0.0.0-20261125034653-289714800000",
		"(devel)": unpublished, "unknown": unpublished, "": unpublished, "1.0.0": unpublished, "v1": unpublished,
		"v2.0.0": unpublished, "v1.0.0 x": unpublished, "v01.0.0": unpublished,
	} {
		if got := ModuleVersion(program); got != want {
			t.Errorf("ModuleVersion(%q) = %q, wanted %q", program, got, want)
		}
	}
}

// environment is one in which nothing can be fetched and nothing is there yet.
func environment(t *testing.T, more ...string) []string {
	t.Helper()
	return append(os.Environ(), append([]string{"GOPROXY=off", "GOMODCACHE=" + t.TempDir(), "GOFLAGS=-modcacherw", "GOSUMDB=off", "GOPRIVATE=", "GONOPROXY=",
		"GOTOOLCHAIN=local", "GOWORK=off", "CGO_ENABLED=0"}, more...)...)
}

func goCommand(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	c := exec.Command("go", args...)
	c.Dir, c.Env = dir, env
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("go %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// TestGoOffline builds, vets and tests every plugin in Go with no network and no
// module in the cache. That audit-host loads and runs them is tested with the
// command.
func TestGoOffline(t *testing.T) {
	for _, grant := range Grants() {
		t.Run(grant, func(t *testing.T) {
			folder, _, err := Project{Name: "zebra-7", Language: "go", Grant: grant, Version: unpublished}.Write(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if text := read(t, filepath.Join(folder, "go.mod")); strings.Count(text, "require") != 1 || strings.Count(text, "\n") != 5 {
				t.Errorf("go.mod has more than one require line:\n%s", text)
			}
			env := environment(t)
			goCommand(t, folder, env, "test", "./...")
			if got := goCommand(t, folder, env, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./..."); got != module+"/abi\n"+module+"/abi/guest\nexample.org/zebra-7\n" {
				t.Errorf("it is built from\n%s", got)
			}
			guest := environment(t, "GOOS=wasip1", "GOARCH=wasm", "GOWASM=")
			goCommand(t, folder, guest, "vet", "./...")
			goCommand(t, folder, guest, "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "zebra-7.wasm", ".")
			file := filepath.Join(folder, "zebra-7.wasm")
			if _, err := manifest.SetFile(file, filepath.Join(folder, "manifest.json")); err != nil {
				t.Fatal(err)
			}
			if m, err := manifest.Read([]byte(read(t, file))); err != nil || m.Name != "zebra-7" {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

// TestVendorIsGos: what comes in vendor is what "go mod vendor" makes of the
// published module, file by file. So the commands of the README can follow.
func TestVendorIsGos(t *testing.T) {
	const version = "v0.0.9"
	env := environment(t, "GOPROXY=file://"+filepath.ToSlash(publish(t, version)))
	folder, _, err := Project{Name: "zebra-7", Language: "go", Grant: "append", Version: version}.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ours := tree(t, filepath.Join(folder, "vendor"))
	goCommand(t, folder, env, "mod", "tidy") // go.sum, which vendor does not need
	goCommand(t, folder, env, "mod", "vendor")
	theirs := tree(t, filepath.Join(folder, "vendor"))
	for name, text := range theirs {
		if ours[name] != text {
			t.Errorf("%s is %q, go mod vendor makes %q", name, ours[name], text)
		}
	}
	for name := range ours {
		if _, ok := theirs[name]; !ok {
			t.Errorf("%s is not what go mod vendor makes", name)
		}
	}
}

// TestMoveToAPublishedVersion runs the commands of the README after a version
// that exists nowhere.
func TestMoveToAPublishedVersion(t *testing.T) {
	const version = "v0.0.9"
	env := environment(t, "GOPROXY=file://"+filepath.ToSlash(publish(t, version)))
	folder, _, err := Project{Name: "zebra-7", Language: "go", Grant: "append", Version: unpublished}.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var ran int
	for line := range strings.Lines(read(t, filepath.Join(folder, "README.md"))) {
		if command, ok := strings.CutPrefix(line, "    go "); ok {
			command, _, _ = strings.Cut(command, "#")
			goCommand(t, folder, env, strings.Fields(command)...)
			ran++
		}
	}
	if ran != 3 {
		t.Errorf("the README has %d commands of go", ran)
	}
	if text := read(t, filepath.Join(folder, "go.mod")); strings.Count(text, "require") != 1 || !strings.Contains(text, "require "+module+" "+version) {
		t.Errorf("go.mod is\n%s", text)
	}
	goCommand(t, folder, environment(t), "test", "./...")
}

// publish makes a module proxy, a folder, that serves this module.
func publish(t *testing.T, version string) string {
	t.Helper()
	proxy := t.TempDir()
	at := filepath.Join(proxy, filepath.FromSlash(module), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	mod, err := audithost.GuestSources.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	err = fs.WalkDir(audithost.GuestSources, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := audithost.GuestSources.ReadFile(name)
		if err != nil {
			return err
		}
		w, err := z.Create(module + "@" + version + "/" + name)
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
	for name, text := range map[string][]byte{
		version + ".zip": packed.Bytes(), version + ".mod": mod, version + ".info": fmt.Appendf(nil, `{"Version":%q}`, version), "list": []byte(version + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(at, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return proxy
}

// tree reads all files of a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil {
			out[filepath.ToSlash(rel)] = read(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
