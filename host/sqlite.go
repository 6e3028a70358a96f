package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed" // SQLite as WebAssembly
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/host/meter"
)

// The sqlite files are the only ones that know the binding of SQLite, but for
// its codes and the authorizer's actions, so that a move to another one stays
// within them. What they promise:
//
//   - No fault of the engine is a fault of the host. The binding panics when
//     SQLite's module traps or runs out of memory; protect makes an error of
//     it, and the connection is never used again.
//   - A call ends soon after its context does: the progress handler looks
//     every 1,000 instructions of SQLite's virtual machine, and behind it
//     stands the meter (sqlite_meter.go).

// Memory of one connection in bytes. The heap limit is SQLite's own, so that
// running out of it is an error of the statement; the module's limit lies
// above it.
const (
	sqliteHeap   = 64 << 20
	sqliteMemory = 128 << 20
)

// engine is process-wide because the binding is: one configuration, one
// compiled module for all connections.
var engine struct {
	once sync.Once
	err  error
}

// StartSQLite compiles SQLite, with the machine code kept in cache; nil keeps
// none. It is process-wide, by the binding's design: the first call in a
// process decides and later ones return its result. Whatever opens a database
// starts the engine without a cache if nobody has before, which costs about a
// second, so call this first.
func StartSQLite(cache *Cache) error {
	engine.once.Do(func() { engine.err = startSQLite(cache) })
	return engine.err
}

func startSQLite(cache *Cache) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("start SQLite: %v", p)
		}
	}()
	cfg := wazero.NewRuntimeConfig().WithMemoryLimitPages(sqliteMemory / wasmPage).WithCoreFeatures(api.CoreFeaturesV2)
	if cache != nil {
		// The engine lives as long as the process and the cache does not: it
		// shares the cache's files, not what happens when it is closed.
		own, err := cache.forProcess()
		if err != nil {
			return fmt.Errorf("start SQLite: %w", err)
		}
		cfg = cfg.WithCompilationCache(own)
	}
	sqlite3.RuntimeConfig = cfg
	if err := meterSQLite(); err != nil {
		return err
	}
	vfs.Register(snapshotVFS, snapshotFS{})
	if err := sqlite3.Initialize(); err != nil {
		return fmt.Errorf("start SQLite: %w", err)
	}
	sqlite3.Binary = nil // 2 MB; it was the only use
	return nil
}

// dbError is what the engine said.
type dbError struct {
	// code is SQLite's extended result code; 0 if the engine itself failed.
	code int
	text string
	// memory tells that the connection's heap limit was met, stopped that the
	// engine was stopped because time was up.
	memory, stopped bool
}

func (e *dbError) Error() string { return e.text }

// fatal tells whether the connection must not be used again.
func (e *dbError) fatal() bool {
	switch e.code & 0xff {
	case 0, int(sqlite3.IOERR), int(sqlite3.CORRUPT), int(sqlite3.NOTADB), int(sqlite3.CANTOPEN), int(sqlite3.PROTOCOL),
		int(sqlite3.INTERNAL), int(sqlite3.MISUSE), int(sqlite3.NOMEM), int(sqlite3.READONLY):
		return true
	}
	return false
}

// interrupted tells whether the statement was ended by its context.
func (e *dbError) interrupted() bool { return e.stopped || e.code == int(sqlite3.INTERRUPT) }

// corrupt tells whether the file is damaged.
func (e *dbError) corrupt() bool {
	return e.code&0xff == int(sqlite3.CORRUPT) || e.code&0xff == int(sqlite3.NOTADB)
}

func asDBError(err error) error {
	if err == nil {
		return nil
	}
	var code sqlite3.ExtendedErrorCode
	if !errors.As(err, &code) {
		return err
	}
	return &dbError{code: int(code), text: strings.TrimPrefix(err.Error(), "sqlite3: ")}
}

// protect turns a panic of the engine into an error and marks the connection
// as broken.
func (c *dbConn) protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.broken = true
			e := &dbError{text: "the database engine failed: " + firstLines(fmt.Sprint(p), 4)}
			if e.memory = strings.HasSuffix(e.text, "sqlite3: out of memory"); e.memory {
				e.text = fmt.Sprintf("the statement or its transaction needs more than the %d bytes of memory that a connection has; write less in one call", sqliteHeap)
			}
			err = e
		}
	}()
	return f()
}

// dbOptions says how a connection is opened.
type dbOptions struct {
	// readOnly opens without the right to write.
	readOnly bool
	// keepLog leaves the log as it is when the connection is closed.
	keepLog bool
	// vfs names SQLite's file system layer; "" is the usual one.
	vfs string
	// busy is how long a lock of others is waited for.
	busy time.Duration
	// maxSQL bounds a statement's text in bytes and puts the limits of
	// limitsFor in force; 0 leaves SQLite's own.
	maxSQL int
	// authorize answers "" or why an action is refused; nil allows all.
	authorize func(a dbAction) string
}

// dbConn is one connection, with one instance of the engine. It belongs to one
// goroutine at a time. Its methods may panic and are called inside protect,
// but for open, close, moved and the flags.
type dbConn struct {
	db   *sqlite3.Conn
	path string
	vfs  string // the layer that it was opened with
	mod  api.Module
	row  *rawRow // once a row was read
	// gauge is the meter of the engine's instance.
	gauge *meter.Gauge
	// broken is set once the engine failed.
	broken bool
	// committing is set from a COMMIT on; the watchdog reads it.
	committing atomic.Bool
	// own is set while a statement of the host's own is prepared.
	own     bool
	refusal string
	files   []vfs.File
	// main and wal are the database and its log, through the layer that they were
	// opened with.
	main, wal vfs.File
	// logSize is how long the log was when it was last looked at, in bytes.
	logSize int64
}

// openDB opens an existing database file.
func openDB(ctx context.Context, path string, o dbOptions) (*dbConn, error) {
	if err := StartSQLite(nil); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	c := &dbConn{path: abs, vfs: o.vfs}
	if err := c.protect(func() error { return c.open(ctx, o) }); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *dbConn) open(ctx context.Context, o dbOptions) error {
	name, flags := c.path, sqlite3.OPEN_READWRITE
	if o.readOnly {
		flags = sqlite3.OPEN_READONLY
	}
	if o.vfs != "" {
		name, flags = vfsURI(c.path, o.vfs), flags|sqlite3.OPEN_URI
	}
	var err error
	if c.db, err = sqlite3.OpenFlags(name, flags); err != nil {
		return asDBError(err)
	}
	if err := c.bindMeter(); err != nil {
		return err
	}
	c.db.SetInterrupt(ctx)
	c.db.HardHeapLimit(sqliteHeap)
	c.db.SoftHeapLimit(sqliteHeap / 2)
	if err := c.db.BusyTimeout(o.busy); err != nil {
		return asDBError(err)
	}
	for op, on := range map[sqlite3.DBConfig]bool{
		sqlite3.DBCONFIG_DEFENSIVE: true, sqlite3.DBCONFIG_TRUSTED_SCHEMA: false, sqlite3.DBCONFIG_WRITABLE_SCHEMA: false,
		sqlite3.DBCONFIG_ENABLE_FTS3_TOKENIZER: false, sqlite3.DBCONFIG_DQS_DML: false, sqlite3.DBCONFIG_DQS_DDL: false,
		// A reader that closes last must not write the log back.
		sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE: o.readOnly || o.keepLog,
	} {
		if err := c.config(op, on); err != nil {
			return err
		}
	}
	if err := c.keepFile(sqlite3.FCNTL_FILE_POINTER); err != nil {
		return err
	}
	if o.maxSQL > 0 {
		for id, n := range limitsFor(o.maxSQL) {
			c.db.Limit(id, n)
		}
	}
	if o.authorize != nil {
		return asDBError(c.db.SetAuthorizer(func(a sqlite3.AuthorizerActionCode, third, fourth, schema, inner string) sqlite3.AuthorizerReturnCode {
			if c.own {
				return sqlite3.AUTH_OK
			}
			if why := o.authorize(dbAction{code: a, third: third, fourth: fourth, schema: schema}); why != "" {
				c.refusal = why
				return sqlite3.AUTH_DENY
			}
			return sqlite3.AUTH_OK
		}))
	}
	return nil
}

func (c *dbConn) config(op sqlite3.DBConfig, on bool) error {
	_, err := c.db.Config(op, on)
	return asDBError(err)
}

// limitsFor returns the limits of a connection that runs others' SQL. A value
// is at most 16 MiB, so that no single instruction works on more.
func limitsFor(maxSQL int) map[sqlite3.LimitCategory]int {
	return map[sqlite3.LimitCategory]int{
		sqlite3.LIMIT_LENGTH: maxValue, sqlite3.LIMIT_SQL_LENGTH: maxSQL, sqlite3.LIMIT_COLUMN: maxColumns,
		sqlite3.LIMIT_EXPR_DEPTH: 100, sqlite3.LIMIT_COMPOUND_SELECT: 50, sqlite3.LIMIT_VDBE_OP: 250_000,
		sqlite3.LIMIT_FUNCTION_ARG: 64, sqlite3.LIMIT_ATTACHED: 0, sqlite3.LIMIT_LIKE_PATTERN_LENGTH: 128,
		sqlite3.LIMIT_VARIABLE_NUMBER: maxColumns * rowsPerStatement, sqlite3.LIMIT_TRIGGER_DEPTH: 10,
		sqlite3.LIMIT_WORKER_THREADS: 0,
	}
}

// keepFile remembers a file of the connection, for moved and for a close that
// the engine can't do any more.
func (c *dbConn) keepFile(which sqlite3.FcntlOpcode) error {
	p, err := c.db.FileControl("main", which)
	if err != nil {
		return asDBError(err)
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
func (c *dbConn) keepWAL() error {
	if err := c.exec("SELECT 1 FROM sqlite_schema LIMIT 1"); err != nil {
		return err
	}
	return c.keepFile(sqlite3.FCNTL_JOURNAL_POINTER)
}

// moved names the file of the database, or of its log, that is not what its
// name stands for any more, or was emptied or shortened; "" if neither is so.
func (c *dbConn) moved() (string, error) {
	for i, f := range c.files {
		open, ok := f.(interface{ Stat() (os.FileInfo, error) })
		if !ok {
			return "", fmt.Errorf("stat %s: the file system layer has no stat", c.path)
		}
		name := c.path
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
func (c *dbConn) infos() (list [2]os.FileInfo) {
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
func (c *dbConn) walPath() string {
	if f, ok := c.files[0].(interface{ Name() string }); ok {
		return f.Name() + "-wal"
	}
	return c.path + "-wal"
}

// close frees the connection. A sound one that may write checkpoints its log;
// of a broken one the instance is thrown away, which closes its files and so
// gives up their locks.
func (c *dbConn) close() error {
	if c.db == nil {
		return nil
	}
	db := c.db
	c.db = nil
	var err error
	if !c.broken {
		err = c.protect(func() error {
			db.SetInterrupt(context.Background())
			for s := range db.Stmts() {
				defer s.Close() // reports the error of the statement's last run again
			}
			return nil
		})
	}
	if !c.broken {
		err = c.protect(func() error { return asDBError(db.Close()) })
		if err == nil {
			return nil
		}
	}
	if c.mod != nil {
		err = errors.Join(err, c.mod.Close(context.Background()))
	}
	if err != nil {
		return fmt.Errorf("close database %s: %w", c.path, err)
	}
	return nil
}

// exec runs statements of the host's own.
func (c *dbConn) exec(sql string) error {
	c.own = true
	defer func() { c.own = false }()
	return asDBError(c.db.Exec(sql))
}

// value runs one statement of the host's own and returns the first column of
// its first row as a text.
func (c *dbConn) value(sql string) (string, error) {
	c.own = true
	defer func() { c.own = false }()
	s, err := c.prepare(sql)
	if err != nil {
		return "", err
	}
	ok, err := s.step()
	v := ""
	if ok {
		v = s.s.ColumnText(0)
	}
	return v, errors.Join(err, s.close())
}

// begin, commit and rollback are the only ones that touch transactions.
func (c *dbConn) begin(write bool) error {
	c.committing.Store(false)
	if write {
		return c.exec("BEGIN IMMEDIATE")
	}
	return c.exec("BEGIN DEFERRED")
}

func (c *dbConn) commit() error {
	c.committing.Store(true)
	return c.exec("COMMIT")
}

func (c *dbConn) rollback() error {
	if c.db.GetAutocommit() {
		return nil // SQLite has rolled back by itself
	}
	ctx := c.db.SetInterrupt(context.Background())
	defer c.db.SetInterrupt(ctx)
	return c.exec("ROLLBACK")
}

// size is how many bytes the database has, with what the transaction has changed.
func (c *dbConn) size() (n int64, err error) {
	err = c.each("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", nil, func(s *dbStmt) error {
		n = s.integer(0)
		return nil
	})
	return n, err
}

// patience sets how long a lock of others is waited for.
func (c *dbConn) patience(d time.Duration) error { return asDBError(c.db.BusyTimeout(d)) }

// until ends what the connection runs when ctx ends.
func (c *dbConn) until(ctx context.Context) { c.db.SetInterrupt(ctx) }

// checkpoint writes the log back into the database and empties it.
func (c *dbConn) checkpoint() error {
	_, _, err := c.db.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
	c.logSize = 0
	return asDBError(err)
}

// prepareOwn compiles a statement of the host's own.
func (c *dbConn) prepareOwn(sql string) (*dbStmt, error) {
	c.own = true
	defer func() { c.own = false }()
	return c.prepare(sql)
}

// each runs a statement of the host's own and calls f for every row.
func (c *dbConn) each(sql string, args []any, f func(*dbStmt) error) (err error) {
	s, err := c.prepareOwn(sql)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.close(); err == nil {
			err = e
		}
	}()
	for i, v := range args {
		if err := s.set(i+1, v); err != nil {
			return err
		}
	}
	for {
		ok, err := s.step()
		if err != nil || !ok {
			return err
		}
		if err := f(s); err != nil {
			return err
		}
	}
}
