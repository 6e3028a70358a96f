package appendfile

import (
	"errors"
	"fmt"
	"io/fs"
)

// ready makes sure that the file is open and the one that its name stands for.
func (f *File) ready() error {
	switch {
	case f.closed:
		return fs.ErrClosed
	case f.h == nil:
		return f.connect()
	}
	return f.check()
}

// check notices a file or a folder that was taken away from under the process:
// what is written to it nobody would find. It costs two lookups of a name.
func (f *File) check() error {
	moved, err := f.v.Moved()
	if err != nil {
		return fmt.Errorf("look up the folder: %w", err)
	}
	if moved {
		// The lock lies in the folder and goes with it.
		return errors.Join(f.replaced("its folder was moved or removed"), f.release())
	}
	info, err := f.v.Lstat(f.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.replaced("the file was moved or removed")
	case err != nil:
		return fmt.Errorf("look up the file: %w", err)
	case !f.v.Same(info, f.info):
		return f.replaced("another file has its name now")
	case info.Size() != f.size:
		return f.replaced(fmt.Sprintf("it holds %d bytes and should hold %d", info.Size(), f.size))
	}
	return nil
}

// replaced forgets the open file; the next call takes what is there then.
func (f *File) replaced(how string) error {
	err := fmt.Errorf("%w: %s; the next call opens what is there then", ErrReplaced, how)
	f.doubt(err)
	f.giveUp()
	f.again = false
	return err
}

// giveUp closes the open file after a fault.
func (f *File) giveUp() {
	if f.h != nil {
		// The caller has the error that matters.
		_ = f.h.Close()
		f.h = nil
	}
	f.again = true
}

// connect opens the folder, takes the lock, and opens or creates the file. It
// is the way back from every fault and from a crash alike.
func (f *File) connect() error {
	if f.v == nil {
		v, err := f.mount(f.dir)
		if err != nil {
			return fmt.Errorf("open the folder: %w", err)
		}
		if err := v.Lock(f.name + lockSuffix); err != nil {
			return errors.Join(err, v.Close())
		}
		f.v = v
	}
	h, info, err := f.find()
	if err != nil {
		return err
	}
	if err := f.adopt(h, info); err != nil {
		return errors.Join(err, h.Close())
	}
	f.h = h
	f.prune()
	return nil
}

// find opens the file by its name, and creates it if there is none.
func (f *File) find() (handle, fs.FileInfo, error) {
	info, err := f.v.Lstat(f.name)
	var h handle
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.again:
		return nil, nil, f.replaced("the file was moved or removed")
	case errors.Is(err, fs.ErrNotExist):
		// Whatever took the name away, a rotation that did not come to its end
		// say, is on disk before a new file takes the name: there is no moment
		// at which a power cut leaves the old file without any name.
		if err := f.v.Sync(); err != nil {
			return nil, nil, fmt.Errorf("sync the folder: %w", err)
		}
		h, err = f.v.Create(f.name)
	case err != nil:
		return nil, nil, fmt.Errorf("look up the file: %w", err)
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("it is not a regular file (%s): %w", info.Mode().Type(), fs.ErrInvalid)
	default:
		h, err = f.v.Open(f.name)
	}
	if err != nil {
		return nil, nil, err
	}
	// The name is looked up once more, without following a link: what was
	// opened is what lies in the folder under this name.
	opened, err := h.Stat()
	if err == nil {
		info, err = f.v.Lstat(f.name)
	}
	if err == nil && (!info.Mode().IsRegular() || !f.v.Same(opened, info)) {
		err = fmt.Errorf("%w: its name was given away while it was opened", ErrReplaced)
	}
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, info, nil
}

// adopt brings the opened file to a known length that ends a line and is on
// disk, its name as well.
func (f *File) adopt(h handle, info fs.FileInfo) error {
	size := info.Size()
	if f.again {
		switch {
		case !f.v.Same(info, f.info):
			return f.replaced("another file has its name now")
		case size < f.size || size > f.most:
			return f.replaced(fmt.Sprintf("it holds %d bytes and should hold %d", size, f.size))
		case size > f.size:
			if err := f.v.Cut(f.name, f.info, f.size); err != nil {
				return fmt.Errorf("cut what was not appended for good (from byte %d): %w", f.size, err)
			}
			size = f.size
		}
	} else {
		torn, err := f.endLine(h, size)
		if err != nil {
			return err
		}
		if torn {
			size++
		}
	}
	if err := h.Sync(); err != nil {
		if f.again {
			f.doubt(err)
			f.size = f.synced
		}
		return fmt.Errorf("sync: %w", err)
	}
	if err := f.v.Sync(); err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	if !f.again {
		f.info, f.size, f.synced = info, size, size
	}
	f.most, f.again = f.size, false
	return nil
}

// endLine gives a record that a crash has torn a line of its own. Nothing is
// removed: the record was never acknowledged, and still somebody may want to
// know that it was on its way.
func (f *File) endLine(h handle, size int64) (bool, error) {
	if size == 0 {
		return false, nil
	}
	var last [1]byte
	if _, err := h.ReadAt(last[:], size-1); err != nil {
		return false, fmt.Errorf("read the last byte: %w", err)
	}
	if last[0] == '\n' {
		return false, nil
	}
	if _, err := h.Write([]byte{'\n'}); err != nil {
		return false, fmt.Errorf("end the torn last line: %w", err)
	}
	f.o.Log.Warn("torn last line ended", "file", f.o.Path, "size", size)
	return true, nil
}
