// Package sqlite is the one place that knows the binding of SQLite, but for its codes
// and the authorizer's actions. What it promises:
//
//   - No fault of the engine is a fault of the host. The binding panics when
//     SQLite's module traps or runs out of memory; Protect makes an error of
//     it, and the connection is never used again.
//   - A call ends soon after its context does: the progress handler looks
//     every 1,000 instructions of SQLite's virtual machine, and behind it
//     stands the meter (meter.go).
//   - What an opened database shows is on disk (durable.go).
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed" // SQLite as WebAssembly
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/host/meter"
)

// Memory of one connection in bytes. The heap limit is SQLite's own, so that
// running out of it is an error of the statement; the module's limit lies
// above it.
const (
	heapSize   = 64 << 20
	memorySize = 128 << 20
	page       = 64 << 10 // of WebAssembly
)

// engine is process-wide because the binding is: one configuration, one
// compiled module for all connections.
var engine struct {
	once sync.Once
	err  error
}

// Start compiles SQLite, with the machine code kept in what cache returns; nil
// keeps none. It is process-wide, by the binding's design: the first call in a
// process decides and later ones return its result. Whatever opens a database
// starts the engine without a cache if nobody has before, which costs about a
// second, so call this first.
func Start(cache func() wazero.CompilationCache) error {
	return StartAs(func(cfg wazero.RuntimeConfig) wazero.RuntimeConfig {
		if cache == nil {
			return cfg
		}
		return cfg.WithCompilationCache(cache())
	}, metered)
}

// StartAs is Start with a configuration and a module of the engine that the
// functions make of the usual ones, to measure others.
func StartAs(configure func(wazero.RuntimeConfig) wazero.RuntimeConfig, rewrite func([]byte) ([]byte, error)) error {
	engine.once.Do(func() { engine.err = start(configure, rewrite) })
	return engine.err
}

func start(configure func(wazero.RuntimeConfig) wazero.RuntimeConfig, rewrite func([]byte) ([]byte, error)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("start SQLite: %v", p)
		}
	}()
	sqlite3.RuntimeConfig = configure(wazero.NewRuntimeConfig().WithMemoryLimitPages(memorySize / page).WithCoreFeatures(api.CoreFeaturesV2))
	if sqlite3.Binary, err = rewrite(sqlite3.Binary); err != nil {
		return err
	}
	vfs.Register(snapshotVFS, snapshotFS{})
	if err := sqlite3.Initialize(); err != nil {
		return fmt.Errorf("start SQLite: %w", err)
	}
	sqlite3.Binary = nil // 2 MB; it was the only use
	return nil
}

// Error is what the engine said.
type Error struct {
	// Code is SQLite's extended result code; 0 if the engine itself failed.
	Code int
	Text string
	// Memory tells that the connection's heap limit was met, stopped that the
	// engine was stopped because time was up.
	Memory, stopped bool
}

func (e *Error) Error() string { return e.Text }

// Fatal tells whether the connection must not be used again.
func (e *Error) Fatal() bool {
	switch e.Code & 0xff {
	case 0, int(sqlite3.IOERR), int(sqlite3.CORRUPT), int(sqlite3.NOTADB), int(sqlite3.CANTOPEN), int(sqlite3.PROTOCOL),
		int(sqlite3.PERM), int(sqlite3.INTERNAL), int(sqlite3.MISUSE), int(sqlite3.NOMEM), int(sqlite3.READONLY):
		return true
	}
	return false
}

// Interrupted tells whether the statement was ended by its context.
func (e *Error) Interrupted() bool { return e.stopped || e.Code == int(sqlite3.INTERRUPT) }

// Corrupt tells whether the file is damaged.
func (e *Error) Corrupt() bool {
	return e.Code&0xff == int(sqlite3.CORRUPT) || e.Code&0xff == int(sqlite3.NOTADB)
}

func asError(err error) error {
	if err == nil {
		return nil
	}
	var code sqlite3.ExtendedErrorCode
	if !errors.As(err, &code) {
		return err
	}
	return &Error{Code: unopened(int(code), err), Text: strings.TrimPrefix(err.Error(), "sqlite3: ")}
}

// unopened is a result code, and a more telling one where a file can't be opened
// and the system said why: nobody has to read that in a text.
func unopened(code int, err error) int {
	switch {
	case code&0xff != int(sqlite3.CANTOPEN):
	case errors.Is(err, syscall.EROFS):
		return int(sqlite3.READONLY)
	case errors.Is(err, fs.ErrPermission):
		return int(sqlite3.PERM)
	}
	return code
}

// beginning is that of a panic's text, which has a stack trace.
func beginning(p any) string {
	lines := strings.SplitN(strings.TrimSpace(fmt.Sprint(p)), "\n", 5)
	return strings.Join(lines[:min(4, len(lines))], "\n")
}

// Protect turns a panic of the engine into an error and marks the connection
// as broken.
func (c *Conn) Protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.broken = true
			e := &Error{Text: "the database engine failed: " + beginning(p)}
			if e.Memory = strings.HasSuffix(e.Text, "sqlite3: out of memory"); e.Memory {
				e.Text = fmt.Sprintf("the statement or its transaction needs more than the %d bytes of memory that a connection has; write less in one call", heapSize)
			}
			err = e
		}
	}()
	return f()
}

// Options says how a connection is opened.
type Options struct {
	// ReadOnly opens without the right to write.
	ReadOnly bool
	// KeepLog leaves the log as it is when the connection is closed.
	KeepLog bool
	// VFS names SQLite's file system layer; "" is the usual one.
	VFS string
	// Busy is how long a lock of others is waited for.
	Busy time.Duration
	// Limits are put in force beside SQLite's own.
	Limits map[sqlite3.LimitCategory]int
	// Authorize answers "" or why an action is refused; nil allows all.
	Authorize func(a Action) string
}

// Action is what a statement is about to do, as SQLite's authorizer tells it
// while the statement is compiled.
type Action struct {
	Code                  sqlite3.AuthorizerActionCode
	Third, Fourth, Schema string
}

// Conn is one connection, with one instance of the engine. It belongs to one
// goroutine at a time. Its methods may panic and are called inside Protect, but
// for Close.
type Conn struct {
	DB   *sqlite3.Conn // the binding's, for what is not here
	Path string        // absolute
	vfs  string        // the layer that it was opened with
	mod  api.Module
	row  *RawRow // once a row was read
	// gauge is the meter of the engine's instance.
	gauge *meter.Gauge
	// broken is set once the engine failed.
	broken bool
	// committing is set from a COMMIT on; the watchdog reads it.
	committing atomic.Bool
	// own is set while a statement of the host's own is prepared.
	own bool
	// Refusal is why the authorizer refused something last; "" if it did not.
	Refusal string
	files   []vfs.File
	// main and wal are the database and its log, through the layer that they were
	// opened with.
	main, wal vfs.File
	// logSize is how long the log was when it was last looked at, in bytes.
	logSize int64
}

// Open opens an existing database file.
func Open(ctx context.Context, path string, o Options) (*Conn, error) {
	if err := Start(nil); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	c := &Conn{Path: abs, vfs: o.VFS}
	if err := c.Protect(func() error { return c.open(ctx, o) }); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Conn) open(ctx context.Context, o Options) error {
	name, flags := c.Path, sqlite3.OPEN_READWRITE
	if o.ReadOnly {
		flags = sqlite3.OPEN_READONLY
	}
	if o.VFS != "" {
		name, flags = vfsURI(c.Path, o.VFS), flags|sqlite3.OPEN_URI
	}
	var err error
	if c.DB, err = sqlite3.OpenFlags(name, flags); err != nil {
		return asError(err)
	}
	if err := c.bindMeter(); err != nil {
		return err
	}
	c.DB.SetInterrupt(ctx)
	c.DB.HardHeapLimit(heapSize)
	c.DB.SoftHeapLimit(heapSize / 2)
	if err := c.DB.BusyTimeout(o.Busy); err != nil {
		return asError(err)
	}
	for op, on := range map[sqlite3.DBConfig]bool{
		sqlite3.DBCONFIG_DEFENSIVE: true, sqlite3.DBCONFIG_TRUSTED_SCHEMA: false, sqlite3.DBCONFIG_WRITABLE_SCHEMA: false,
		sqlite3.DBCONFIG_ENABLE_FTS3_TOKENIZER: false, sqlite3.DBCONFIG_DQS_DML: false, sqlite3.DBCONFIG_DQS_DDL: false,
		// A reader that closes last must not write the log back.
		sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE: o.ReadOnly || o.KeepLog,
	} {
		if err := c.config(op, on); err != nil {
			return err
		}
	}
	if err := c.keepFile(sqlite3.FCNTL_FILE_POINTER); err != nil {
		return err
	}
	for id, n := range o.Limits {
		c.DB.Limit(id, n)
	}
	if o.Authorize != nil {
		return asError(c.DB.SetAuthorizer(func(a sqlite3.AuthorizerActionCode, third, fourth, schema, inner string) sqlite3.AuthorizerReturnCode {
			if c.own {
				return sqlite3.AUTH_OK
			}
			if why := o.Authorize(Action{Code: a, Third: third, Fourth: fourth, Schema: schema}); why != "" {
				c.Refusal = why
				return sqlite3.AUTH_DENY
			}
			return sqlite3.AUTH_OK
		}))
	}
	return nil
}

func (c *Conn) config(op sqlite3.DBConfig, on bool) error {
	_, err := c.DB.Config(op, on)
	return asError(err)
}

// keepFile remembers a file of the connection, for moved and for a close that
// the engine can't do any more.
func (c *Conn) keepFile(which sqlite3.FcntlOpcode) error {
	p, err := c.DB.FileControl("main", which)
	if err != nil {
		return asError(err)
	}
	if which == sqlite3.FCNTL_JOURNAL_POINTER {
		c.wal, _ = p.(vfs.File)
	} else {
		c.main, _ = p.(vfs.File)
	}
	for f, ok := p.(vfs.File); ok; {
		if u, wrapped := f.(vfs.FileUnwrap); wrapped {
			f = u.Unwrap()
			continue
		}
		c.files = append(c.files, f)
		break
	}
	return nil
}

// keepWAL reads from the database, so that its log is open, and remembers the
// log's file.
func (c *Conn) keepWAL() error {
	if err := c.Exec("SELECT 1 FROM sqlite_schema LIMIT 1"); err != nil {
		return err
	}
	return c.keepFile(sqlite3.FCNTL_JOURNAL_POINTER)
}

// moved names the file of the database, or of its log, that is not what its
// name stands for any more, or was emptied or shortened; "" if neither is so.
func (c *Conn) moved() (string, error) {
	for i, f := range c.files {
		open, ok := f.(interface{ Stat() (os.FileInfo, error) })
		if !ok {
			return "", fmt.Errorf("stat %s: the file system layer has no stat", c.Path)
		}
		name := c.Path
		if i > 0 {
			name = c.walPath()
		}
		mine, err := open.Stat()
		if err != nil {
			return "", fmt.Errorf("stat open file %s: %w", name, err)
		}
		there, err := os.Stat(name)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return name, nil
		case err != nil:
			return "", fmt.Errorf("stat %s: %w", name, err)
		case !os.SameFile(mine, there) || i == 0 && mine.Size() == 0:
			return name, nil
		case i > 0 && mine.Size() < c.logSize:
			// SQLite trusts its index of the log and would write behind a hole.
			// Another process may have emptied it after a checkpoint, which is no
			// harm: the database is opened again, and then has all rows or not.
			return name, nil
		case i > 0:
			c.logSize = mine.Size()
		}
	}
	return "", nil
}

// infos are those of the open database and its log; nil for one that is not open.
func (c *Conn) infos() (list [2]os.FileInfo) {
	for i, f := range c.files {
		if open, ok := f.(interface{ Stat() (os.FileInfo, error) }); ok && i < len(list) {
			// Without it nothing is compared.
			list[i], _ = open.Stat()
		}
	}
	return list
}

// walPath is where SQLite keeps the log: beside the file that a symbolic link
// pointed to when the database was opened.
func (c *Conn) walPath() string {
	if f, ok := c.files[0].(interface{ Name() string }); ok {
		return f.Name() + "-wal"
	}
	return c.Path + "-wal"
}

// Close frees the connection. A sound one that may write checkpoints its log;
// of a broken one the instance is thrown away, which closes its files and so
// gives up their locks.
func (c *Conn) Close() error {
	if c.DB == nil {
		return nil
	}
	db := c.DB
	c.DB = nil
	var err error
	if !c.broken {
		err = c.Protect(func() error {
			db.SetInterrupt(context.Background())
			for s := range db.Stmts() {
				defer s.Close() // reports the error of the statement's last run again
			}
			return nil
		})
	}
	if !c.broken {
		err = c.Protect(func() error { return asError(db.Close()) })
		if err == nil {
			return nil
		}
	}
	if c.mod != nil {
		err = errors.Join(err, c.mod.Close(context.Background()))
	}
	if err != nil {
		return fmt.Errorf("close database %s: %w", c.Path, err)
	}
	return nil
}

// Exec runs statements of the host's own.
func (c *Conn) Exec(sql string) error {
	c.own = true
	defer func() { c.own = false }()
	return asError(c.DB.Exec(sql))
}

// Value runs one statement of the host's own and returns the first column of
// its first row as a text.
func (c *Conn) Value(sql string) (string, error) {
	c.own = true
	defer func() { c.own = false }()
	s, err := c.Prepare(sql)
	if err != nil {
		return "", err
	}
	ok, err := s.Step()
	v := ""
	if ok {
		v = s.s.ColumnText(0)
	}
	return v, errors.Join(err, s.Close())
}

// Begin begins a transaction. It, Commit and Rollback are the only ones that touch one.
func (c *Conn) Begin(write bool) error {
	c.committing.Store(false)
	if write {
		return c.Exec("BEGIN IMMEDIATE")
	}
	return c.Exec("BEGIN DEFERRED")
}

// Commit commits it. With an error it may be committed or not.
func (c *Conn) Commit() error {
	c.committing.Store(true)
	return c.Exec("COMMIT")
}

// Rollback ends it, unless SQLite has done so by itself.
func (c *Conn) Rollback() error {
	if c.DB.GetAutocommit() {
		return nil // SQLite has rolled back by itself
	}
	ctx := c.DB.SetInterrupt(context.Background())
	defer c.DB.SetInterrupt(ctx)
	return c.Exec("ROLLBACK")
}

// Size is how many bytes the database has, with what the transaction has changed.
func (c *Conn) Size() (n int64, err error) {
	err = c.Each("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", nil, func(s *Stmt) error {
		n = s.Integer(0)
		return nil
	})
	return n, err
}

// Patience sets how long a lock of others is waited for.
func (c *Conn) Patience(d time.Duration) error { return asError(c.DB.BusyTimeout(d)) }

// until ends what the connection runs when ctx ends.
func (c *Conn) until(ctx context.Context) { c.DB.SetInterrupt(ctx) }

// Checkpoint writes the log back into the database and empties it.
func (c *Conn) Checkpoint() error {
	_, _, err := c.DB.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
	c.logSize = 0
	return asError(err)
}

// PrepareOwn compiles a statement of the host's own.
func (c *Conn) PrepareOwn(sql string) (*Stmt, error) {
	c.own = true
	defer func() { c.own = false }()
	return c.Prepare(sql)
}

// Each runs a statement of the host's own and calls f for every row.
func (c *Conn) Each(sql string, args []any, f func(*Stmt) error) (err error) {
	s, err := c.PrepareOwn(sql)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	for i, v := range args {
		if err := s.Set(i+1, v); err != nil {
			return err
		}
	}
	for {
		ok, err := s.Step()
		if err != nil || !ok {
			return err
		}
		if err := f(s); err != nil {
			return err
		}
	}
}
