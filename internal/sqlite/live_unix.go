//go:build unix

package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// deadMansSwitch is the byte of the -shm file that every connection in WAL
// mode holds a shared lock on (UNIX_SHM_DMS in SQLite's os_unix.c).
const deadMansSwitch = 128

// hasWriter tells whether a process has the database open in WAL mode. It
// reads the lock of the shared index and changes nothing.
func hasWriter(path string) (bool, error) {
	f, err := os.Open(path + "-shm")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: deadMansSwitch, Len: 1}
	err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("look for a writer of %s: %w", path, err)
	}
	return lock.Type != unix.F_UNLCK, nil
}
