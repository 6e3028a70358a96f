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

// TailBytes is how much of the end of the log is in memory.
func TailBytes(q *Disk) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tailBytes
}

// NewOSFS is the disk a queue has without WithFS.
func NewOSFS(dir string) (DiskFS, error) { return newOSFS(dir) }
