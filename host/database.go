package host

import (
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// Defaults of [SQLGrant].
const (
	DefaultBusyTimeout  = 5 * time.Second
	DefaultSQLTimeLimit = 20 * time.Second
	DefaultMaxSQL       = 64 << 10
	DefaultMaxResult    = 1 << 20
)

// SQLGrant is the sql capability on one database file.
type SQLGrant struct {
	// Database is the file's path. It must exist unless Create is set.
	Database string
	// Create makes an empty database, mode 0600, if there is no file.
	Create bool
	// ReadOnly refuses every script that asks for a writing transaction.
	ReadOnly bool
	// BusyTimeout is how long a transaction waits for another process's lock
	// before it ends with the code BUSY.
	BusyTimeout time.Duration
	// TimeLimit bounds one transaction, the waiting included.
	TimeLimit time.Duration
	// MaxSQL bounds the text of one statement, MaxResult the rows that one
	// call returns, in bytes.
	MaxSQL, MaxResult int
	// MaxSize bounds the database in bytes: a transaction that would leave it
	// larger, and larger than before, ends with the code FULL. With it a
	// transaction's changes stay in the engine's memory until it commits, so that
	// one call writes at most that much, and the log beside the database is at most
	// twice as long as the host keeps one, 320 MB, while a reader is in its way. 0
	// bounds nothing but the time.
	MaxSize int64
}

// database serves the sql capability of one sink.
type database struct {
	grant  SQLGrant
	file   sqlite.File
	stmts  map[stmtKey]*sqlite.Stmt // of the open connection
	script script
	answer answer
	over   bool // the last script came to the grant's size
}

func newDatabase(g SQLGrant, cache *Cache) *database {
	if g.BusyTimeout <= 0 {
		g.BusyTimeout = DefaultBusyTimeout
	}
	if g.TimeLimit <= 0 {
		g.TimeLimit = DefaultSQLTimeLimit
	}
	if g.MaxSQL <= 0 {
		g.MaxSQL = DefaultMaxSQL
	}
	if g.MaxResult <= 0 {
		g.MaxResult = DefaultMaxResult
	}
	// Now and not at the first call, whose time it would take. An error is
	// kept and returned there.
	_ = StartSQLite(cache)
	d := &database{grant: g, stmts: make(map[stmtKey]*sqlite.Stmt)}
	// The host's own placeholders come on top of the text of a many step.
	room := g.MaxSQL + rowsPerStatement*(2*maxColumns+4)
	d.file = sqlite.File{
		Path: g.Database, Create: g.Create,
		Options: sqlite.Options{Busy: g.BusyTimeout, Limits: limitsFor(room), Authorize: authorize},
		Opened:  d.opened,
	}
	return d
}

// opened sets up a new connection.
func (d *database) opened(c *sqlite.Conn) error {
	clear(d.stmts)
	if d.grant.MaxSize == 0 {
		return nil
	}
	// Else SQLite writes changed pages to the log before it is known whether they
	// will be committed.
	return c.Exec("PRAGMA cache_spill = OFF")
}

// room looks, before a transaction begins, whether the log can take more: while a
// reader keeps it from being begun anew each commit makes it longer.
func (d *database) room() error {
	if d.grant.MaxSize == 0 || !d.script.write {
		return nil
	}
	pages, err := d.file.Stuck()
	if err == nil && pages > 0 {
		err = d.full("the log beside the database has %d pages, and a reader keeps it from being begun anew; max_size in [sink.grant.sql] bounds it too", pages)
	}
	return err
}

// within runs do and then compares the database with the grant's size, before
// anything of it is committed.
func (d *database) within(c *sqlite.Conn, do func() error) error {
	if d.grant.MaxSize == 0 || !d.script.write {
		return do()
	}
	before, err := c.Size()
	if err == nil {
		err = do()
	}
	if err != nil {
		return err
	}
	after, err := c.Size()
	if err == nil && after > d.grant.MaxSize && after > before {
		err = d.full("the database would have %d bytes, and it may have %d; raise max_size in [sink.grant.sql], or make room in it", after, d.grant.MaxSize)
	}
	return err
}

// full is answered like a full disk: waiting, or the operator, mends it.
func (d *database) full(format string, a ...any) error {
	d.over = true
	return fail(abi.SQLStatus(sqlite3.FULL), format, a...)
}

// close writes the log back into the database and closes it.
func (d *database) close() error { return d.file.Close() }
