//go:build unix

package pipeline

import "golang.org/x/sys/unix"

// spaceAt is how many bytes a file system has for us; false if it does not say.
func spaceAt(path string) (free uint64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, false
	}
	return uint64(s.Bavail) * uint64(s.Bsize), true
}
