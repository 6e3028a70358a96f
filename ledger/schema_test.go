package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/ledger/chain"
)

// writeSchema edits the schema table as whoever may write the file can.
func writeSchema(t *testing.T, path string, sql ...string) {
	t.Helper()
	c, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.DB.Config(sqlite3.DBCONFIG_DEFENSIVE, false); err == nil {
		for _, s := range append([]string{"PRAGMA writable_schema = ON"}, sql...) {
			if err = c.Protect(func() error { return c.Exec(s) }); err != nil {
				break
			}
		}
	}
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
}

// Each object of the schema is the ledger's own, allowed, one that could be
// dropped, or one by which rows may read otherwise.
func TestLedgerSchema(t *testing.T) {
	const (
		entry  = "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) SELECT "
		retype = "UPDATE sqlite_schema SET sql = replace(sql, %s) WHERE name = '%s'"
	)
	change := func(name, from, to string) string { return fmt.Sprintf(retype, "'"+from+"', '"+to+"'", name) }
	for name, c := range map[string]struct {
		sql                       string
		changed, foreign, allowed string // parts of what is said
		edit                      bool   // of the schema table itself
	}{
		"sound":            {sql: "SELECT 1"},
		"user index":       {sql: `CREATE INDEX idx_user_a ON signed_events(agent_id DESC, timestamp); CREATE INDEX "idx_user_ b" ON signed_events(sequence)`, allowed: "index idx_user_a index idx_user_ b"},
		"litestream":       {sql: "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER UNIQUE); CREATE INDEX mine ON _litestream_seq(seq)", allowed: "table _litestream_seq index sqlite_autoindex__litestream_seq_1 index mine"},
		"table":            {sql: "CREATE TABLE t(a UNIQUE, b); CREATE INDEX i ON t(b)", foreign: "table t: DROP TABLE t index i on t: DROP INDEX i"},
		"odd name":         {sql: "CREATE TABLE \"a\"\"b\x1b[2J\"(x)", foreign: `table "a\"b\x1b[2J": DROP TABLE "\"a\"\"b\x1b[2J\""`},
		"view":             {sql: "CREATE VIEW v AS SELECT * FROM signed_events", foreign: "view v: DROP VIEW v"},
		"trigger on view":  {sql: "CREATE VIEW v AS SELECT 1; CREATE TRIGGER x INSTEAD OF INSERT ON v BEGIN SELECT 1; END", foreign: "view v: DROP VIEW v trigger x on v: DROP TRIGGER x"},
		"virtual table":    {sql: "CREATE VIRTUAL TABLE _litestream_f USING fts5(a)", foreign: "table _litestream_f: DROP TABLE _litestream_f", allowed: "table _litestream_f_data"},
		"shadowed pragma":  {sql: "CREATE TABLE pragma_index_xinfo(a); CREATE TABLE pragma_table_xinfo(a)", foreign: "table pragma_index_xinfo: DROP"},
		"index":            {sql: "CREATE INDEX mine ON signed_events(agent_id)", changed: "index mine on signed_events: DROP INDEX mine (an index of your own is named idx_user_"},
		"unique":           {sql: "CREATE UNIQUE INDEX idx_user_a ON signed_events(row_hash)", changed: "DROP INDEX idx_user_a"},
		"partial":          {sql: "CREATE INDEX idx_user_a ON signed_events(agent_id) WHERE sequence > 3", changed: "DROP INDEX idx_user_a"},
		"expression":       {sql: "CREATE INDEX idx_user_a ON signed_events(agent_id, length(payload))", changed: "DROP INDEX idx_user_a"},
		"collation":        {sql: "CREATE INDEX idx_user_a ON signed_events(agent_id COLLATE NOCASE)", changed: "DROP INDEX idx_user_a"},
		"other table":      {sql: "CREATE INDEX idx_user_a ON queue_positions(position)", changed: "DROP INDEX idx_user_a"},
		"litestream index": {sql: "CREATE INDEX _litestream_a ON signed_events(agent_id)", changed: "DROP INDEX _litestream_a"},
		"trigger":          {sql: "CREATE TRIGGER x AFTER INSERT ON signed_events BEGIN SELECT 1; END", changed: "trigger x on signed_events: DROP TRIGGER x"},
		"user trigger":     {sql: "CREATE INDEX idx_user_x ON signed_events(agent_id); CREATE TRIGGER idx_user_x AFTER INSERT ON signed_events BEGIN SELECT 1; END", changed: "DROP TRIGGER idx_user_x"},
		"statistics":       {sql: "ANALYZE", changed: "table sqlite_stat1: DROP TABLE sqlite_stat1"},
		"no index":         {sql: "DROP INDEX idx_signed_events_id", changed: "index idx_signed_events_id is missing: without it a second delivery would be a second row: CREATE UNIQUE INDEX"},
		"not unique":       {sql: "DROP INDEX idx_signed_events_id; CREATE INDEX idx_signed_events_id ON signed_events(id)", changed: "DROP INDEX idx_signed_events_id; CREATE UNIQUE INDEX"},
		"no positions":     {sql: "DROP TABLE queue_positions", changed: "table queue_positions is missing: restore the ledger from a backup"},
		"view as ours":     {sql: "DROP TABLE queue_positions; CREATE VIEW queue_positions AS SELECT x'00' AS queue, 1 AS position", changed: "view queue_positions is not as a ledger has it: restore"},
		"generated":        {edit: true, sql: change("signed_events", "payload TEXT NOT NULL", "payload TEXT NOT NULL AS (id)"), changed: "table signed_events is not as a ledger has it: restore"},
		"collated column":  {edit: true, sql: change("signed_events", "id TEXT NOT NULL", "id TEXT NOT NULL COLLATE NOCASE"), changed: "table signed_events is not as a ledger has it"},
		"default":          {edit: true, sql: change("signed_events", "unsigned", "signed"), changed: "table signed_events is not as a ledger has it"},
		"constraint":       {edit: true, sql: change("signed_events", "row_hash BLOB NOT NULL", "row_hash BLOB NOT NULL CHECK (length(row_hash) = 32)"), changed: "table signed_events is not as a ledger has it"},
		"a space":          {edit: true, sql: change("signed_events", "  id TEXT", " id TEXT"), changed: "table signed_events is not as a ledger has it"},
		"a second table":   {edit: true, sql: entry + "'table', 'SIGNED_EVENTS', 'SIGNED_EVENTS', rootpage, 'CREATE TABLE IF NOT EXISTS SIGNED_EVENTS(a)' FROM sqlite_schema WHERE name = 'signed_events'", changed: "table SIGNED_EVENTS is not as a ledger has it"},
		"index rerooted":   {edit: true, sql: entry + "'index', 'idx_signed_events_id', 'x', " + "rootpage, NULL FROM sqlite_schema WHERE name = 'queue_positions'", changed: "index idx_signed_events_id is not as a ledger has it: restore"},
		"a name cut short": {edit: true, sql: entry + "'index', 'mine' || char(0, 97), 'signed_events' || char(0, 98), rootpage, 'CREATE INDEX mine ON signed_events(id)' FROM sqlite_schema WHERE name = 'queue_positions'", changed: "index mine on signed_events: DROP INDEX mine"},
		"index on schema":  {edit: true, sql: entry + "'index', 'x', 'sqlite_master', rootpage, 'CREATE INDEX x ON sqlite_master(type, name, tbl_name, sql)' FROM sqlite_schema WHERE name = 'idx_signed_events_id'", changed: "index x on sqlite_master: DROP INDEX x"},
		"index on counter": {edit: true, sql: entry + "'index', 'x', 'sqlite_sequence', rootpage, 'CREATE INDEX x ON sqlite_sequence(name, seq)' FROM sqlite_schema WHERE name = 'idx_signed_events_id'", changed: "index x on sqlite_sequence: DROP INDEX x"},
		"counter gone":     {edit: true, sql: "DELETE FROM sqlite_schema WHERE name = 'sqlite_sequence'", changed: "table sqlite_sequence is missing: restore"},
	} {
		t.Run(name, func(t *testing.T) {
			path := testLedger(t, 3)
			if c.edit {
				writeSchema(t, path, c.sql)
			} else if err := alter(path, c.sql); err != nil {
				t.Fatal(err)
			}
			l, err := Open(path)
			if c.changed != "" {
				var format *FormatError
				if !errors.As(err, &format) || !format.Changed || !strings.Contains(err.Error(), c.changed) {
					t.Errorf("%v, want %q", err, c.changed)
				}
				if err != nil && strings.Contains(err.Error(), "is not as") && strings.Contains(err.Error(), "is missing") {
					t.Errorf("said twice: %v", err)
				}
				if err == nil {
					_ = l.Close()
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for got, want := range map[*[]string]string{&l.foreign: c.foreign, &l.allowed: c.allowed} {
				if text := strings.Join(*got, " "); !strings.HasPrefix(text, want) || (want == "") != (text == "") {
					t.Errorf("%q, want %q", text, want)
				}
			}
			readAll(t, l, 3)
		})
	}
}

// Whatever a file holds, no more than some lines are said of it.
func TestLedgerSchemaOfManyObjects(t *testing.T) {
	path := testLedger(t, 0)
	var sql []string
	for i := range 30 {
		sql = append(sql, fmt.Sprintf("CREATE TRIGGER x%d AFTER INSERT ON signed_events BEGIN SELECT 1; END", i))
	}
	if err := alter(path, sql...); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.HasSuffix(err.Error(), "; and 22 more") || strings.Count(err.Error(), ";") != 8 {
		t.Errorf("%v", err)
	}
}

// In a file of another encoding a text is not the bytes that are stored.
func TestLedgerEncoding(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	if err := sqlite.CreateEmpty(path); err != nil {
		t.Fatal(err)
	}
	if err := alter(path, append([]string{"PRAGMA encoding = 'UTF-16le'"}, chain.Schema...)...); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "its encoding is UTF-16le, wanted UTF-8") {
		t.Errorf("%v", err)
	}
}

// A schema that changes under a view is compared again when the view is renewed.
func TestLedgerSchemaChangesUnderAView(t *testing.T) {
	path := testLedger(t, 3)
	g := newWriter(t, path)
	g.appendRows(4, 4)
	l := openLedger(t, path)
	if err := alter(path, "CREATE INDEX idx_user_a ON signed_events(agent_id)"); err != nil {
		t.Fatal(err)
	}
	if err := l.Renew(t.Context()); err != nil || !slices.Equal(l.allowed, []string{"index idx_user_a"}) {
		t.Errorf("%q, %v", l.allowed, err)
	}
	if err := alter(path, "CREATE INDEX idx_user_b ON signed_events(agent_id)"); err != nil {
		t.Fatal(err)
	}
	if err := l.Renew(t.Context()); err != nil || !slices.Equal(l.allowed, []string{"index idx_user_a", "index idx_user_b"}) {
		t.Errorf("%q, %v", l.allowed, err)
	}
	readAll(t, l, 4)
	if err := alter(path, "CREATE INDEX mine ON signed_events(agent_id)"); err != nil {
		t.Fatal(err)
	}
	if err := l.Renew(t.Context()); err == nil || !strings.Contains(err.Error(), "DROP INDEX mine") {
		t.Errorf("%v", err)
	}
}

// Every statement that reads the ledger, as it really runs, reads the table's own
// b-tree, though an index covers all its columns; but for the one that looks for
// an id. The plans are SQLite's own.
func TestLedgerPlans(t *testing.T) {
	ctx := t.Context()
	path := testLedger(t, 20)
	if err := alter(path, "CREATE INDEX idx_user_all ON signed_events(sequence, "+strings.ReplaceAll(chain.Columns, " sequence,", "")+")",
		"CREATE INDEX idx_user_id ON signed_events(id, sequence)"); err != nil {
		t.Fatal(err)
	}
	l := openLedger(t, path)
	statements := map[string]bool{}
	err := l.r.Conn.DB.Trace(sqlite3.TRACE_STMT, func(_ sqlite3.TraceEvent, _, sql any) error {
		statements[sql.(string)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, l, 20) // Rows, Head, HighWater
	var page rowPage
	_, last := l.lastSequence(ctx)
	_, tail := l.Tail(ctx, 3)
	_, hash := l.HashAt(ctx, 7)
	_, find := l.Lookup(ctx, "id-0007")
	_, positions := l.Positions(ctx)
	_, integrity := l.integrity(ctx)
	check := l.r.Do(ctx, l.check)
	if err := errors.Join(last, tail, hash, find, positions, integrity, check, l.readPage(ctx, 0, 5, &page), l.r.Conn.DB.Trace(0, nil)); err != nil {
		t.Fatal(err)
	}
	plans := 0
	for sql := range statements {
		if strings.HasPrefix(sql, "PRAGMA") || strings.HasPrefix(sql, "--") {
			continue
		}
		plans++
		byIndex := strings.Contains(sql, "INDEXED BY idx_signed_events_id")
		if !byIndex && !strings.Contains(sql, "NOT INDEXED") {
			t.Errorf("%s: does not say what it reads", sql)
		}
		err := l.r.Do(ctx, func(c *sqlite.Conn) error {
			return c.Each("EXPLAIN QUERY PLAN "+sql, nil, func(s *sqlite.Stmt) error {
				plan := s.Text(3)
				if strings.Contains(plan, "INDEX ") != byIndex && !strings.Contains(plan, "USING INTEGER PRIMARY KEY") && plan != "SEARCH signed_events" && plan != "SCAN signed_events" ||
					strings.Contains(plan, "idx_user") || strings.Contains(plan, "TEMP B-TREE") {
					t.Errorf("%s: %s", sql, plan)
				}
				return nil
			})
		})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if plans < 10 {
		t.Errorf("%d statements were seen", plans)
	}
}

// damage makes the index disagree with the table: SQLite does not know of it while
// sql runs.
func damage(t *testing.T, path string, sql ...string) {
	t.Helper()
	writeSchema(t, path, "CREATE TABLE saved AS SELECT rootpage FROM sqlite_schema WHERE name = 'idx_signed_events_id'",
		"DELETE FROM sqlite_schema WHERE name = 'idx_signed_events_id'")
	if err := alter(path, sql...); err != nil {
		t.Fatal(err)
	}
	writeSchema(t, path, "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) SELECT 'index', 'idx_signed_events_id', 'signed_events', rootpage, '"+chain.Schema[1]+"' FROM saved")
	if err := alter(path, "DROP TABLE saved"); err != nil {
		t.Fatal(err)
	}
}

func TestIndexThatLies(t *testing.T) {
	for name, c := range map[string]struct{ sql, says string }{
		"another id":  {"UPDATE signed_events SET id = 'forged' WHERE sequence = 7", "row 7 missing from index idx_signed_events_id"},
		"swapped ids": {"UPDATE signed_events SET id = CASE sequence WHEN 7 THEN 'id-0008' ELSE 'id-0007' END WHERE sequence IN (7, 8)", "row 7 missing from index"},
		"id twice":    {"UPDATE signed_events SET id = 'id-0006' WHERE sequence = 7", "row 7 missing from index"},
		"row gone":    {"DELETE FROM signed_events WHERE sequence = 7", "wrong # of entries in index idx_signed_events_id"},
	} {
		t.Run(name, func(t *testing.T) {
			path := testLedger(t, 10)
			damage(t, path, c.sql)
			l := openLedger(t, path)
			problems, err := l.integrity(t.Context())
			if err != nil || !strings.Contains(strings.Join(problems, "\n"), c.says) {
				t.Errorf("%q, %v, want %q", problems, err, c.says)
			}
			// What the index says of a row is not believed.
			var row *RowError
			if r, err := l.Lookup(t.Context(), "id-0007"); !errors.As(err, &row) || row.Sequence != 7 {
				t.Errorf("looked up: %+v, %v", r, err)
			}
		})
	}
}

// An id in two rows, each with its entry in an index that is not unique: made as
// one, then called one.
func TestIDTwice(t *testing.T) {
	path := testLedger(t, 10)
	if err := alter(path, "DROP INDEX idx_signed_events_id", "UPDATE signed_events SET id = 'id-0006' WHERE sequence = 7", "CREATE INDEX idx_signed_events_id ON signed_events(id)"); err != nil {
		t.Fatal(err)
	}
	writeSchema(t, path, "UPDATE sqlite_schema SET sql = '"+chain.Schema[1]+"' WHERE name = 'idx_signed_events_id'")
	problems, err := openLedger(t, path).integrity(t.Context())
	if err != nil || !strings.Contains(strings.Join(problems, "\n"), "non-unique entry in index idx_signed_events_id") {
		t.Errorf("%q, %v", problems, err)
	}
}

// Two entries of the index change places: the separator above its last page, and
// the first of that page. SQLite may begin a search where the last one ended, and
// so find entries that no search from the root finds; that each entry's next one
// is greater is what tells.
func TestIndexOutOfOrder(t *testing.T) {
	path := testLedger(t, 600)
	root := 0
	l := openLedger(t, path)
	err := l.r.Do(t.Context(), func(c *sqlite.Conn) error {
		number, err := c.Value("SELECT rootpage FROM sqlite_schema WHERE name = 'idx_signed_events_id'")
		if err == nil {
			root, err = strconv.Atoi(number)
		}
		return err
	})
	file, readErr := os.ReadFile(path)
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	page := func(n int) []byte { return file[(n-1)*4096 : n*4096] }
	p := page(root)
	last := page(int(be.Uint32(p[8:])))
	if p[0] != 2 || last[0] != 10 {
		t.Fatalf("pages of kind %d and %d, wanted one above its leaves", p[0], last[0])
	}
	// In the upper page the cell has a page's number before it. Both have a length,
	// a header, the id and the row's number, of one size.
	separator := p[be.Uint16(p[12+2*(be.Uint16(p[3:])-1):])+4:]
	first := last[be.Uint16(last[8:]):]
	if separator[0] != first[0] {
		t.Fatal("the cells differ in size")
	}
	size := 1 + int(first[0])
	keep := bytes.Clone(first[:size])
	copy(first, separator[:size])
	copy(separator, keep)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if problems, err := openLedger(t, path).integrity(t.Context()); err != nil || !slices.Contains(problems, "non-unique entry in index idx_signed_events_id") {
		t.Errorf("%q, %v", problems, err)
	}
}

func TestIntegrityEndsWithItsContext(t *testing.T) {
	l := openLedger(t, testLedger(t, 3))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if problems, err := l.integrity(ctx); err == nil || problems != nil {
		t.Errorf("%q, %v", problems, err)
	}
}

// columnTypes has "name TYPE" of every column of the table.
func columnTypes() (list []string) {
	for line := range strings.Lines(chain.Schema[0]) {
		if f := strings.Fields(line); strings.HasPrefix(line, "  ") {
			list = append(list, f[0]+" "+strings.TrimSuffix(f[1], ","))
		}
	}
	return list
}
