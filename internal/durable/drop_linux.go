package durable

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func drop(fd uintptr, off, n int64) error {
	for {
		err := unix.Fadvise(int(fd), off, n, unix.FADV_DONTNEED)
		switch err {
		case unix.EINTR:
			continue
		case nil, unix.EINVAL, unix.ENOSYS, unix.ESPIPE: // a file system without a cache
			return nil
		}
		return fmt.Errorf("drop cached pages: %w", err)
	}
}
