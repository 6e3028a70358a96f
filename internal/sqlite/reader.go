package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Reader reads a database that it never writes, in one transaction: every
// statement sees the same state.
//
// Where a process has the database open for writing, it reads through SQLite's
// shared index of the log, like any other connection. Where none has, it reads
// the files as they lie there (snapshotVFS) and checks after every use that
// nobody has begun to write.
type Reader struct {
	Conn *Conn
	Live bool
	path string
	was  [2]fileState // without live: of the database and its log
	log  walFound     // without live: what the log holds
	// NoLog is where the log would be that is not there, see walMissing.
	NoLog string
}

// fileState is what tells that a file was written.
type fileState struct {
	exists   bool
	size     int64
	modified time.Time
	info     fs.FileInfo
}

func stateOf(name string) (fileState, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fileState{}, nil
	}
	if err != nil {
		return fileState{}, err
	}
	return fileState{exists: true, size: info.Size(), modified: info.ModTime(), info: info}, nil
}

func (a fileState) same(b fileState) bool {
	return a.exists == b.exists && (!a.exists || a.size == b.size && a.modified.Equal(b.modified) && os.SameFile(a.info, b.info))
}

// OpenReader opens a database for reading.
func OpenReader(ctx context.Context, path string) (*Reader, error) {
	// SQLite looks for the log beside the file that a symbolic link names.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(real)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: not a regular file", path)
	}
	r := &Reader{path: real}
	if r.Live, err = hasWriter(real); err != nil {
		return nil, err
	}
	if !r.Live {
		if r.was, err = r.state(); err != nil {
			return nil, err
		}
		if r.log, err = readWAL(real + "-wal"); err != nil {
			return nil, err
		}
		if !r.was[1].exists {
			if r.NoLog, err = walMissing(real); err != nil {
				return nil, err
			}
		}
	}
	o := Options{ReadOnly: true, Busy: 5 * time.Second}
	if !r.Live {
		o.VFS = snapshotVFS
	}
	c, err := Open(ctx, real, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	r.Conn = c
	err = c.Protect(func() error {
		if !r.Live {
			// Without shared memory SQLite reads a log only with the
			// database to itself, which snapshotVFS pretends.
			if _, err := c.Value("PRAGMA locking_mode = EXCLUSIVE"); err != nil {
				return err
			}
		}
		if err := c.Exec("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON"); err != nil {
			return err
		}
		return c.look()
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, errors.Join(err, r.Close()))
	}
	return r, nil
}

// look begins a transaction on the present state.
func (c *Conn) look() error {
	if err := c.Begin(false); err != nil {
		return err
	}
	// The transaction's state is that of its first read.
	return c.Exec("SELECT 1 FROM main.sqlite_master NOT INDEXED LIMIT 1")
}

// Rest ends the transaction, so that the log can be emptied. Nothing is read
// until renew.
func (r *Reader) Rest() error { return r.Conn.Protect(r.Conn.Rollback) }

// ErrStale is a reader that can't be renewed.
var ErrStale = errors.New("the database has to be opened again")

// Renew goes on to the present state. It is for a reader beside a writer; the
// error wraps ErrStale if the database has to be opened again instead.
func (r *Reader) Renew(ctx context.Context) error {
	if !r.Live || r.Conn.broken {
		return ErrStale
	}
	r.Conn.until(ctx)
	return r.Conn.guarded(ctx, func() error {
		if err := r.Conn.Rollback(); err != nil {
			return err
		}
		if err := r.Conn.unmoved(); err != nil {
			return errors.Join(ErrStale, err)
		}
		return r.Conn.look()
	})
}

func (r *Reader) state() (s [2]fileState, err error) {
	for i, name := range []string{r.path, r.path + "-wal"} {
		if s[i], err = stateOf(name); err != nil {
			return s, err
		}
	}
	return s, nil
}

// SameFile tells whether another reader reads the same file, and the same state
// of it if nobody writes.
func (r *Reader) SameFile(o *Reader) bool {
	if r.Live != o.Live {
		return false
	}
	if r.Live {
		mine, theirs := r.Conn.infos()[0], o.Conn.infos()[0]
		return mine != nil && theirs != nil && os.SameFile(mine, theirs)
	}
	return r.was[0].same(o.was[0]) && r.was[1].same(o.was[1])
}

// Do runs f inside the reader's transaction.
func (r *Reader) Do(ctx context.Context, f func(*Conn) error) error {
	if r.Conn.broken {
		return errors.New("the database engine failed before; open it again")
	}
	r.Conn.until(ctx)
	err := r.Conn.guarded(ctx, func() error { return f(r.Conn) })
	if r.Live {
		return err
	}
	// Written in the meantime, what was read may be a mixture, and an error
	// a consequence of it.
	now, stateErr := r.state()
	if stateErr != nil {
		return errors.Join(err, stateErr)
	}
	for i := range now {
		if !now[i].same(r.was[i]) {
			return fmt.Errorf("%s was written while it was read; read it again", r.path)
		}
	}
	return err
}

// OnDisk says why what is read is not known to be on disk; nil if it is. It is asked
// after the reading: what is doubted then may have been seen before it was.
func (r *Reader) OnDisk() error {
	if r.Live && trustIn(r.path) > onDisk {
		return fmt.Errorf("%s may show what is not on disk yet: its log is about to be written again", r.path)
	}
	if !r.Live && r.log.frames > 0 {
		return fmt.Errorf("what lies in %s-wal may not outlast a power cut until a daemon has opened the file to write", r.path)
	}
	return nil
}

// NotRead says what of the log could not be read; "" if nothing.
func (r *Reader) NotRead() string { return r.log.unread }

func (r *Reader) Close() error { return r.Conn.Close() }
