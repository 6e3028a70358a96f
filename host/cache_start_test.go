package host

import (
	"context"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/audit-host/audit-host/ledger"
)

// startChild names the cache's folder for a child of TestStartSQLite.
const startChild = "AUDIT_HOST_TEST_START_CACHE"

// TestStartSQLite starts the engine in processes of its own, for it is started
// once in a process: the second finds the compiled code of the first. The
// engine outlives the cache that it was started with.
func TestStartSQLite(t *testing.T) {
	if dir := os.Getenv(startChild); dir != "" {
		cache, err := OpenCache(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := StartSQLite(cache); err != nil {
			t.Fatal(err)
		}
		if err := cache.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := ledger.Create(filepath.Join(t.TempDir(), "ledger.db")); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var first map[string]int64
	for round := range 2 {
		cmd := osexec.Command(os.Args[0], "-test.run=^TestStartSQLite$")
		cmd.Env = append(os.Environ(), startChild+"="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		sizes := map[string]int64{}
		total := int64(0)
		if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				sizes[p] = info.Size()
				total += info.Size()
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if total < 1<<20 {
			t.Fatalf("the cache has %d bytes: SQLite is not in it", total)
		}
		if round == 1 && !reflect.DeepEqual(sizes, first) {
			t.Errorf("the second start compiled again: %v, then %v", first, sizes)
		}
		first = sizes
	}
}
