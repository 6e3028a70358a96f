//go:build !unix

package host

import "io/fs"

// ownerOf knows nothing here: the access lists of the state directory decide.
func ownerOf(fs.FileInfo) (uid, me int, known bool) { return 0, 0, false }
