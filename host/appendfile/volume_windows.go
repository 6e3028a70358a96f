package appendfile

import (
	"errors"

	"golang.org/x/sys/windows"
)

const openNoWait = 0

// Sync does nothing: Windows has no such call, and NTFS journals names.
func (d *disk) Sync() error { return nil }

func noSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
