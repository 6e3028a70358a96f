package sdk

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
)

// TestNothingIsLeftOut: the binary has each file of the folders but for what a
// build leaves there.
func TestNothingIsLeftOut(t *testing.T) {
	seen := 0
	for _, lang := range Languages() {
		err := filepath.WalkDir(lang, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, ".wasm") {
				return err
			}
			seen++
			want, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if got, err := fs.ReadFile(Files(), filepath.ToSlash(path)); err != nil || string(got) != string(want) {
				t.Errorf("%s is not what Files has: %v", path, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if seen < 40 {
		t.Errorf("%d files only", seen)
	}
}

// TestExamplesAreAlike: a manifest and a build script lie in each, and the
// manifests of the example that all languages have are the same.
func TestExamplesAreAlike(t *testing.T) {
	var first string
	for _, lang := range Languages() {
		for _, name := range []string{"README.md", "example/build.sh", "example/manifest.json"} {
			if _, err := fs.Stat(Files(), lang+"/"+name); err != nil {
				t.Error(err)
			}
		}
		text, err := fs.ReadFile(Files(), lang+"/example/manifest.json")
		if err != nil {
			t.Fatal(err)
		}
		if m, err := manifest.Parse(text); err != nil || m.Name != "example" || !slices.Equal(m.Capabilities, []string{"append"}) {
			t.Errorf("%s: %+v %v", lang, m, err)
		}
		if first == "" {
			first = string(text)
		}
		if string(text) != first {
			t.Errorf("the manifest of %s is another than that of %s", lang, Languages()[0])
		}
	}
}
