package host

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3/vfs"
)

// faultFS is SQLite's usual file system layer with faults, and with a memory
// of what was synced: what a power cut would leave.
type faultFS struct {
	vfs.VFSFilename
	mu     sync.Mutex
	syncs  map[string]int    // by the end of the file's name: .db or -wal
	synced map[string][]byte // content of each file when it was last synced
	// write and sync are called before the operation, with the end of the
	// file's name; an error is its result.
	write, sync func(kind string) error
}

// newFaultFS registers a layer and returns it with its name.
func newFaultFS(t testing.TB) (*faultFS, string) {
	fs := &faultFS{VFSFilename: vfs.Find("").(vfs.VFSFilename), syncs: map[string]int{}, synced: map[string][]byte{}}
	name := "fault-" + strings.ReplaceAll(t.Name(), "/", "-")
	vfs.Register(name, fs)
	t.Cleanup(func() { vfs.Unregister(name) })
	return fs, name
}

func (fs *faultFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := fs.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	path := name.String()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if _, seen := fs.synced[path]; !seen {
		// What was there before is on disk.
		if fs.synced[path], err = os.ReadFile(path); err != nil {
			return nil, flags, err
		}
	}
	return &faultFile{File: f, fs: fs, path: path}, flags, nil
}

// Delete forgets the file: the layer below syncs the folder.
func (fs *faultFS) Delete(name string, sync bool) error {
	err := fs.VFSFilename.Delete(name, sync)
	if err == nil {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		delete(fs.synced, name)
	}
	return err
}

// afterPowerCut writes what was synced into a new folder and returns the
// database there.
func (fs *faultFS) afterPowerCut(t testing.TB, path string) string {
	t.Helper()
	fs.mu.Lock()
	synced := maps.Clone(fs.synced)
	fs.mu.Unlock()
	dir := t.TempDir()
	for name, b := range synced {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, filepath.Base(path))
}

type faultFile struct {
	vfs.File
	fs   *faultFS
	path string
}

func (f *faultFile) kind() string {
	if strings.HasSuffix(f.path, "-wal") {
		return "-wal"
	}
	return filepath.Ext(f.path)
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	if f.fs.write != nil {
		if err := f.fs.write(f.kind()); err != nil {
			return 0, err
		}
	}
	return f.File.WriteAt(b, off)
}

func (f *faultFile) Sync(flags vfs.SyncFlag) error {
	if f.fs.sync != nil {
		if err := f.fs.sync(f.kind()); err != nil {
			return err
		}
	}
	if err := f.File.Sync(flags); err != nil {
		return err
	}
	b, err := os.ReadFile(f.path)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.syncs[f.kind()]++
	f.fs.synced[f.path] = b
	return err
}

func (f *faultFile) SharedMemory() vfs.SharedMemory {
	if s, ok := f.File.(vfs.FileSharedMemory); ok {
		return s.SharedMemory()
	}
	return nil
}

func (f *faultFile) Unwrap() vfs.File { return f.File }
