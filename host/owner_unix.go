//go:build unix

package host

import (
	"io/fs"
	"os"
	"syscall"
)

// ownerOf returns who owns a file and who this process is.
func ownerOf(info fs.FileInfo) (uid, me int, known bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), os.Geteuid(), true
}
