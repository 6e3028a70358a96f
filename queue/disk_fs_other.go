//go:build !linux

package queue

import "os"

// allocate: files grow as they are written.
func allocate(*os.File, int64) error { return nil }

// syncFile is F_FULLFSYNC on macOS, FlushFileBuffers on Windows.
func syncFile(f *os.File) error { return f.Sync() }
