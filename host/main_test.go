package host

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// cacheDir is a folder for the whole test run.
var cacheDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "audit-host-test")
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(cacheDir()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
