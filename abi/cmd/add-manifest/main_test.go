package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const empty = "\x00asm\x01\x00\x00\x00"
	good := file("good.json", `{"name":"sink-x","version":"1"}`)
	module := file("m.wasm", empty)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "usage:"},
		{[]string{good}, 2, "usage:"},
		{[]string{filepath.Join(dir, "none.json"), module}, 1, "none.json"},
		{[]string{good, filepath.Join(dir, "none.wasm")}, 1, "none.wasm"},
		{[]string{file("bad.json", `{}`), module}, 1, "bad.json"},
		{[]string{good, file("text.wasm", "text")}, 1, "not a WebAssembly module"},
		{[]string{good, module}, 0, ""},
		{[]string{good, module}, 0, ""},
	} {
		var stderr bytes.Buffer
		if code := run(c.args, &stderr); code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%q: code %d, %q; wanted %d and %q", c.args, code, stderr.String(), c.code, c.says)
		}
	}
	wasm, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := manifest.Read(wasm); err != nil || m.Name != "sink-x" {
		t.Errorf("%+v, %v", m, err)
	}
	if list, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || list != nil {
		t.Errorf("left behind: %v, %v", list, err)
	}
}
