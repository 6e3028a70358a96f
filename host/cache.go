package host

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/tetratelabs/wazero"
)

// Cache keeps the machine code of plugins and of SQLite in a folder, so that
// the next start costs milliseconds and not seconds. It may be shared by any
// number of sinks and by processes of the same user.
//
// What is read from it is executed, and wazero guards it by a CRC only. So the
// folder must be ours alone (0700) or it is refused, and an entry is handed to
// wazero only when its HMAC-SHA256 is right, under a key that lies in the
// folder: the very bytes that were checked, in memory, not a file that could
// be another one a moment later. A damaged entry, one of another version of
// wazero or Go, or one without the right key is deleted with a warning and
// compiled again. Nothing that is wrong with an entry is an error.
//
// Not guarded against: somebody who can read the key, that is this user and
// root. They need no cache to run code here.
type Cache struct {
	// Log gets the warnings; nil is slog.Default. Set it before the first use.
	Log *slog.Logger

	cache wazero.CompilationCache
	store *codeStore
	// unkept is why nothing is written to the folder.
	unkept error
}

// OpenCache opens the folder, which is made if it is missing. It fails when
// the folder belongs to another user or others can enter it; the text says
// what to do.
func OpenCache(dir string) (*Cache, error) {
	c := &Cache{}
	store, err := openStore(dir, c.logger)
	if err != nil {
		return nil, fmt.Errorf("open cache of compiled code %s: %w", dir, err)
	}
	c.store = store
	c.cache, c.unkept = store.attach()
	return c, nil
}

func (c *Cache) logger() *slog.Logger {
	if c.Log != nil {
		return c.Log
	}
	return slog.Default()
}

// Damaged returns how many entries were deleted because they could not be
// trusted.
func (c *Cache) Damaged() uint64 { return c.store.damaged.Load() }

// StartSQLite compiles SQLite, with the machine code kept in cache; nil keeps
// none. It is process-wide, by the binding's design: the first call in a
// process decides and later ones return its result. Whatever opens a database
// starts the engine without a cache if nobody has before, which costs about a
// second, so call this first.
func StartSQLite(cache *Cache) error {
	if cache == nil {
		return sqlite.Start(nil)
	}
	// The engine lives as long as the process and the cache does not: it shares the
	// cache's files, not what happens when it is closed.
	return sqlite.Start(func() wazero.CompilationCache {
		own, _ := cache.store.attach() // without the folder it still compiles
		return own
	})
}

// Close frees the compiled code. Close the sinks first.
func (c *Cache) Close(ctx context.Context) error {
	return errors.Join(c.cache.Close(ctx), c.store.root.Close())
}

// Limits of the folder. When it grows beyond, what was not used for longest
// goes at the next start.
const (
	cacheBytes = 512 << 20
	entryBytes = 256 << 20
)

const (
	cacheKeyFile = "key"
	entrySuffix  = ".code"
	tempSuffix   = ".tmp"
	// entryMagic and a MAC stand before the code.
	entryMagic = "AHCODE1\n"
	entryHead  = len(entryMagic) + sha256.Size
)

// codeStore is what wazero's cache reads and writes instead of bare files. It
// has the methods of its internal interface filecache.Cache, and its errors
// are always nil: an error from a cache would fail the compilation.
type codeStore struct {
	root    *os.Root
	key     []byte
	log     func() *slog.Logger
	damaged atomic.Uint64
}

func openStore(dir string, log func() *slog.Logger) (*codeStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &codeStore{root: root, log: log}
	// The opened folder is looked at, not its name.
	info, err := root.Stat(".")
	if err == nil {
		err = ownFolder(info, dir)
	}
	if err == nil {
		err = s.loadKey()
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s.prune()
	return s, nil
}

// ownFolder refuses a folder that others can enter. One that others could
// write to may hold a key of theirs, so it has to go as a whole.
func ownFolder(info fs.FileInfo, dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	uid, me, known := ownerOf(info)
	mode := info.Mode().Perm()
	switch {
	case known && uid != me:
		return fmt.Errorf("it belongs to user %d and this process is user %d, and what lies in it is executed; delete it (rm -r %s) or choose another state_dir", uid, me, abs)
	case known && mode&0o022 != 0:
		return fmt.Errorf("its mode is %#o, so others could write what is executed; delete it (rm -r %s), it is made again", mode, abs)
	case known && mode&0o077 != 0:
		return fmt.Errorf("its mode is %#o, wanted 0700; run: chmod 700 %s", mode, abs)
	}
	return nil
}

// loadKey reads the key, or makes one if there is none that only we have.
// Entries under an older key fail their check and are compiled again.
func (s *codeStore) loadKey() error {
	info, err := s.root.Lstat(cacheKeyFile)
	if err == nil {
		uid, me, known := ownerOf(info)
		if info.Mode().IsRegular() && info.Size() == sha256.Size && (!known || uid == me && info.Mode().Perm()&0o077 == 0) {
			if s.key, err = s.root.ReadFile(cacheKeyFile); err != nil {
				return fmt.Errorf("read key: %w", err)
			}
			if len(s.key) == sha256.Size {
				return nil
			}
		}
		s.log().Warn("key of the compilation cache replaced, plugins are compiled again", "folder", s.root.Name(), "size", info.Size(), "mode", info.Mode().String())
		if err := s.root.RemoveAll(cacheKeyFile); err != nil {
			return fmt.Errorf("remove key: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read key: %w", err)
	}
	s.key = make([]byte, sha256.Size)
	_, _ = rand.Read(s.key) // never fails
	// Two processes that do this at once have two keys for a while: the one
	// whose file is overwritten compiles again at its next start.
	if err := s.write(cacheKeyFile, s.key); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// attach makes a wazero cache that reads and writes through s. wazero has no
// way to pass a store, only a folder of bare files, so it is put where that
// folder's would be. Should a version of wazero have no such place, its cache
// works in memory alone and the error says so: code is never executed that
// was not checked here.
func (s *codeStore) attach() (wazero.CompilationCache, error) {
	c := wazero.NewCompilationCache()
	v := reflect.ValueOf(c)
	if v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		f := v.Elem().FieldByName("fileCache")
		if f.IsValid() && f.Kind() == reflect.Interface && reflect.TypeOf(s).Implements(f.Type()) {
			reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().Set(reflect.ValueOf(s))
			return c, nil
		}
	}
	return c, fmt.Errorf("this build's wazero (%s) has no place for an authenticated cache", wazeroVersion())
}

// engineID is what makes compiled code unusable when it changes. wazero's own
// key holds the module and the processor's features.
var engineID = strings.Join([]string{wazeroVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}, " ")

// wazeroVersion names the version of wazero in this binary. A test binary does
// not know it, and then is itself the version.
func wazeroVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/tetratelabs/wazero" {
				for d.Replace != nil {
					d = d.Replace
				}
				return d.Version + " " + d.Sum
			}
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return "unknown"
	}
	info, err := os.Stat(exe)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("in a binary of %d bytes, %s", info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano))
}

// name is the file of an entry: those of other engines are simply not found,
// and go when the folder is full.
func (s *codeStore) name(key [sha256.Size]byte) string {
	h := sha256.Sum256(append([]byte(engineID+"\x00"), key[:]...))
	return hex.EncodeToString(h[:]) + entrySuffix
}

// mac binds the code to its key and engine: an entry renamed to another's
// name fails.
func (s *codeStore) mac(key [sha256.Size]byte, code []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte("audit-host compiled code\x00" + engineID + "\x00"))
	h.Write(key[:])
	h.Write(code)
	return h.Sum(nil)
}

// Get returns the code under a key if it is there and is what we wrote.
func (s *codeStore) Get(key [sha256.Size]byte) (io.ReadCloser, bool, error) {
	name := s.name(key)
	entry, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		switch {
		case len(entry) < entryHead || string(entry[:len(entryMagic)]) != entryMagic:
			err = errors.New("it is not an entry")
		case !hmac.Equal(entry[len(entryMagic):entryHead], s.mac(key, entry[entryHead:])):
			err = errors.New("its MAC is wrong: it was changed, or written under another key")
		default:
			now := time.Now()
			_ = s.root.Chtimes(name, now, now) // only prune looks at it
			return io.NopCloser(bytes.NewReader(entry[entryHead:])), true, nil
		}
	}
	s.damaged.Add(1)
	s.log().Warn("entry of the compilation cache deleted, its plugin is compiled again", "folder", s.root.Name(), "entry", name, "error", err)
	if err := s.root.RemoveAll(name); err != nil {
		s.log().Warn("entry of the compilation cache could not be deleted", "folder", s.root.Name(), "entry", name, "error", err)
	}
	return nil, false, nil
}

func (s *codeStore) read(name string) ([]byte, error) {
	info, err := s.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > entryBytes {
		return nil, fmt.Errorf("it is a %s of %d bytes", info.Mode().Type(), info.Size())
	}
	return s.root.ReadFile(name)
}

// Add keeps code under a key. No fsync: a torn entry fails its check.
func (s *codeStore) Add(key [sha256.Size]byte, content io.Reader) error {
	code, err := io.ReadAll(content)
	if err == nil && len(code) > entryBytes-entryHead {
		err = fmt.Errorf("%d bytes of code, at most %d are kept", len(code), entryBytes-entryHead)
	}
	if err == nil {
		err = s.write(s.name(key), slices.Concat([]byte(entryMagic), s.mac(key, code), code))
	}
	if err != nil {
		s.log().Warn("compiled code could not be kept, the next start compiles it again", "folder", s.root.Name(), "error", err)
	}
	return nil
}

// Delete removes an entry that wazero finds to be of another version.
func (s *codeStore) Delete(key [sha256.Size]byte) error {
	if err := s.root.Remove(s.name(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log().Warn("entry of the compilation cache could not be deleted", "folder", s.root.Name(), "error", err)
	}
	return nil
}

// write puts a file in place as a whole, so that a reader in another process
// sees the old one or the new one.
func (s *codeStore) write(name string, b []byte) error {
	var suffix [8]byte
	_, _ = rand.Read(suffix[:]) // never fails
	tmp := name + "." + hex.EncodeToString(suffix[:]) + tempSuffix
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return nil
}

// prune deletes what a crash left half written and, beyond the folder's
// limit, the entries that were not used for longest.
func (s *codeStore) prune() {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		s.log().Warn("folder of the compilation cache could not be read", "folder", s.root.Name(), "error", err)
		return
	}
	var files []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil: // gone by now
		case strings.HasSuffix(e.Name(), tempSuffix) && time.Since(info.ModTime()) > time.Hour:
			_ = s.root.Remove(e.Name()) // tried again at the next start
		case strings.HasSuffix(e.Name(), entrySuffix):
			files, total = append(files, info), total+info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if total <= cacheBytes {
			return
		}
		if s.root.Remove(f.Name()) == nil {
			total -= f.Size()
		}
	}
}
