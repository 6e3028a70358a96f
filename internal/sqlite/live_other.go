//go:build !unix

package sqlite

import (
	"errors"
	"io/fs"
	"os"
)

// hasWriter tells whether a process may have the database open in WAL mode:
// its shared index is there, which the last connection removes.
func hasWriter(path string) (bool, error) {
	_, err := os.Stat(path + "-shm")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
