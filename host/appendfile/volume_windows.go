package appendfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

const openNoWait = 0

// Sync does nothing: Windows has no such call, and NTFS journals names.
func (d *disk) Sync() error { return nil }

func noSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// lockFile locks the open file; the lock ends when it is closed.
func lockFile(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, new(windows.Overlapped))
	switch {
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION):
		return ErrLocked
	case err != nil:
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}
