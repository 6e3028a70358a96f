package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// SyncDir makes the names in a folder durable. On Windows it does nothing: NTFS
// journals names, and has nothing to call.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// WriteFile replaces a file, or makes it, with that mode. When it returns nil the new
// content is on disk; whoever reads the file, also after a power cut, finds the old
// content or the new, whole. One at a time may do it: what is not whole yet has the
// name path.tmp.
func WriteFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask is, and if it was there
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	return SyncDir(filepath.Dir(path))
}

// Remove removes a file durably, if it is there.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// TryLock locks an open file for this process until it is closed. It returns false
// if another one, or another opening of the file, has it. What the file holds stays
// readable. On a network file system without locks it may be an error.
func TryLock(f *os.File) (bool, error) { return tryLock(f) }
