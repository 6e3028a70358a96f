package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
)

// TestGuestsAreAssembled: the bytes that are measured are those of the texts, and
// ours has its manifest after them. It needs wat2wasm of the Debian package wabt,
// which .ci/run installs.
func TestGuestsAreAssembled(t *testing.T) {
	manifests := map[string]string{"audit": `{"name":"nothing","version":"1.0.0","capabilities":[],"idempotent":true}`}
	guests := map[string]string{"audit": auditGuest, "bare": bareGuest, "extism": extismGuest}
	for _, ending := range []string{"wat", "hex"} {
		if files, err := filepath.Glob("guests/*." + ending); err != nil || len(files) != len(guests) {
			t.Errorf("guests: %d files in %s, wanted %d (%v)", len(files), ending, len(guests), err)
		}
	}
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("wat2wasm is missing: it is in the Debian package wabt")
		}
		t.Log("NOT CHECKED: wat2wasm is not installed (Debian package wabt)")
		return
	}
	for name, text := range guests {
		path := "guests/" + name + ".wat"
		cmd := exec.Command(tool, path, "--output=-")
		cmd.Stderr = os.Stderr
		want, err := cmd.Output()
		if err != nil {
			t.Fatalf("assemble %s: %v", path, err)
		}
		if m := manifests[name]; m != "" {
			if want, err = manifest.Append(want, []byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := guestBytes(text)
		if err != nil {
			t.Fatalf("guests/%s.hex: %v", name, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("guests/%s.hex is not what %s assembles to: wanted\n%x", name, path, want)
		}
	}
}
