package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger/chain"
)

// TestSQLRefuses runs what a hostile plugin would. Each ends with its status,
// leaves no trace, and the same connection serves the next script.
// TestSQLGrantForReading: a writing transaction is refused whatever it would do,
// a reading one can't write, and reading works.
func TestSQLGrantForReading(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a)"), exec("INSERT INTO v VALUES (7)"))
	g.sink.sql.grant.ReadOnly = true
	for _, sql := range []string{"DROP TABLE v", "INSERT INTO v VALUES (8)", "PRAGMA user_version = 1", "SELECT a FROM v"} {
		g.expect(abi.SQLRefused, "read_only", abi.SQLWrite, exec(sql))
	}
	g.expect(abi.SQLRefused, "mode read", abi.SQLRead, exec("DROP TABLE v"))
	if rows := g.must(abi.SQLRead, query("SELECT a FROM v")); fmt.Sprint(rows) != "[[0 7]]" { // step, value
		t.Errorf("%v", rows)
	}
}

func TestSQLRefuses(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	other := filepath.Join(t.TempDir(), "other.db")
	for _, sql := range chain.Schema {
		g.must(abi.SQLWrite, exec(sql))
	}
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a PRIMARY KEY, b)"), exec("CREATE TABLE seq(a INTEGER PRIMARY KEY AUTOINCREMENT)"),
		exec("INSERT INTO seq VALUES (7)"), exec("INSERT INTO v VALUES (1, 'x')"))
	conn := g.sink.sql.file.Conn
	const forever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) "
	const (
		refused  = abi.SQLRefused
		tooLarge = abi.SQLTooLarge
		timeout  = abi.SQLTimeout
		sqlError = abi.SQLStatus(1)
		tooBig   = abi.SQLStatus(18)
	)
	for _, c := range []struct {
		sql    string
		status abi.SQLStatus
		text   string
	}{
		// Other files.
		{"ATTACH '" + other + "' AS o", refused, "ATTACH"},
		{"ATTACH ':memory:' AS o", refused, "ATTACH"},
		{"ATTACH 'file:" + other + "?mode=rwc' AS o", refused, "ATTACH"},
		{"DETACH main", refused, "DETACH"},
		{"CREATE TRIGGER x AFTER INSERT ON v BEGIN ATTACH '" + other + "' AS o; END", sqlError, "syntax error"},
		{"VACUUM", sqlError, "VACUUM from within a transaction"},
		{"VACUUM INTO '" + other + "'", sqlError, "VACUUM from within a transaction"},
		{"SELECT load_extension('" + other + "')", sqlError, "no such function"},
		{"SELECT readfile('/etc/passwd')", sqlError, "no such function"},
		{"SELECT writefile('" + other + "', 'x')", sqlError, "no such function"},
		{"SELECT edit('x')", sqlError, "no such function"},
		{"SELECT * FROM fsdir('/')", sqlError, "no such table"},
		{"SELECT fts5(1)", refused, "fts5"},
		{"CREATE VIRTUAL TABLE x USING fts5(a)", refused, "virtual table"},
		{"CREATE VIRTUAL TABLE x USING rtree(a,b,c)", refused, "virtual table"},
		{"CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')", refused, "virtual table"},
		{"PRAGMA temp_store_directory = '/tmp'", refused, "temp_store_directory"},
		{"PRAGMA data_store_directory = '/tmp'", refused, "data_store_directory"},
		// The host's transactions.
		{"BEGIN", refused, "transaction"},
		{"COMMIT", refused, "transaction"},
		{"END", refused, "transaction"},
		{"ROLLBACK", refused, "transaction"},
		{"SAVEPOINT s", refused, "SAVEPOINT"},
		{"RELEASE s", refused, "SAVEPOINT"},
		{"ROLLBACK TO s", refused, "SAVEPOINT"},
		{"INSERT OR ROLLBACK INTO v VALUES (1, 'twice')", 1555, "UNIQUE constraint failed: v.a"},
		// The host's settings.
		{"PRAGMA journal_mode = OFF", refused, "journal_mode"},
		{"PRAGMA journal_mode(delete)", refused, "journal_mode"},
		{"PRAGMA main.journal_mode = MEMORY", refused, "journal_mode"},
		{"PRAGMA synchronous = OFF", refused, "synchronous"},
		{"PRAGMA writable_schema = ON", refused, "writable_schema"},
		{"PRAGMA trusted_schema = ON", refused, "trusted_schema"},
		{"PRAGMA temp_store = FILE", refused, "temp_store"},
		{"PRAGMA busy_timeout = 100000000", refused, "busy_timeout"},
		{"PRAGMA wal_autocheckpoint = 0", refused, "wal_autocheckpoint"},
		{"PRAGMA wal_checkpoint(TRUNCATE)", refused, "wal_checkpoint"},
		{"PRAGMA locking_mode = EXCLUSIVE", refused, "locking_mode"},
		{"PRAGMA query_only = OFF", refused, "query_only"},
		{"PRAGMA cache_size = 1000000", refused, "cache_size"},
		{"PRAGMA mmap_size = 1000000000", refused, "mmap_size"},
		{"PRAGMA hard_heap_limit = 0", refused, "hard_heap_limit"},
		{"PRAGMA soft_heap_limit = 0", refused, "soft_heap_limit"},
		{"PRAGMA max_page_count = 1", refused, "max_page_count"},
		{"PRAGMA schema_version = 99", refused, "schema_version"},
		{"PRAGMA encoding = 'UTF-16'", refused, "encoding"},
		{"PRAGMA page_size = 512", refused, "page_size"},
		{"PRAGMA auto_vacuum = FULL", refused, "auto_vacuum"},
		{"PRAGMA incremental_vacuum", refused, "incremental_vacuum"},
		{"PRAGMA secure_delete = OFF", refused, "secure_delete"},
		{"PRAGMA foreign_keys = OFF", refused, "foreign_keys"},
		{"PRAGMA ignore_check_constraints = ON", refused, "ignore_check_constraints"},
		{"PRAGMA cell_size_check = OFF", refused, "cell_size_check"},
		{"PRAGMA recursive_triggers = ON", refused, "recursive_triggers"},
		{"PRAGMA database_list", refused, "database_list"},
		{"PRAGMA threads = 8", refused, "threads"},
		{"PRAGMA optimize", refused, "optimize"},
		{"PRAGMA checksum_verification = OFF", refused, "checksum_verification"},
		{"PRAGMA no_such_pragma = 1", refused, "no_such_pragma"},
		{"SELECT * FROM pragma_database_list", refused, "database_list"},
		{"ANALYZE", refused, "ANALYZE"},
		// SQLite's own tables.
		{"UPDATE sqlite_schema SET sql = 'x'", sqlError, "may not be modified"},
		{"DELETE FROM sqlite_master", sqlError, "may not be modified"},
		{"INSERT INTO sqlite_schema VALUES ('table','x','x',0,'CREATE TABLE x(a)')", sqlError, "may not be modified"},
		{"UPDATE sqlite_sequence SET seq = 1", refused, "sqlite_sequence"},
		{"DELETE FROM sqlite_sequence", refused, "sqlite_sequence"},
		{"INSERT INTO SQLITE_SEQUENCE VALUES ('seq', 1)", refused, "sqlite_sequence"},
		{"DROP TABLE signed_events", refused, "sqlite_sequence"},
		{"SELECT sqlite_rename_table(1,2,3,4,5,6,7)", sqlError, "no such function"},
		{"CREATE TEMP TABLE x(a)", refused, "not granted"},
		{"CREATE TEMP TRIGGER x AFTER INSERT ON v BEGIN SELECT 1; END", refused, "temporary trigger"},
		{"CREATE TEMP VIEW x AS SELECT 1", refused, "not granted"},
		{"CREATE TABLE temp.x(a)", refused, "not granted"},
		{"UPDATE sqlite_temp_schema SET sql = 'x'", sqlError, "may not be modified"},
		// More than one statement.
		{"SELECT 1; SELECT 2", refused, "more than one"},
		{"SELECT 1; COMMIT", refused, "more than one"},
		{"SELECT 1;;", 0, ""},
		// Size and time.
		{"SELECT length(zeroblob(1000000000))", tooBig, "too big"},
		{"SELECT length(randomblob(1000000000))", tooBig, "too big"},
		{"SELECT length(printf('%1000000000d', 1))", 0, ""}, // is NULL
		{"SELECT length(printf('%*d', 100000000, 1))", 0, ""},
		{"SELECT hex(zeroblob(9000000))", tooBig, "too big"},
		{"SELECT replace(hex(zeroblob(1000000)), '0', '0123456789')", tooBig, "too big"},
		{"SELECT length(group_concat(hex(randomblob(500000)))) FROM (" + forever + "SELECT i FROM n LIMIT 20)", tooBig, "too big"},
		{forever + "SELECT count(*) FROM n", timeout, "not finished"},
		{forever + "SELECT i FROM n WHERE i < 0", timeout, "not finished"},
		{"SELECT count(*) FROM (" + forever + "SELECT i FROM n LIMIT 100000) a, (" + forever + "SELECT i FROM n LIMIT 100000) b", timeout, "not finished"},
		{forever + "SELECT i, randomblob(1000000) FROM n ORDER BY 2", tooLarge, "memory"},
		{"CREATE TABLE x AS " + forever + "SELECT i FROM n", timeout, "not finished"},
		{"SELECT 1" + strings.Repeat("+1", 25_000), sqlError, "Expression tree is too large"},
		{"SELECT 1" + strings.Repeat("+1", 100_000), tooLarge, "the limit is"},
		{"SELECT " + strings.Repeat("(", 30_000) + "1" + strings.Repeat(")", 30_000), 0, ""},
		{"SELECT " + strings.Repeat("abs(", 10_000) + "1" + strings.Repeat(")", 10_000), sqlError, "Expression tree is too large"},
		{"SELECT 1" + strings.Repeat(" UNION ALL SELECT 1", 60), sqlError, "too many terms in compound SELECT"},
		{"SELECT max(1" + strings.Repeat(",1", 200) + ")", sqlError, "too many arguments"},
		{"SELECT 'x' LIKE '" + strings.Repeat("%a", 100) + "'", sqlError, "LIKE or GLOB pattern too complex"},
		{"SELECT decimal_mul('9', '9')", refused, "decimal_mul"},
		{"SELECT 'x' REGEXP '(((x*)*)*)*'", refused, "regexp"},
		{"SELECT editdist3('a', 'b')", refused, "editdist3"},
		{"WITH RECURSIVE t(a) AS (VALUES(1) UNION ALL SELECT a+1 FROM t) INSERT INTO v SELECT a, zeroblob(1000000) FROM t", 1555, "UNIQUE"},
		{"SELECT unknown FROM v", sqlError, "no such column"},
		{"this is no SQL", sqlError, "syntax error"},
		{"SELECT \xff\xfe", sqlError, ""},
	} {
		name := c.sql
		if len(name) > 60 {
			name = name[:60]
		}
		if g.sink.sql.grant.TimeLimit = time.Minute; c.status == timeout {
			g.sink.sql.grant.TimeLimit = 300 * time.Millisecond
		}
		began := time.Now()
		status, answer := g.run(abi.SQLWrite, exec("INSERT INTO v VALUES ('undone', NULL)"), exec(c.sql))
		g.sink.sql.grant.TimeLimit = time.Minute
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		if status != c.status || !strings.Contains(string(answer), c.text) {
			t.Errorf("%s: status %#x %s; want %#x with %q", name, uint32(status), answer, uint32(c.status), c.text)
		}
		if status == tooLarge && strings.Contains(string(answer), "memory") {
			conn = nil // out of memory costs the connection
		}
		if status == abi.SQLDone {
			g.must(abi.SQLWrite, exec("DELETE FROM v WHERE a = 'undone'"))
		}
		got := g.must(abi.SQLRead, query("SELECT (SELECT count(*) FROM v), (SELECT seq FROM sqlite_sequence WHERE name = 'seq'), (SELECT count(*) FROM sqlite_schema)"))
		if fmt.Sprint(got) != "[[0 1 7 7]]" {
			t.Errorf("%s: left a trace: %v", name, got)
		}
		if conn == nil {
			conn = g.sink.sql.file.Conn
		}
		if g.sink.sql.file.Conn != conn {
			t.Errorf("%s: the connection was replaced", name)
			conn = g.sink.sql.file.Conn
		}
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another file was made: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(g.sink.sql.grant.Database), "*"))
	if err != nil || len(files) != 3 {
		t.Errorf("files beside the database: %q, %v", files, err)
	}
}

// TestSQLStopsInTheMiddleOfAnInstruction: instr over two long texts is one
// instruction of SQLite's virtual machine and takes days. The meter ends it,
// Go's collector runs beside it, and the next call has a fresh connection.
func TestSQLStopsInTheMiddleOfAnInstruction(t *testing.T) {
	g := emptyDB(t, SQLGrant{TimeLimit: 200 * time.Millisecond})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a)"))
	conn := g.sink.sql.file.Conn
	collected, done := make(chan time.Duration, 1), make(chan struct{})
	go func() {
		longest := time.Duration(0)
		for {
			select {
			case <-done:
				collected <- longest
				return
			default:
				began := time.Now()
				runtime.GC()
				longest = max(longest, time.Since(began))
			}
		}
	}()
	began := time.Now()
	status, answer := g.run(abi.SQLWrite, exec("INSERT INTO v VALUES (1)"), query("SELECT instr(hex(zeroblob(8000000)), hex(zeroblob(4000000)) || 'x')"))
	took := time.Since(began)
	close(done)
	g.sink.sql.grant.TimeLimit = time.Minute
	if longest := <-collected; longest > 5*time.Second {
		t.Errorf("a collection took %s meanwhile", longest)
	}
	if status != abi.SQLTimeout || took > 30*time.Second {
		t.Errorf("status %#x %s after %s", uint32(status), answer, took)
	}
	if got := g.must(abi.SQLWrite, query("SELECT count(*) FROM v"), exec("INSERT INTO v VALUES (1)")); got[0][1] != int64(0) {
		t.Errorf("rows of a stopped script: %v", got)
	}
	if g.sink.sql.file.Conn == conn {
		t.Error("the stopped engine was used again")
	}
}

// TestSQLPermits: what a schema and its reader need is there.
func TestSQLPermits(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	for _, sql := range []string{
		"CREATE TABLE v(a INTEGER PRIMARY KEY, b TEXT) STRICT", "CREATE UNIQUE INDEX vb ON v(b)",
		"CREATE VIEW w AS SELECT b FROM v", "CREATE TABLE log(b)", "CREATE TRIGGER tr AFTER INSERT ON v BEGIN INSERT INTO log VALUES (new.b); END",
		"INSERT INTO v(b) VALUES ('x') ON CONFLICT DO NOTHING", "UPDATE v SET b = 'y' WHERE b = 'x'", "ALTER TABLE log ADD COLUMN c", "ALTER TABLE log RENAME TO journal", "ALTER TABLE journal RENAME COLUMN c TO d",
		"ALTER TABLE journal DROP COLUMN d", "CREATE TABLE log(a)",
		"PRAGMA application_id = 5", "PRAGMA user_version = 6", "PRAGMA table_info(v)", "SELECT * FROM pragma_index_list('v')", "PRAGMA integrity_check",
		"SELECT json_extract('{\"a\":1}', '$.a'), strftime('%s', 0), row_number() OVER () FROM v", "REINDEX",
		"DELETE FROM v", "DROP TRIGGER tr", "DROP VIEW w", "DROP INDEX vb", "DROP TABLE log",
	} {
		if status, answer := g.run(abi.SQLWrite, exec(sql)); status != abi.SQLDone {
			t.Errorf("%s: %#x %s", sql, uint32(status), answer)
		}
	}
	got := g.must(abi.SQLRead, query("PRAGMA application_id"), query("PRAGMA user_version"), query("PRAGMA synchronous"), query("SELECT b FROM journal"))
	if want := "[[0 5] [1 6] [2 2] [3 x]]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// TestSQLRefusesInsideTriggers: what a trigger does is refused when it is
// about to be done, also for a statement that was prepared before the trigger
// was there.
func TestSQLRefusesInsideTriggers(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a INTEGER PRIMARY KEY AUTOINCREMENT, b)"))
	insert := exec("INSERT INTO v(b) VALUES (1)")
	g.must(abi.SQLWrite, insert)
	for _, body := range []string{"UPDATE sqlite_sequence SET seq = 1", "SELECT decimal('1')", "SELECT regexp('a', 'b')"} {
		g.must(abi.SQLWrite, exec("CREATE TRIGGER x AFTER INSERT ON v BEGIN "+body+"; END"))
		if status, answer := g.run(abi.SQLWrite, insert); status != abi.SQLRefused || !strings.Contains(string(answer), "granted") && !strings.Contains(string(answer), "belongs to SQLite") {
			t.Errorf("%s: %#x %s", body, uint32(status), answer)
		}
		g.must(abi.SQLWrite, exec("DROP TRIGGER x"))
		g.must(abi.SQLWrite, insert)
	}
	if got := g.must(abi.SQLRead, query("SELECT count(*), max(a) FROM v")); fmt.Sprint(got) != "[[0 4 4]]" {
		t.Errorf("%v", got)
	}
}

// TestSQLCancelledCallEnds: the end of the call's context ends the script,
// and the next call works.
func TestSQLCancelledCallEnds(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a)"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	status, answer := g.runContext(ctx, abi.SQLWrite, exec("INSERT INTO v VALUES (1)"), query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"))
	if took := time.Since(began); status != abi.SQLTimeout || took > 10*time.Second {
		t.Errorf("status %#x %s after %s", uint32(status), answer, took)
	}
	if status, answer := g.runContext(ctx, abi.SQLWrite, exec("INSERT INTO v VALUES (2)")); status != abi.SQLTimeout {
		t.Errorf("a call that begins after its end: %#x %s", uint32(status), answer)
	}
	if got := g.must(abi.SQLRead, query("SELECT count(*) FROM v")); got[0][1] != int64(0) {
		t.Errorf("rows of a cancelled script: %v", got)
	}
}
