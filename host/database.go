package host

import "time"

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
}

// database serves the sql capability of one sink.
type database struct {
	grant  SQLGrant
	file   dbFile
	stmts  map[stmtKey]*dbStmt // of the open connection
	script script
	answer answer
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
	d := &database{grant: g, stmts: make(map[stmtKey]*dbStmt)}
	// The host's own placeholders come on top of the text of a many step.
	room := g.MaxSQL + rowsPerStatement*(2*maxColumns+4)
	d.file = dbFile{
		path: g.Database, create: g.Create, cache: cache,
		options: dbOptions{busy: g.BusyTimeout, maxSQL: room, authorize: authorize},
		opened:  func(*dbConn) error { clear(d.stmts); return nil },
	}
	return d
}

// close writes the log back into the database and closes it.
func (d *database) close() error { return d.file.close() }
