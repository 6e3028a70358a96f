//go:build unix

package appendfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

const openNoWait = syscall.O_NONBLOCK

// Sync makes durable which names the folder holds.
func (d *disk) Sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// lockFile locks the open file; the lock ends when it is closed.
func lockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrLocked
		case err != nil:
			return fmt.Errorf("lock: %w", err)
		default:
			return nil
		}
	}
}
