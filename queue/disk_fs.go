package queue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/audit-host/audit-host/internal/durable"
)

// diskFS is all that a disk queue wants of the world: one directory. Names are
// those of files in it. Errors of a missing file wrap fs.ErrNotExist.
type diskFS interface {
	// Path is the name as messages show it.
	Path(name string) string
	// Lock takes the directory until the result is closed; ErrBusy if another
	// has it.
	Lock() (io.Closer, error)
	List() ([]string, error)
	// Create makes an empty file, or empties the one there is.
	Create(name string) (diskFile, error)
	// Open opens an existing file, for reading alone or for both.
	Open(name string, write bool) (diskFile, error)
	// Rename replaces what has the new name.
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes names durable: created, renamed, removed.
	SyncDir() error
	// Same returns nil if the name still leads to the open file.
	Same(name string, f diskFile) error
}

// diskFile is an open file.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	// Allocate lets the file have size bytes, zeros where it had none, with
	// their space reserved, if the system can do that cheaply. Else it does
	// nothing.
	Allocate(size int64) error
	Truncate(size int64) error
	// Sync makes the file's bytes and size durable.
	Sync() error
}

// osFS is a directory of the operating system.
type osFS struct{ dir string }

// newOSFS makes the directory, durably, if it does not exist.
func newOSFS(dir string) (osFS, error) {
	if dir == "" {
		return osFS{}, errors.New("no directory is given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return osFS{}, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return osFS{}, err
		}
		if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
			return osFS{}, err
		}
	} else if err != nil {
		return osFS{}, err
	}
	return osFS{dir}, nil
}

func (d osFS) Path(name string) string { return filepath.Join(d.dir, name) }

func (d osFS) Lock() (io.Closer, error) {
	f, err := os.OpenFile(d.Path("LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	free, err := durable.TryLock(f)
	if err == nil && !free {
		err = fmt.Errorf("%w: another process has the directory %s", ErrBusy, d.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d osFS) List() ([]string, error) {
	f, err := os.Open(d.dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func (d osFS) Create(name string) (diskFile, error) {
	return openOSFile(d.Path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (d osFS) Open(name string, write bool) (diskFile, error) {
	if write {
		return openOSFile(d.Path(name), os.O_RDWR)
	}
	return openOSFile(d.Path(name), os.O_RDONLY)
}

func (d osFS) Rename(from, to string) error { return os.Rename(d.Path(from), d.Path(to)) }
func (d osFS) Remove(name string) error     { return os.Remove(d.Path(name)) }
func (d osFS) SyncDir() error               { return durable.SyncDir(d.dir) }

func (d osFS) Same(name string, f diskFile) error {
	now, err := os.Stat(d.Path(name))
	if err != nil {
		return err
	}
	opened, err := f.(osFile).Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(now, opened) {
		return fmt.Errorf("%s was replaced while it was in use", d.Path(name))
	}
	return nil
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

func openOSFile(path string, flags int) (diskFile, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Allocate(size int64) error { return allocate(f.File, size) }
func (f osFile) Sync() error               { return syncFile(f.File) }
