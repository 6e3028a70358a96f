package statedir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "state")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := d.Path("queue", "x"); got != filepath.Join(path, "queue", "x") {
		t.Errorf("Path: %s", got)
	}
	_, err = Open(path)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", os.Getpid())) {
		t.Errorf("second owner: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// A longer text of an earlier owner must not show through.
	if err := os.WriteFile(filepath.Join(path, "lock"), []byte(strings.Repeat("9", 30)), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(path); err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(path, "lock"))
	if err != nil || string(text) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("the lock file has %q, %v", text, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o755, 0o710, 0o770, 0o701} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(open); err == nil || !strings.Contains(err.Error(), "chmod 700 "+open) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}
