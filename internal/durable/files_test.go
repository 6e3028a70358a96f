package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for i, content := range []string{"long old content", "new", ""} {
		mode := os.FileMode(0o600 + i*0o20)
		if err := WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != content || info.Mode().Perm() != mode && os.PathSeparator == '/' {
			t.Errorf("%q, %v, %v, %v", got, info.Mode(), err, statErr)
		}
	}
	// What can't be put in place leaves what was there, and nothing beside it.
	taken := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(taken, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(dir, "none")); err == nil && os.PathSeparator == '/' {
		t.Error("a folder that is not there was synced")
	}
}

func TestTryLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a, b := open(), open()
	lock := func(f *os.File, want bool) {
		t.Helper()
		if free, err := TryLock(f); free != want || err != nil {
			t.Errorf("%v, %v", free, err)
		}
	}
	lock(a, true)
	lock(b, false)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	lock(b, true)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(b); err == nil {
		t.Error("a closed file was locked")
	}
}
