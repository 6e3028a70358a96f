package appendfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/audit-host/audit-host/internal/durable"
)

// volume is the folder of the file: all that this package asks of a disk. Of
// the disk is assumed that a file's Sync makes its bytes and its length
// durable, that a folder's Sync makes durable which names it holds, and that
// Rename is atomic.
type volume interface {
	// Lstat does not follow a link.
	Lstat(name string) (fs.FileInfo, error)
	Same(a, b fs.FileInfo) bool
	// Create fails if there is anything of that name.
	Create(name string) (handle, error)
	Open(name string) (handle, error)
	// Cut shortens the file to size bytes if it still is the one of info.
	Cut(name string, info fs.FileInfo, size int64) error
	Rename(from, to string) error
	Remove(name string) error
	Names() ([]string, error)
	Sync() error
	// Moved tells whether the folder's path leads elsewhere by now.
	Moved() (bool, error)
	// Lock takes a lock that ends with Close or with the process.
	Lock(name string) error
	Close() error
}

// handle is an open file that writes at its end.
type handle interface {
	io.Writer
	io.ReaderAt
	Sync() error
	Stat() (fs.FileInfo, error)
	Close() error
}

// disk is a volume on the file system. os.Root holds the folder open, so that
// neither a link nor a folder put in its place leads out of it.
type disk struct {
	path string
	root *os.Root
	info fs.FileInfo
	lock *os.File
}

func mountDisk(dir string) (volume, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &disk{path: dir, root: root, info: info}, nil
}

func (d *disk) Lstat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }
func (d *disk) Same(a, b fs.FileInfo) bool             { return os.SameFile(a, b) }
func (d *disk) Rename(from, to string) error           { return d.root.Rename(from, to) }
func (d *disk) Remove(name string) error               { return d.root.Remove(name) }

// The flag keeps the open of a FIFO from waiting for its reader.
func (d *disk) Create(name string) (handle, error) {
	return d.open(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL|openNoWait)
}

func (d *disk) Open(name string) (handle, error) {
	return d.open(name, os.O_RDWR|os.O_APPEND|openNoWait)
}

func (d *disk) open(name string, flag int) (handle, error) {
	f, err := d.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err // a nil *os.File must not become a handle
	}
	return f, nil
}

func (d *disk) Cut(name string, info fs.FileInfo, size int64) error {
	// Windows shortens no file that is open for appending only, so this takes
	// a second look at it everywhere.
	f, err := d.root.OpenFile(name, os.O_WRONLY|openNoWait, 0)
	if err != nil {
		return err
	}
	is, err := f.Stat()
	switch {
	case err != nil:
	case !os.SameFile(is, info):
		err = fmt.Errorf("%w: another file has its name now", ErrReplaced)
	default:
		err = f.Truncate(size)
	}
	return errors.Join(err, f.Close())
}

func (d *disk) Names() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func (d *disk) Moved() (bool, error) {
	info, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return !os.SameFile(info, d.info), nil
}

func (d *disk) Lock(name string) error {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|openNoWait, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock: %w", err)
	}
	free, err := durable.TryLock(f)
	switch {
	case err != nil:
		return errors.Join(fmt.Errorf("lock: %w", err), f.Close())
	case !free:
		return errors.Join(ErrLocked, f.Close())
	}
	// A lock on a file that has lost its name keeps nobody out.
	opened, err := f.Stat()
	var named fs.FileInfo
	if err == nil {
		named, err = d.root.Lstat(name)
	}
	if err == nil && (!named.Mode().IsRegular() || !os.SameFile(opened, named)) {
		err = fmt.Errorf("the lock %s is a link or was replaced; remove it", name)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	d.lock = f
	return nil
}

func (d *disk) Close() error {
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, d.root.Close())
}
