package sdk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/abi/sdk"
	"github.com/audit-host/audit-host/host"
)

// cache keeps compiled code for the whole run.
var cache *host.Cache

// TestMain stands in for audit-host where a build script calls it: as
// "plugin manifest MANIFEST.json FILE.wasm".
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "plugin" && os.Args[2] == "manifest" {
		if err := addManifest(os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(run(m))
}

func addManifest(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	wasm, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	if wasm, err = manifest.Append(wasm, text); err != nil {
		return err
	}
	return os.WriteFile(to, wasm, 0o644)
}

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "sdk-test")
	if err == nil {
		cache, err = host.OpenCache(filepath.Join(dir, "code"))
	}
	if err == nil {
		code = m.Run()
		err = cache.Close(context.Background())
	}
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// project lays out what a user has: the files of an example, and the SDK in a
// folder beside them.
func project(t *testing.T, lang string) string {
	t.Helper()
	dir := t.TempDir()
	tree, err := fs.Sub(sdk.Files(), lang)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "audit-host-sdk"), tree); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(dir, "audit-host-sdk", "example"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build runs the build script in a folder and returns the module.
func build(t *testing.T, dir, name string, env ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "build.sh")
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "AUDIT_HOST="+os.Args[0]), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sh build.sh: %v\n%s", err, out)
	} else if len(out) > 0 {
		t.Errorf("sh build.sh is not silent:\n%s", out)
	}
	wasm, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// examples are built once.
var examples sync.Map

// example is the example's module in a language.
func example(t *testing.T, lang string) []byte {
	t.Helper()
	if wasm, ok := examples.Load(lang); ok {
		return wasm.([]byte)
	}
	wasm := build(t, project(t, lang), "example.wasm")
	examples.Store(lang, wasm)
	return wasm
}

// each runs a test for every language, or for those that LANGUAGES names.
func each(t *testing.T, f func(t *testing.T, lang string)) {
	langs := sdk.Languages()
	if only := os.Getenv("LANGUAGES"); only != "" {
		langs = strings.Fields(only)
	}
	for _, lang := range langs {
		t.Run(lang, func(t *testing.T) { f(t, lang) })
	}
}
