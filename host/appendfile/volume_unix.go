//go:build unix

package appendfile

import (
	"errors"
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
