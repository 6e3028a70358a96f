package wasmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BuildGo compiles the Go package in a folder to a guest, with the flags beside
// those that every guest needs. It takes a second or more: keep the result. The
// error has the compiler's words.
func BuildGo(folder string, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wasmtest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", append(append([]string{"build", "-buildmode=c-shared", "-o", out}, flags...), "./"+folder)...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", folder, err, text)
	}
	return os.ReadFile(out)
}
