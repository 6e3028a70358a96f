package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// dbFile is a database file that this process writes, through one connection
// that is opened when it is needed and, after a fault, again. It is used by
// one goroutine at a time.
type dbFile struct {
	path string
	// create makes an empty file, mode 0600, where there is none.
	create  bool
	cache   *Cache
	options dbOptions
	// opened is called, protected, with each new connection.
	opened func(*dbConn) error
	// hand tells that another one goes on with the file at once: close leaves its
	// log as it is.
	hand bool
	// syncDir makes the names in a folder durable; nil is syncDir itself.
	syncDir func(dir string) error
	// limits bound the log; zeros are the constants.
	limits logLimits

	conn *dbConn    // nil until needed and after a fault
	log  *logKeeper // of conn
	// before are the database and its log when the connection before was given up
	// because they had moved.
	before [2]os.FileInfo
	// committed tells that the last transaction came to its COMMIT.
	committed bool
}

// movedError is a file that is not what its name stands for any more.
type movedError struct {
	text string
	// after tells that it was noticed when the commit had returned.
	after bool
}

func (e *movedError) Error() string { return e.text }

// transact runs f in a transaction on the open connection, and opens it first
// if need be. Whatever f or the engine fails with rolls it back; an error that
// leaves the connection in doubt drops it.
func (f *dbFile) transact(ctx context.Context, write bool, do func(*dbConn) error) error {
	f.committed = false
	if f.conn != nil && f.log.failed.Load() {
		f.drop(true)
	}
	if err := f.connect(ctx); err != nil {
		return err
	}
	c := f.conn
	c.until(ctx)
	err := c.guarded(ctx, func() error { return f.attempt(c, write, do) })
	c.until(context.Background())
	if err == nil {
		return nil
	}
	var e *dbError
	var m *movedError
	if errors.As(err, &m) || errors.As(err, &e) && e.fatal() {
		if m != nil {
			f.before = c.infos()
		}
		// A file that was moved, or that is damaged, is no fault of the disk.
		f.drop(f.committed || e != nil && (e.code == 0 || e.code&0xff == int(sqlite3.IOERR)))
		return err
	}
	if c.protect(c.rollback) != nil {
		// Without the connection there is no transaction either, and the
		// caller has the error that matters.
		f.drop(true)
	}
	return err
}

func (f *dbFile) attempt(c *dbConn, write bool, do func(*dbConn) error) error {
	if err := c.unmoved(); err != nil {
		return err
	}
	if err := c.begin(write); err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	if !write {
		return c.rollback()
	}
	if err := c.unmoved(); err != nil {
		return err
	}
	// The commit point. Until COMMIT runs nobody can find anything of the
	// transaction, for its log frames lack the commit mark. When it has
	// returned the log is synced, and every later reader finds all of it. In
	// between, after an error of the disk or a trap, it may be either way.
	f.committed = true
	if err := c.commit(); err != nil {
		return err
	}
	if err := c.unmoved(); err != nil {
		return &movedError{text: err.Error() + ", while the transaction was committed", after: true}
	}
	f.log.committed()
	return nil
}

// unmoved returns an error if the open files are not what their names stand
// for: what is committed to them nobody would find.
func (c *dbConn) unmoved() error {
	name, err := c.moved()
	if err != nil {
		return &movedError{text: err.Error()}
	}
	if name != "" {
		return &movedError{text: name + " was replaced, removed, emptied or shortened; the next call opens what is there then"}
	}
	return nil
}

// connect opens the database if it is not open.
func (f *dbFile) connect(ctx context.Context) error {
	if f.conn != nil {
		return nil
	}
	if err := StartSQLite(f.cache); err != nil {
		return err
	}
	path := f.path
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && f.create {
		if err = createEmpty(path); err == nil {
			info, err = os.Stat(path)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cantOpen("open database %s: there is no such file; audit-host init makes one, or set create = true once", path)
	case err != nil:
		return cantOpen("open database: %v", err)
	case !info.Mode().IsRegular():
		return cantOpen("open database %s: not a regular file", path)
	}
	if err := f.strangeLog(info); err != nil {
		return err
	}
	// Until the log was written again nothing of it goes into the database, and
	// nobody relies on what is seen.
	o := f.options
	if log, err := os.Stat(logName(path)); err == nil && log.Size() > 0 {
		o.keepLog = true
	}
	was := trustIn(path)
	if was != onDisk { // else its log is as this process has synced it
		setTrust(path, doubtful)
	}
	c, err := openDB(ctx, path, o)
	if err != nil {
		return err
	}
	err = c.protect(func() error {
		if err := c.makeDurable(); err != nil {
			return err
		}
		if err := c.rewriteLog(was); err != nil {
			return err
		}
		sync := f.syncDir
		if sync == nil {
			sync = syncDir
		}
		// The binding does not sync the folder after it has created the log.
		// Without that a power cut could take the log's name, and with it all
		// its commits; so it is done here, before the first one.
		if err := sync(filepath.Dir(c.walPath())); err != nil {
			return err
		}
		setTrust(path, onDisk)
		if err := c.config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, f.options.keepLog); err != nil || f.opened == nil {
			return err
		}
		return f.opened(c)
	})
	if err != nil {
		return errors.Join(err, c.close())
	}
	if err := c.protect(func() error { f.log = c.keepLog(f.limits); return nil }); err != nil {
		return errors.Join(err, c.close())
	}
	f.conn = c
	return nil
}

// strangeLog refuses a file that has taken the name of the one before, with the log
// of that one beside it: SQLite would take the log for this file's and mix the two.
func (f *dbFile) strangeLog(info os.FileInfo) error {
	main, log := f.before[0], f.before[1]
	if main == nil || log == nil || os.SameFile(main, info) {
		return nil
	}
	real, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return cantOpen("open database: %v", err)
	}
	there, err := os.Stat(real + "-wal")
	if err != nil || !os.SameFile(log, there) || there.Size() == 0 {
		return nil // none, another, or an empty one
	}
	return &movedError{text: fmt.Sprintf("open database %s: the file is another one than before, and the log %s-wal beside it belongs to the one before; put that one back, or move the log and %s-shm away with it",
		f.path, real, real)}
}

// logName is where SQLite keeps the log of the database at path.
func logName(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path + "-wal"
}

func cantOpen(format string, a ...any) error {
	return &dbError{code: int(sqlite3.CANTOPEN), text: fmt.Sprintf(format, a...)}
}

// makeDurable sets up a connection that writes, so that a commit that has
// returned is on disk: in WAL mode with synchronous=FULL SQLite syncs the log
// at every commit.
func (c *dbConn) makeDurable() error {
	mode, err := c.value("PRAGMA journal_mode = WAL")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return cantOpen("open database %s: its journal mode is %s and could not be set to wal", c.path, mode)
	}
	// fullfsync reaches the platter on macOS and means nothing elsewhere.
	if err := c.exec(`PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
		PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON`); err != nil {
		return err
	}
	if err := c.keepWAL(); err != nil {
		return err
	}
	wal := c.walPath()
	if info, err := os.Stat(c.path); err == nil {
		// The binding gives the files beside the database the default mode.
		// Where they are another user's they stay as they are.
		_ = os.Chmod(wal, info.Mode().Perm())
		_ = os.Chmod(wal[:len(wal)-len("-wal")]+"-shm", info.Mode().Perm())
	}
	return nil
}

// createEmpty makes an empty file that nobody else can read, and makes its
// name durable.
func createEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("create database %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a folder durable. Windows has no such call.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// drop gives up the connection after a fault; the next call opens it again. With
// leave the log stays as it is, for nobody knows what of it is on disk; else it is
// written back to where it belongs.
func (f *dbFile) drop(leave bool) {
	c := f.conn
	f.conn = nil
	if c != nil {
		f.log.close()
		if leave || f.log.failed.Load() {
			f.leave(c)
		} else {
			setTrust(f.path, doubtful)
		}
		// What can go wrong has gone wrong: the caller has the error that
		// matters.
		_ = c.close()
	}
}

// leave sees to it that nothing is written back when the connection is closed, and
// that nobody relies on the database until it was opened again.
func (f *dbFile) leave(c *dbConn) {
	now := doubtful
	if f.log.failed.Load() {
		now = anew
	}
	setTrust(f.path, now)
	if !c.broken {
		_ = c.protect(func() error { return c.config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true) })
	}
}

// close writes the log back into the database and closes it. A reader that
// stands in the way of that is no error: what was committed is in the log.
func (f *dbFile) close() error {
	c := f.conn
	if c == nil {
		return nil
	}
	f.conn = nil
	f.log.close()
	if f.hand && !f.log.failed.Load() {
		return c.close()
	}
	var err error
	if !f.log.failed.Load() {
		err = c.finish()
	}
	switch e := (*dbError)(nil); {
	case errors.As(err, &e) && e.code&0xff == int(sqlite3.BUSY):
		err = nil
	case err != nil, f.log.failed.Load():
		f.log.failed.Store(true)
		f.leave(c)
	}
	return errors.Join(err, c.close())
}

// finish checkpoints, without waiting long for others.
func (c *dbConn) finish() error {
	err := c.protect(func() error {
		c.until(context.Background())
		if err := c.patience(250 * time.Millisecond); err != nil {
			return err
		}
		return c.checkpoint()
	})
	if err != nil {
		return fmt.Errorf("checkpoint database %s: %w", c.path, err)
	}
	return nil
}
