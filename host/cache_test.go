package host

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/audit-host/audit-host/abi"
)

// newCache opens a cache that logs to lines and is closed at the test's end.
func newCache(t testing.TB, dir string, lines *countingHandler) *Cache {
	t.Helper()
	c, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	if lines != nil {
		c.Log = lines.logger()
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// entries lists the files of compiled code.
func entries(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"+entrySuffix))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// load loads two small plugins through the cache and uses them.
func load(t testing.TB, c *Cache) {
	t.Helper()
	for _, g := range []guestModule{{}, {deliver: when(9, opUnreachable)}} {
		s := openGuest(t, g.bytes(), Options{Cache: c})
		if r := s.Deliver(context.Background(), batchOf(2, "x")); r.Outcome != abi.OK {
			t.Fatalf("%v %q", r.Outcome, r.Detail)
		}
	}
}

func TestCacheKeepsCode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "cache")
	var lines countingHandler
	c := newCache(t, dir, &lines)
	load(t, c)
	files := entries(t, dir)
	if len(files) != 2 {
		t.Fatalf("%d entries, want 2", len(files))
	}
	before := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		before[f] = b
		// An old time, which reading moves: prune goes by it.
		if err := os.Chtimes(f, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	c = newCache(t, dir, &lines)
	load(t, c)
	if n, _ := lines.count(); n != 0 || c.Damaged() != 0 {
		t.Errorf("warnings: %q, %d damaged", lines.lines, c.Damaged())
	}
	if now := entries(t, dir); !slices.Equal(now, files) {
		t.Errorf("entries %q, then %q", files, now)
	}
	for f, b := range before {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().Equal(time.Unix(1, 0)) {
			t.Errorf("%s was not read", f)
		}
		if now, err := os.ReadFile(f); err != nil || !bytes.Equal(now, b) {
			t.Errorf("%s was written again", f)
		}
	}
	if runtime.GOOS != "windows" {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			info, err2 := d.Info()
			if err != nil || err2 != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v %v, mode %v", path, err, err2, info.Mode())
			}
			return nil
		})
	}
}

// Damage of every kind, in every entry: the plugin runs, a warning is logged,
// and what is executed was compiled afresh.
func TestCacheDamage(t *testing.T) {
	flip := func(at int) func(t *testing.T, f string) {
		return func(t *testing.T, f string) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			b[(at+len(b))%len(b)] ^= 0x10
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(content string) func(t *testing.T, f string) {
		return func(t *testing.T, f string) {
			if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(t *testing.T, f string){
		"a bit of the magic":    flip(0),
		"a bit of the MAC":      flip(len(entryMagic) + 3),
		"the first bit of code": flip(entryHead),
		"a bit in the middle":   flip(entryHead + 200),
		"the last bit":          flip(-1),
		"empty":                 write(""),
		"the head alone":        write(entryMagic + strings.Repeat("\x00", 32)),
		"foreign text":          write("#!/bin/sh\nrm -rf /\n"),
		"cut short": func(t *testing.T, f string) {
			if err := os.Truncate(f, 500); err != nil {
				t.Fatal(err)
			}
		},
		"a folder": func(t *testing.T, f string) {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(f, "in it"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			load(t, newCache(t, dir, nil))
			for _, f := range entries(t, dir) {
				damage(t, f)
			}
			var lines countingHandler
			c := newCache(t, dir, &lines)
			load(t, c)
			if c.Damaged() != 2 || !lines.has("WARN", "entry of the compilation cache deleted", "compiled again") {
				t.Errorf("%d damaged, log %q", c.Damaged(), lines.lines)
			}
			lines.reset()
			c = newCache(t, dir, &lines)
			load(t, c)
			if n, _ := lines.count(); n != 0 || c.Damaged() != 0 {
				t.Errorf("the entries were not mended: %q", lines.lines)
			}
		})
	}
}

// An entry is good under its own name only, and with the key of its folder.
func TestCacheEntriesAreBound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	load(t, newCache(t, dir, nil))
	files := entries(t, dir)
	swap := func(a, b string) {
		t.Helper()
		for _, m := range [][2]string{{a, a + "x"}, {b, a}, {a + "x", b}} {
			if err := os.Rename(m[0], m[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap(files[0], files[1])
	var lines countingHandler
	c := newCache(t, dir, &lines)
	load(t, c)
	if c.Damaged() != 2 {
		t.Errorf("swapped entries: %d refused", c.Damaged())
	}

	for name, key := range map[string]func() error{
		"another key": func() error {
			return os.WriteFile(filepath.Join(dir, cacheKeyFile), bytes.Repeat([]byte{7}, 32), 0o600)
		},
		"no key":      func() error { return os.Remove(filepath.Join(dir, cacheKeyFile)) },
		"a short key": func() error { return os.Truncate(filepath.Join(dir, cacheKeyFile), 5) },
		"a loose key": func() error { return os.Chmod(filepath.Join(dir, cacheKeyFile), 0o644) },
		"a folder": func() error {
			return errJoin(os.Remove(filepath.Join(dir, cacheKeyFile)), os.Mkdir(filepath.Join(dir, cacheKeyFile), 0o700))
		},
		"a symlink": func() error {
			return errJoin(os.Remove(filepath.Join(dir, cacheKeyFile)), os.Symlink("/dev/zero", filepath.Join(dir, cacheKeyFile)))
		},
		"key of others": nil,
	} {
		t.Run(name, func(t *testing.T) {
			if key == nil {
				// The folder of somebody else: their code under their key.
				other := filepath.Join(t.TempDir(), "cache")
				load(t, newCache(t, other, nil))
				for _, f := range entries(t, other) {
					b, err := os.ReadFile(f)
					if err == nil {
						err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			} else if err := key(); err != nil {
				t.Fatal(err)
			}
			c := newCache(t, dir, &lines)
			load(t, c)
			if c.Damaged() != 2 {
				t.Errorf("%d refused, want 2", c.Damaged())
			}
			if info, err := os.Lstat(filepath.Join(dir, cacheKeyFile)); err != nil || !info.Mode().IsRegular() || info.Size() != 32 || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("key afterwards: %v, %v", info, err)
			}
		})
	}
}

func errJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCacheFolderMustBeOurs(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // modes say nothing there; the package comment says so
	}
	for mode, mend := range map[fs.FileMode]string{0o755: "chmod 700 ", 0o750: "chmod 700 ", 0o777: "rm -r ", 0o720: "rm -r "} {
		dir := filepath.Join(t.TempDir(), "cache")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		c, err := OpenCache(dir)
		if err == nil {
			t.Errorf("mode %v: opened: %v", mode, c.Close(context.Background()))
		} else if !strings.Contains(err.Error(), mend+dir) {
			t.Errorf("mode %v: %v, lacks %q", mode, err, mend+dir)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(file); err == nil || !strings.Contains(err.Error(), "open cache of compiled code") {
		t.Errorf("a file: %v", err)
	}
	err := ownFolder(fakeInfo{}, "/somewhere")
	if err != nil {
		t.Errorf("a folder without an owner: %v", err)
	}
}

// fakeInfo is of a system that tells no owner.
type fakeInfo struct{ fs.FileInfo }

func (fakeInfo) Mode() fs.FileMode { return fs.ModeDir | 0o777 }
func (fakeInfo) Sys() any          { return nil }

// A folder that can't be written costs the next start its time, and no more.
func TestCacheThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var lines countingHandler
	c, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Log = lines.logger()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	load(t, c)
	if !lines.has("WARN", "could not be kept") {
		t.Errorf("log %q", lines.lines)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
}

func TestCachePrunes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	newCache(t, dir, nil)
	put := func(name string, size int64, age time.Duration) {
		t.Helper()
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = f.Truncate(size) // sparse
		}
		if err == nil {
			err = f.Close()
		}
		if err == nil {
			err = os.Chtimes(f.Name(), time.Now().Add(-age), time.Now().Add(-age))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("old"+entrySuffix, cacheBytes/2, 3*time.Hour)
	put("middle"+entrySuffix, cacheBytes/2, 2*time.Hour)
	put("new"+entrySuffix, 1, time.Hour/2)
	put("dead"+tempSuffix, 5, 2*time.Hour)
	put("alive"+tempSuffix, 5, time.Minute)
	put("of somebody", 5, 99*time.Hour)
	newCache(t, dir, nil)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if want := []string{"alive" + tempSuffix, cacheKeyFile, "middle" + entrySuffix, "new" + entrySuffix, "of somebody"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// The place in wazero that the store is put into must be there: without it
// nothing is kept.
func TestCacheIsAttached(t *testing.T) {
	c := newCache(t, filepath.Join(t.TempDir(), "cache"), nil)
	if c.unkept != nil {
		t.Fatal(c.unkept)
	}
	own, err := c.store.attach()
	if err != nil {
		t.Fatal(err)
	}
	for _, cache := range []wazero.CompilationCache{c.cache, own} {
		f := reflect.ValueOf(cache).Elem().FieldByName("fileCache")
		if f.IsNil() || f.Elem().Type() != reflect.TypeOf(c.store) {
			t.Errorf("the cache reads from a %v", f)
		}
	}
	// A test binary has no list of modules: it stands for its version itself.
	if !strings.Contains(engineID, "in a binary of ") || !strings.Contains(engineID, runtime.Version()) {
		t.Errorf("engine %q names no version", engineID)
	}
}

// One cache serves many sinks of the same plugin, with limits of their own,
// and outlives each of them.
func TestCacheIsShared(t *testing.T) {
	c := newCache(t, filepath.Join(t.TempDir(), "cache"), nil)
	grows := guestModule{deliver: cat(i32c(100), op(0x40, 0), i32c(-1), op(0x46, 0x04, 0x40), says(2, 0), op(0x0b))}.bytes()
	small := openGuest(t, grows, Options{Cache: c, Memory: 64 * wasmPage})
	large, err := Open(context.Background(), grows, Options{Cache: c, Memory: 128 * wasmPage})
	if err != nil {
		t.Fatal(err)
	}
	if r := large.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
		t.Errorf("128 pages: %v %q", r.Outcome, r.Detail)
	}
	if err := large.Close(context.Background()); err != nil {
		t.Error(err)
	}
	runtime.GC()
	for range 3 {
		if r := small.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Retry {
			t.Errorf("64 pages: %v %q", r.Outcome, r.Detail)
		}
	}
}

// A closed sink gives up its code, which the shared engine would keep.
func TestClosedSinksGiveUpTheirCode(t *testing.T) {
	c := newCache(t, filepath.Join(t.TempDir(), "cache"), nil)
	code := func() int {
		engine := reflect.ValueOf(c.cache).Elem().FieldByName("engs").Index(0).Elem().Elem()
		return engine.FieldByName("compiledModules").Len()
	}
	s, err := Open(context.Background(), guestModule{}.bytes(), Options{Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	if n := code(); n != 3 { // the plugin's and two modules of host functions
		t.Errorf("%d modules while open", n)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := Open(context.Background(), guestModule{open: says(5, 0)}.bytes(), Options{Cache: c}); err == nil {
		t.Error("opened")
	}
	if _, err := Inspect(context.Background(), guestModule{}.bytes(), InspectOptions{Cache: c}); err != nil {
		t.Error(err)
	}
	if n := code(); n != 0 {
		t.Errorf("%d modules left", n)
	}
}

func TestInterpreterIsTold(t *testing.T) {
	for _, c := range []struct {
		cfg  wazero.RuntimeConfig
		want string
	}{{wazero.NewRuntimeConfigInterpreter(), "*interpreter.engine"}, {wazero.NewRuntimeConfigCompiler(), "*wazevo.engine"}} {
		r := wazero.NewRuntimeWithConfig(context.Background(), c.cfg)
		if got := engineOf(r); got != c.want {
			t.Errorf("engine %q, want %q", got, c.want)
		}
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	var lines countingHandler
	warnInterpreter(slog.New(&lines), "ledger")
	if !lines.has("WARN", "interpreter", "MemoryDenyWriteExecute", "ledger") {
		t.Errorf("log %q", lines.lines)
	}
}
