package sqlitetest

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// faultPage is what the kernel writes, keeps and drops as a whole, in bytes.
const faultPage = 4096

// FaultFS is SQLite's usual file system layer with faults, and with a memory of
// what is on disk: what a power cut would leave.
//
// The files that SQLite works on are the page cache. A sync that succeeds brings
// the dirty pages of its file to disk. One that fails does what Linux does: they
// are clean from then on, and not on disk; who reads them finds what was written,
// until the kernel drops them (evict, Drop), and then what the disk has. Until then
// no later write of theirs comes to disk either: see durable.Drop.
type FaultFS struct {
	vfs.VFSFilename
	Mu    sync.Mutex
	Syncs map[string]int       // that succeeded, by the end of the file's name: .db or -wal
	Files map[string]*diskFile // by path
	// Write and sync are called before the operation, with the end of the
	// file's name; an error is its result.
	Write, Sync func(kind string) error
}

// diskFile is what the disk has of a file.
type diskFile struct {
	content []byte
	dirty   map[int64]bool // pages, by number, that a sync would bring there
	stuck   map[int64]bool // pages that no sync brings there, since one failed
	failed  int            // how many syncs failed; whoever has it open is told once
	// Removed tells that its name is gone, though perhaps not on disk.
	Removed bool
}

// NewFaultFS registers a layer and returns it with its name.
func NewFaultFS(t testing.TB) (*FaultFS, string) {
	fs := &FaultFS{VFSFilename: vfs.Find("").(vfs.VFSFilename), Syncs: map[string]int{}, Files: map[string]*diskFile{}}
	name := "fault-" + strings.ReplaceAll(t.Name(), "/", "-")
	vfs.Register(name, fs)
	t.Cleanup(func() { vfs.Unregister(name) })
	return fs, name
}

func (fs *FaultFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := fs.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	path := name.String()
	fs.Mu.Lock()
	defer fs.Mu.Unlock()
	if d := fs.Files[path]; d == nil || d.Removed {
		// What was there before is on disk.
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, flags, err
		}
		fs.Files[path] = &diskFile{content: content, dirty: map[int64]bool{}, stuck: map[int64]bool{}}
	}
	return &faultFile{File: f, fs: fs, path: path, told: fs.Files[path].failed}, flags, nil
}

func (fs *FaultFS) Delete(name string, sync bool) error {
	err := fs.VFSFilename.Delete(name, sync)
	if err == nil {
		fs.Mu.Lock()
		defer fs.Mu.Unlock()
		if d := fs.Files[name]; d != nil {
			d.Removed = true
		}
	}
	return err
}

// SyncDir makes it durable which files there are; that there is a new one is so
// from the beginning.
func (fs *FaultFS) SyncDir(string) error {
	fs.Mu.Lock()
	defer fs.Mu.Unlock()
	maps.DeleteFunc(fs.Files, func(_ string, d *diskFile) bool { return d.Removed })
	return nil
}

// AfterPowerCut writes what is on disk into a new folder and returns the database
// there. chance tells of a page that is dirty, and of a change of a file's name or
// length, whether it came to disk though nobody synced it; nil is never.
func (fs *FaultFS) AfterPowerCut(t testing.TB, path string, chance func() bool) string {
	t.Helper()
	if chance == nil {
		chance = func() bool { return false }
	}
	dir := t.TempDir()
	fs.Mu.Lock()
	defer fs.Mu.Unlock()
	for name, d := range fs.Files {
		if d.Removed && chance() {
			continue
		}
		content := d.content
		if cached, err := os.ReadFile(name); err == nil {
			content = bytes.Clone(content)
			if len(cached) < len(content) && chance() {
				content = content[:len(cached)]
			}
			for n := range d.dirty {
				if chance() {
					content = d.bring(content, cached, n)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, filepath.Base(path))
}

// bring copies a page of cached into content.
func (*diskFile) bring(content, cached []byte, page int64) []byte {
	from := page * faultPage
	to := min(from+faultPage, int64(len(cached)))
	if from >= to {
		return content
	}
	if grow := to - int64(len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[from:to], cached[from:to])
	return content
}

// Evict drops from the page cache what is clean, so that the files have what the
// disk has. SQLite must not have them open: it would keep pages itself.
func (fs *FaultFS) Evict(t testing.TB) {
	t.Helper()
	for name, d := range fs.Files {
		if err := fs.drop(name, d, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func (fs *FaultFS) drop(name string, d *diskFile, off, n int64) error {
	fs.Mu.Lock()
	defer fs.Mu.Unlock()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil // removed
	}
	info, err := f.Stat()
	if n == 0 && err == nil {
		n = info.Size()
	}
	for page := off / faultPage; err == nil && page*faultPage < min(off+n, info.Size()); page++ {
		from := page * faultPage
		if delete(d.stuck, page); d.dirty[page] {
			continue
		}
		b := make([]byte, min(faultPage, info.Size()-from))
		if from < int64(len(d.content)) {
			copy(b, d.content[from:])
		}
		_, err = f.WriteAt(b, from)
	}
	return errors.Join(err, f.Close())
}

type faultFile struct {
	vfs.File
	fs   *FaultFS
	path string
	told int // see diskFile.failed
}

func (f *faultFile) kind() string {
	if strings.HasSuffix(f.path, "-wal") {
		return "-wal"
	}
	return filepath.Ext(f.path)
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	if f.fs.Write != nil {
		if err := f.fs.Write(f.kind()); err != nil {
			return 0, err
		}
	}
	n, err := f.File.WriteAt(b, off)
	f.fs.Mu.Lock()
	defer f.fs.Mu.Unlock()
	for page := off / faultPage; page*faultPage < off+int64(n); page++ {
		if d := f.fs.Files[f.path]; !d.stuck[page] {
			d.dirty[page] = true
		}
	}
	return n, err
}

// Drop stands for that of the kernel.
func (f *faultFile) Drop(off, n int64) error {
	f.fs.Mu.Lock()
	d := f.fs.Files[f.path]
	f.fs.Mu.Unlock()
	return f.fs.drop(f.path, d, off, n)
}

func (f *faultFile) Sync(flags vfs.SyncFlag) error {
	if f.fs.Sync != nil {
		if err := f.fs.Sync(f.kind()); err != nil {
			f.fs.Mu.Lock()
			defer f.fs.Mu.Unlock()
			d := f.fs.Files[f.path]
			maps.Copy(d.stuck, d.dirty)
			clear(d.dirty)
			d.failed++
			f.told = d.failed
			return err
		}
	}
	if err := f.File.Sync(flags); err != nil {
		return err
	}
	f.fs.Mu.Lock()
	defer f.fs.Mu.Unlock()
	cached, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	f.fs.Syncs[f.kind()]++
	d := f.fs.Files[f.path]
	d.content = d.content[:min(len(d.content), len(cached))]
	for n := range d.dirty {
		d.content = d.bring(d.content, cached, n)
	}
	clear(d.dirty)
	if f.told < d.failed {
		f.told = d.failed
		return vfs.SystemError(syscall.EIO, sqlite3.IOERR_FSYNC)
	}
	return nil
}

func (f *faultFile) SharedMemory() vfs.SharedMemory {
	if s, ok := f.File.(vfs.FileSharedMemory); ok {
		return s.SharedMemory()
	}
	return nil
}

func (f *faultFile) Unwrap() vfs.File { return f.File }
