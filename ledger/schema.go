package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/ledger/chain"
)

// object is a row of SQLite's schema table.
type object struct{ kind, name, table, sql string }

// idIndex keeps ids apart.
const idIndex = "idx_signed_events_id"

// ownObjects are those of a ledger. SQLite knows of a table or an index nothing
// but this text: columns, their types, defaults and constraints, collations,
// generated columns, STRICT and WITHOUT ROWID all stand in it. So a ledger whose
// texts are these, byte for byte, has these tables.
var ownObjects = []object{
	{"table", chain.Table, chain.Table, chain.Schema[0]},
	{"index", idIndex, chain.Table, chain.Schema[1]},
	{"table", "queue_positions", "queue_positions", chain.Schema[2]},
	{"table", "sqlite_sequence", "sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)"}, // AUTOINCREMENT makes it
}

// Prefixes of what a ledger may hold besides: indexes that its operator made for
// questions of his own, and what Litestream keeps its place in.
const (
	userIndex  = "idx_user_"
	litestream = "_litestream_"
)

// check compares the file's format and schema with package ledger/chain's. It comes
// before every other statement: how SQLite runs one is decided by the schema, by
// an index that covers it for example, which need not say what the table says.
//
// The schema table itself can't be redefined, and is read from its own b-tree as
// SQLite does when it loads the schema: an index on it can be forged too.
func (l *Reader) check(c *sqlite.Conn) error {
	for _, p := range []struct{ pragma, want string }{
		{"application_id", strconv.Itoa(chain.ApplicationID)}, {"user_version", strconv.Itoa(chain.SchemaVersion)}, {"encoding", "UTF-8"},
	} {
		if v, err := c.Value("PRAGMA " + p.pragma); err != nil {
			return err
		} else if v != p.want {
			return &FormatError{Path: l.path, Reason: fmt.Sprintf("its %s is %s, wanted %s", p.pragma, v, p.want)}
		}
	}
	var others []object
	own := make(map[object]bool)
	err := c.Each("SELECT type, name, tbl_name, sql FROM main.sqlite_master NOT INDEXED", nil, func(s *sqlite.Stmt) error {
		o := object{cut(s.Text(0)), cut(s.Text(1)), cut(s.Text(2)), s.Text(3)}
		for _, wanted := range ownObjects {
			if o == wanted {
				own[o] = true
				return nil
			}
		}
		others = append(others, o)
		return nil
	})
	if err != nil {
		return err
	}
	var changed []string
	l.foreign, l.allowed = nil, nil
	for _, o := range others {
		list := &l.foreign
		switch allowed, err := l.isAllowed(c, o); {
		case err != nil:
			return err
		case allowed:
			l.allowed = append(l.allowed, o.kind+" "+shown(o.name))
			continue
		case o.goesWithItsTable():
			continue
		case o.touchesOwn():
			list = &changed
		}
		*list = append(*list, o.String()+": "+o.mend())
	}
	for _, o := range ownObjects {
		if !own[o] && !named(others, o) {
			changed = append(changed, fmt.Sprintf("%s %s is missing: %s", o.kind, o.name, o.mend()))
		}
	}
	if len(changed) > 0 {
		return &FormatError{Path: l.path, Reason: strings.Join(some(changed), "; "), Changed: true}
	}
	l.foreign, l.allowed = some(l.foreign), some(l.allowed)
	l.version, err = c.Value("PRAGMA schema_version")
	return err
}

// checkAgain checks a schema that is not the one that was checked. SQLite itself
// looks at the same number.
func (l *Reader) checkAgain(c *sqlite.Conn) error {
	if v, err := c.Value("PRAGMA schema_version"); err != nil || v == l.version {
		return err
	}
	return l.check(c)
}

// isAllowed tells whether an object that is not the ledger's own may be there.
func (l *Reader) isAllowed(c *sqlite.Conn, o object) (bool, error) {
	if strings.HasPrefix(o.table, litestream) {
		return o.kind == "index" || o.kind == "table" && o.name == o.table && strings.HasPrefix(o.sql, "CREATE TABLE "), nil
	}
	if o.kind != "index" || !strings.HasPrefix(o.name, userIndex) || o.sql == "" {
		return false, nil
	}
	plain := false
	err := c.Each("PRAGMA main.index_list("+chain.Table+")", nil, func(s *sqlite.Stmt) error {
		if s.Text(1) == o.name {
			plain = s.Integer(2) == 0 && s.Integer(4) == 0 // neither unique nor partial
		}
		return nil
	})
	if err != nil || !plain {
		return false, err
	}
	err = c.Each("PRAGMA main.index_xinfo("+quoted(o.name)+")", nil, func(s *sqlite.Stmt) error {
		// A column, -1 the sequence, -2 an expression.
		if column, collation := s.Integer(1), s.Text(4); column < -1 || collation != "BINARY" {
			plain = false
		}
		return nil
	})
	return plain, err
}

// goesWithItsTable tells whether it is an index that SQLite made for a constraint
// of a table of others, which is named itself.
func (o object) goesWithItsTable() bool {
	return o.kind == "index" && o.sql == "" && !isOwn(o.table) && strings.HasPrefix(o.name, "sqlite_autoindex_"+o.table+"_")
}

// touchesOwn tells whether an object may have rows of the ledger read otherwise
// than they are stored: it has the name of one of its objects, or stands on one
// of its tables; or it is SQLite's, such as statistics, which decide what is read.
func (o object) touchesOwn() bool {
	return isOwn(o.name) || isOwn(o.table) || hasPrefixFold(o.name, "sqlite_") || hasPrefixFold(o.table, "sqlite_")
}

func isOwn(name string) bool {
	for _, o := range ownObjects {
		if strings.EqualFold(name, o.name) {
			return true
		}
	}
	return false
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// named tells whether an object with the name of o is in the list.
func named(list []object, o object) bool {
	for _, other := range list {
		if strings.EqualFold(other.name, o.name) {
			return true
		}
	}
	return false
}

func (o object) String() string {
	switch {
	case isOwn(o.name):
		return fmt.Sprintf("%s %s is not as a ledger has it", shown(o.kind), shown(o.name))
	case o.table != o.name:
		return fmt.Sprintf("%s %s on %s", shown(o.kind), shown(o.name), shown(o.table))
	}
	return shown(o.kind) + " " + shown(o.name)
}

// mend says how to get rid of what an object does.
func (o object) mend() string {
	drop := "DROP " + strings.ToUpper(o.kind) + " " + shown(quoted(o.name))
	switch {
	case o == ownObjects[1]:
		return "without it a second delivery would be a second row: " + o.sql
	case o.kind == "index" && o.name == idIndex && o.sql != "":
		return "without it a second delivery would be a second row: " + drop + "; " + chain.Schema[1]
	case isOwn(o.name) || o.sql == "":
		return "restore the ledger from a backup"
	case o.kind == "index" && o.table == chain.Table:
		return drop + " (an index of your own is named " + userIndex + "…, on columns alone and not unique)"
	}
	return drop
}

// cut cuts a text where SQLite ends one of the schema.
func cut(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

// quoted is a name as SQL has it.
func quoted(name string) string {
	plain := name != ""
	for i, r := range name {
		plain = plain && (r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && r >= '0' && r <= '9')
	}
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// shown makes a text of the file fit for a terminal and a log.
func shown(text string) string {
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	for _, r := range text {
		if !strconv.IsPrint(r) || !utf8.ValidString(text) {
			return strconv.Quote(text)
		}
	}
	return text
}

// some shortens a list, of which a file may hold any length.
func some(list []string) []string {
	const most = 8
	if more := len(list) - most; more > 0 {
		return append(list[:most:most], fmt.Sprintf("and %d more", more))
	}
	return list
}

// Foreign names the objects in the file that are not a ledger's and not on its
// tables, each with the statement that drops it: they change no row, but do not
// belong there. Those that may be there are in the report of [Verify]: indexes
// idx_user_… on columns of the ledger's table, and tables _litestream_….
func (l *Reader) Foreign() []string { return l.foreign }

// integrity has SQLite check its own structures: every page, every index against
// its table. It returns what it found, at most 100 lines; nil is sound.
//
// # Why each id then stands in one row, and is found
//
// PRAGMA integrity_check walks the table's b-tree, whose row numbers must rise
// from page to page, and looks each row up in each index: the entry of this id and
// this row number must be there. It counts rows and entries, so that there is one
// entry for each row and none besides. And in an index that is UNIQUE the next
// entry in the tree must be greater. As this is asked of every entry, the tree is
// in order from its first to its last, every id is found by a search, and no two
// rows have one. No memory grows with the rows.
func (l *Reader) integrity(ctx context.Context) (problems []string, err error) {
	err = l.r.Do(ctx, func(c *sqlite.Conn) error {
		problems = nil
		return c.Each("PRAGMA main.integrity_check(100)", nil, func(s *sqlite.Stmt) error {
			if v := s.Text(0); v != "ok" {
				problems = append(problems, shown(strings.ReplaceAll(v, "\n", " ")))
			}
			return nil
		})
	})
	if err == nil {
		return problems, nil
	}
	err = l.blame(err, 0)
	if damaged := (*RowError)(nil); errors.As(err, &damaged) {
		return []string{damaged.Reason}, nil
	}
	return nil, err
}
