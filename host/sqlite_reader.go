package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// dbReader reads a database that it never writes, in one transaction: every
// statement sees the same state.
//
// Where a process has the database open for writing, it reads through SQLite's
// shared index of the log, like any other connection. Where none has, it reads
// the files as they lie there (snapshotVFS) and checks after every use that
// nobody has begun to write.
type dbReader struct {
	c    *dbConn
	live bool
	path string
	was  [2]fileState // without live: of the database and its log
	log  walFound     // without live: what the log holds
	// noLog is where the log would be that is not there, see walMissing.
	noLog string
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

// openReader opens a database for reading.
func openReader(ctx context.Context, path string) (*dbReader, error) {
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
	r := &dbReader{path: real}
	if r.live, err = hasWriter(real); err != nil {
		return nil, err
	}
	if !r.live {
		if r.was, err = r.state(); err != nil {
			return nil, err
		}
		if r.log, err = readWAL(real + "-wal"); err != nil {
			return nil, err
		}
		if !r.was[1].exists {
			if r.noLog, err = walMissing(real); err != nil {
				return nil, err
			}
		}
	}
	o := dbOptions{readOnly: true, busy: 5 * time.Second}
	if !r.live {
		o.vfs = snapshotVFS
	}
	c, err := openDB(ctx, real, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	r.c = c
	err = c.protect(func() error {
		if !r.live {
			// Without shared memory SQLite reads a log only with the
			// database to itself, which snapshotVFS pretends.
			if _, err := c.value("PRAGMA locking_mode = EXCLUSIVE"); err != nil {
				return err
			}
		}
		if err := c.exec("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON"); err != nil {
			return err
		}
		return c.look()
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, errors.Join(err, r.close()))
	}
	return r, nil
}

// look begins a transaction on the present state.
func (c *dbConn) look() error {
	if err := c.begin(false); err != nil {
		return err
	}
	// The transaction's state is that of its first read.
	return c.exec("SELECT 1 FROM main.sqlite_master NOT INDEXED LIMIT 1")
}

// rest ends the transaction, so that the log can be emptied. Nothing is read
// until renew.
func (r *dbReader) rest() error { return r.c.protect(r.c.rollback) }

// errStale is a reader that can't be renewed.
var errStale = errors.New("the database has to be opened again")

// renew goes on to the present state. It is for a reader beside a writer; the
// error wraps errStale if the database has to be opened again instead.
func (r *dbReader) renew(ctx context.Context) error {
	if !r.live || r.c.broken {
		return errStale
	}
	r.c.until(ctx)
	return r.c.guarded(ctx, func() error {
		if err := r.c.rollback(); err != nil {
			return err
		}
		if err := r.c.unmoved(); err != nil {
			return errors.Join(errStale, err)
		}
		return r.c.look()
	})
}

func (r *dbReader) state() (s [2]fileState, err error) {
	for i, name := range []string{r.path, r.path + "-wal"} {
		if s[i], err = stateOf(name); err != nil {
			return s, err
		}
	}
	return s, nil
}

// sameFile tells whether another reader reads the same file, and the same state
// of it if nobody writes.
func (r *dbReader) sameFile(o *dbReader) bool {
	if r.live != o.live {
		return false
	}
	if r.live {
		mine, theirs := r.c.infos()[0], o.c.infos()[0]
		return mine != nil && theirs != nil && os.SameFile(mine, theirs)
	}
	return r.was[0].same(o.was[0]) && r.was[1].same(o.was[1])
}

// do runs f inside the reader's transaction.
func (r *dbReader) do(ctx context.Context, f func(*dbConn) error) error {
	if r.c.broken {
		return errors.New("the database engine failed before; open it again")
	}
	r.c.until(ctx)
	err := r.c.guarded(ctx, func() error { return f(r.c) })
	if r.live {
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

// onDisk says why what is read is not known to be on disk; nil if it is. It is asked
// after the reading: what is doubted then may have been seen before it was.
func (r *dbReader) onDisk() error {
	if r.live && trustIn(r.path) > onDisk {
		return fmt.Errorf("%s may show what is not on disk yet: its log is about to be written again", r.path)
	}
	if !r.live && r.log.frames > 0 {
		return fmt.Errorf("what lies in %s-wal may not outlast a power cut until a daemon has opened the file to write", r.path)
	}
	return nil
}

func (r *dbReader) close() error { return r.c.close() }
