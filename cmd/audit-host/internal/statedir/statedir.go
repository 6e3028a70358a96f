// Package statedir keeps the state directory to one process: compiled plugins,
// the queue and the dead letters have one owner at a time.
//
// Guarantee: while a [Dir] is open no other process can open the same
// directory, and when its process ends, however it ends, the directory is free
// again. Nobody but the owner of the files can read them. Not guaranteed: a
// lock on a network file system that does not implement flock.
package statedir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/internal/durable"
)

// ErrInUse is wrapped by the error of [Open] when another process has the
// directory.
var ErrInUse = errors.New("in use")

// Dir is a state directory that this process owns.
type Dir struct {
	path string
	lock *os.File
}

// Open makes the directory if there is none, mode 0700, and locks it. It
// refuses one that others may enter, because plugins are run from code that is
// kept there.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	// Windows has no such modes: Go reports 0777 for every folder.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("state directory %s has mode %04o: others could change what is run from it; chmod 700 %s", path, mode, path)
	}
	name := filepath.Join(path, "lock")
	// The file stays when the process ends. Were it removed, a second process
	// could hold the lock on a file that a third can't find.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	free, err := durable.TryLock(f)
	switch {
	case err != nil:
		err = fmt.Errorf("lock state directory %s: %w", path, err)
	case !free:
		err = fmt.Errorf("state directory %s: %w by another audit-host%s: stop it first, or set another state_dir", path, ErrInUse, holder(f))
	default:
		if err = sign(f); err != nil {
			err = fmt.Errorf("lock state directory %s: %w", path, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Dir{path, f}, nil
}

// Path joins names to the directory.
func (d *Dir) Path(names ...string) string {
	return filepath.Join(append([]string{d.path}, names...)...)
}

// Close gives the directory free.
func (d *Dir) Close() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("unlock state directory %s: %w", d.path, err)
	}
	return nil
}

// sign writes our process id into the file, for the messages of others.
func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder names the process that has the lock, if that can be read.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}
