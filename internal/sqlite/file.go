package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/audit-host/audit-host/internal/durable"
	"github.com/ncruces/go-sqlite3"
)

// File is a database file that this process writes, through one connection
// that is opened when it is needed and, after a fault, again. It is used by
// one goroutine at a time.
type File struct {
	Path string
	// Create makes an empty file, mode 0600, where there is none.
	Create  bool
	Options Options
	// Opened is called, protected, with each new connection.
	Opened func(*Conn) error
	// HandOver tells that another one goes on with the file at once: close leaves its
	// log as it is.
	HandOver bool
	// SyncDir makes the names in a folder durable; nil is durable.SyncDir.
	SyncDir func(dir string) error
	// Limits bound the log; zeros are the constants.
	Limits LogLimits

	Conn *Conn          // nil until needed and after a fault
	log  *logBackWriter // of conn
	// before are the database and its log when the connection before was given up
	// because they had moved.
	before [2]os.FileInfo
	// Committed tells that the last transaction came to its COMMIT.
	Committed bool
}

// MovedError is a file that is not what its name stands for any more.
type MovedError struct {
	Text string
	// After tells that it was noticed when the commit had returned.
	After bool
}

func (e *MovedError) Error() string { return e.Text }

// Transact runs f in a transaction on the open connection, and opens it first
// if need be. Whatever f or the engine fails with rolls it back; an error that
// leaves the connection in doubt drops it.
func (f *File) Transact(ctx context.Context, write bool, do func(*Conn) error) error {
	f.Committed = false
	if f.Conn != nil && f.log.failed.Load() {
		f.Drop(true)
	}
	if err := f.Connect(ctx); err != nil {
		return err
	}
	c := f.Conn
	c.until(ctx)
	err := c.guarded(ctx, func() error { return f.attempt(c, write, do) })
	c.until(context.Background())
	if err == nil {
		return nil
	}
	var e *Error
	var m *MovedError
	if errors.As(err, &m) || errors.As(err, &e) && e.Fatal() {
		if m != nil {
			f.before = c.infos()
		}
		// A file that was moved, or that is damaged, is no fault of the disk.
		f.Drop(f.Committed || e != nil && (e.Code == 0 || e.Code&0xff == int(sqlite3.IOERR)))
		return err
	}
	if c.Protect(c.Rollback) != nil {
		// Without the connection there is no transaction either, and the
		// caller has the error that matters.
		f.Drop(true)
	}
	return err
}

func (f *File) attempt(c *Conn, write bool, do func(*Conn) error) error {
	if err := c.unmoved(); err != nil {
		return err
	}
	if err := c.Begin(write); err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	if !write {
		return c.Rollback()
	}
	if err := c.unmoved(); err != nil {
		return err
	}
	// The commit point. Until COMMIT runs nobody can find anything of the
	// transaction, for its log frames lack the commit mark. When it has
	// returned the log is synced, and every later reader finds all of it. In
	// between, after an error of the disk or a trap, it may be either way.
	f.Committed = true
	if err := c.Commit(); err != nil {
		return err
	}
	if err := c.unmoved(); err != nil {
		return &MovedError{Text: err.Error() + ", while the transaction was committed", After: true}
	}
	f.log.committed()
	return nil
}

// unmoved returns an error if the open files are not what their names stand
// for: what is committed to them nobody would find.
func (c *Conn) unmoved() error {
	name, err := c.moved()
	if err != nil {
		return &MovedError{Text: err.Error()}
	}
	if name != "" {
		return &MovedError{Text: name + " was replaced, removed, emptied or shortened; the next call opens what is there then"}
	}
	return nil
}

// Connect opens the database if it is not open.
func (f *File) Connect(ctx context.Context) error {
	if f.Conn != nil {
		return nil
	}
	path := f.Path
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && f.Create {
		if err = CreateEmpty(path); err == nil {
			info, err = os.Stat(path)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cantOpen("open database %s: there is no such file; audit-host init makes one, or set create = true once", path)
	case err != nil:
		return cantOpen("open database: %w", err)
	case !info.Mode().IsRegular():
		return cantOpen("open database %s: not a regular file", path)
	}
	if err := f.strangeLog(info); err != nil {
		return err
	}
	// Until the log was written again nothing of it goes into the database, and
	// nobody relies on what is seen.
	o := f.Options
	if log, err := os.Stat(logName(path)); err == nil && log.Size() > 0 {
		o.KeepLog = true
	}
	was := trustIn(path)
	if was != onDisk { // else its log is as this process has synced it
		setTrust(path, doubtful)
	}
	c, err := Open(ctx, path, o)
	if err != nil {
		return err
	}
	err = c.Protect(func() error {
		if err := c.makeDurable(); err != nil {
			return err
		}
		if err := c.rewriteLog(was); err != nil {
			return err
		}
		sync := f.SyncDir
		if sync == nil {
			sync = durable.SyncDir
		}
		// The binding does not sync the folder after it has created the log.
		// Without that a power cut could take the log's name, and with it all
		// its commits; so it is done here, before the first one.
		if err := sync(filepath.Dir(c.walPath())); err != nil {
			return err
		}
		setTrust(path, onDisk)
		if err := c.config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, f.Options.KeepLog); err != nil || f.Opened == nil {
			return err
		}
		return f.Opened(c)
	})
	if err != nil {
		return errors.Join(err, c.Close())
	}
	if err := c.Protect(func() error { f.log = c.keepLog(f.Limits); return nil }); err != nil {
		return errors.Join(err, c.Close())
	}
	f.Conn = c
	return nil
}

// strangeLog refuses a file that has taken the name of the one before, with the log
// of that one beside it: SQLite would take the log for this file's and mix the two.
func (f *File) strangeLog(info os.FileInfo) error {
	main, log := f.before[0], f.before[1]
	if main == nil || log == nil || os.SameFile(main, info) {
		return nil
	}
	real, err := filepath.EvalSymlinks(f.Path)
	if err != nil {
		return cantOpen("open database: %w", err)
	}
	there, err := os.Stat(real + "-wal")
	if err != nil || !os.SameFile(log, there) || there.Size() == 0 {
		return nil // none, another, or an empty one
	}
	return &MovedError{Text: fmt.Sprintf("open database %s: the file is another one than before, and the log %s-wal beside it belongs to the one before; put that one back, or move the log and %s-shm away with it",
		f.Path, real, real)}
}

// logName is where SQLite keeps the log of the database at path.
func logName(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path + "-wal"
}

func cantOpen(format string, a ...any) error {
	err := fmt.Errorf(format, a...)
	return &Error{Code: unopened(int(sqlite3.CANTOPEN), err), Text: err.Error()}
}

// Stuck returns how many pages the log has, if it has twice as many as it is kept at
// and a reader keeps it from being begun anew; else 0.
func (f *File) Stuck() (pages int, err error) {
	c, k := f.Conn, f.log
	if c == nil || k.pages < 2*k.limits.Most {
		return 0, nil
	}
	if err := c.Protect(func() error { k.write(); return nil }); err != nil || k.written >= k.pages {
		return 0, err
	}
	return k.pages, nil
}

// makeDurable sets up a connection that writes, so that a commit that has
// returned is on disk: in WAL mode with synchronous=FULL SQLite syncs the log
// at every commit.
func (c *Conn) makeDurable() error {
	mode, err := c.Value("PRAGMA journal_mode = WAL")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return cantOpen("open database %s: its journal mode is %s and could not be set to wal", c.Path, mode)
	}
	// fullfsync reaches the platter on macOS and means nothing elsewhere.
	if err := c.Exec(`PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
		PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON`); err != nil {
		return err
	}
	if err := c.keepWAL(); err != nil {
		return err
	}
	wal := c.walPath()
	if info, err := os.Stat(c.Path); err == nil {
		// The binding gives the files beside the database the default mode.
		// Where they are another user's they stay as they are.
		_ = os.Chmod(wal, info.Mode().Perm())
		_ = os.Chmod(wal[:len(wal)-len("-wal")]+"-shm", info.Mode().Perm())
	}
	return nil
}

// CreateEmpty makes an empty file that nobody else can read, and makes its
// name durable.
func CreateEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("create database %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// Drop gives up the connection after a fault; the next call opens it again. With
// leave the log stays as it is, for nobody knows what of it is on disk; else it is
// written back to where it belongs.
func (f *File) Drop(leave bool) {
	c := f.Conn
	f.Conn = nil
	if c != nil {
		f.log.close()
		if leave || f.log.failed.Load() {
			f.leave(c)
		} else {
			setTrust(f.Path, doubtful)
		}
		// What can go wrong has gone wrong: the caller has the error that
		// matters.
		_ = c.Close()
	}
}

// leave sees to it that nothing is written back when the connection is closed, and
// that nobody relies on the database until it was opened again.
func (f *File) leave(c *Conn) {
	now := doubtful
	if f.log.failed.Load() {
		now = anew
	}
	setTrust(f.Path, now)
	if !c.broken {
		_ = c.Protect(func() error { return c.config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true) })
	}
}

// Close writes the log back into the database and closes it. A reader that
// stands in the way of that is no error: what was committed is in the log.
func (f *File) Close() error {
	c := f.Conn
	if c == nil {
		return nil
	}
	f.Conn = nil
	f.log.close()
	if f.HandOver && !f.log.failed.Load() {
		return c.Close()
	}
	var err error
	if !f.log.failed.Load() {
		err = c.finish()
	}
	switch e := (*Error)(nil); {
	case errors.As(err, &e) && e.Code&0xff == int(sqlite3.BUSY):
		err = nil
	case err != nil, f.log.failed.Load():
		f.log.failed.Store(true)
		f.leave(c)
	}
	return errors.Join(err, c.Close())
}

// finish checkpoints, without waiting long for others.
func (c *Conn) finish() error {
	err := c.Protect(func() error {
		c.until(context.Background())
		if err := c.Patience(250 * time.Millisecond); err != nil {
			return err
		}
		return c.Checkpoint()
	})
	if err != nil {
		return fmt.Errorf("checkpoint database %s: %w", c.Path, err)
	}
	return nil
}
