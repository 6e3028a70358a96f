package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// only wants these files in a folder and no others.
func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("the folder has %q, wanted %q", names, want)
	}
}

func TestSetFile(t *testing.T) {
	dir := t.TempDir()
	module := write(t, filepath.Join(dir, "m.wasm"), empty, 0o600)
	for _, version := range []string{"1", "2"} {
		text := write(t, filepath.Join(dir, "manifest.json"), `{"name":"x","version":"`+version+`"}`, 0o600)
		if m, err := SetFile(module, text); err != nil || m.Version != version {
			t.Fatalf("%+v, %v", m, err)
		}
		wasm, err := os.ReadFile(module)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := Read(wasm); err != nil || m.Version != version {
			t.Errorf("read back %+v, %v", m, err)
		}
	}
	info, err := os.Stat(module)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	only(t, dir, "m.wasm", "manifest.json")
}

// After an error the module is as it was, and nothing lies beside it.
func TestSetFileRefuses(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good.json"), `{"name":"x","version":"1"}`, 0o600)
	bad := write(t, filepath.Join(dir, "bad.json"), `{"name":"x"}`, 0o600)
	module := write(t, filepath.Join(dir, "m.wasm"), empty, 0o600)
	text := write(t, filepath.Join(dir, "text"), "text", 0o600)
	for _, c := range [][3]string{
		{module, filepath.Join(dir, "none"), "read manifest: "}, {module, bad, "bad.json: manifest of x: version"},
		{filepath.Join(dir, "none"), good, "read module: "}, {text, good, "text: not a WebAssembly module"}, {dir, good, "read module: "},
	} {
		if _, err := SetFile(c[0], c[1]); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("SetFile(%s, %s): %v, wanted %q", c[0], c[1], err, c[2])
		}
	}
	refuse := func(m Manifest) error { return errors.New("no " + m.Name) }
	if _, err := SetFile(module, good, refuse); err == nil || !strings.Contains(err.Error(), "good.json: no x") {
		t.Errorf("refused by a check: %v", err)
	}
	if wasm, err := os.ReadFile(module); err != nil || string(wasm) != empty {
		t.Errorf("the module is %q, %v", wasm, err)
	}
	only(t, dir, "bad.json", "good.json", "m.wasm", "text")
}

func TestSetFileFollowsALink(t *testing.T) {
	dir := t.TempDir()
	module := write(t, filepath.Join(dir, "m.wasm"), empty, 0o600)
	link := filepath.Join(dir, "link.wasm")
	if err := os.Symlink("m.wasm", link); err != nil {
		if runtime.GOOS == "windows" {
			return // needs a privilege there
		}
		t.Fatal(err)
	}
	if _, err := SetFile(link, write(t, filepath.Join(dir, "x.json"), `{"name":"x","version":"1"}`, 0o600)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	if wasm, err := os.ReadFile(module); err != nil || string(wasm) == empty {
		t.Errorf("the module is as before, %v", err)
	}
}
