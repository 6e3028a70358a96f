package queue

// What the tests outside of the package need of its inside.
type (
	DiskFS   = diskFS
	DiskFile = diskFile
)

// WithFS gives a queue another disk.
func WithFS(o DiskOptions, d DiskFS) DiskOptions {
	o.fs = d
	return o
}

// NewOSFS is the disk a queue has without WithFS.
func NewOSFS(dir string) (DiskFS, error) { return newOSFS(dir) }
