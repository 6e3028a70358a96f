package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

func TestSQLValuesComeBackAsTheyWere(t *testing.T) {
	for _, encoding := range []string{"UTF-8", "UTF-16le"} {
		t.Run(encoding, func(t *testing.T) {
			g := emptyDB(t, SQLGrant{})
			// The encoding of a file is fixed with its first table, and not
			// the guest's business.
			g.must(abi.SQLRead)
			c := g.sink.sql.file.Conn
			if err := c.Protect(func() error { return c.Exec("PRAGMA encoding = '" + encoding + "'") }); err != nil {
				t.Fatal(err)
			}
			g.must(abi.SQLWrite, exec("CREATE TABLE v(i INTEGER PRIMARY KEY, v)"))
			if got := g.must(abi.SQLRead, query("PRAGMA encoding")); got[0][1] != encoding {
				t.Fatalf("encoding %v", got)
			}
			values := []any{nil, int64(0), int64(math.MinInt64), int64(math.MaxInt64), 1.5, math.Inf(-1), math.SmallestNonzeroFloat64, "", "ä\u2028\U0001f600",
				strings.Repeat("x", 20000), []byte{}, []byte{0, 1, 0xff}, bytes.Repeat([]byte{7}, 30000)}
			for i, v := range values {
				g.must(abi.SQLWrite, exec("INSERT INTO v VALUES (?, ?)", int64(i), v))
			}
			for i, v := range values {
				want := [][]any{{0, int64(i), v}}
				if got := g.must(abi.SQLRead, query("SELECT i, v FROM v WHERE i = ?", int64(i))); !reflect.DeepEqual(got, want) {
					t.Errorf("value %d: got %.60v, want %.60v", i, got, want)
				}
			}
		})
	}
}

// TestSQLAnswerIsWhatTheSDKReads reads an answer with the SDK that plugins
// use.
func TestSQLAnswerIsWhatTheSDKReads(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	status, answer := g.run(abi.SQLRead, query("SELECT 7, NULL, 'text'"), query("SELECT x'0102' UNION ALL SELECT x''"))
	if status != abi.SQLDone {
		t.Fatalf("%#x %s", status, answer)
	}
	r := guest.NewRows(answer)
	if step, n, ok := r.Next(); step != 0 || n != 3 || !ok {
		t.Fatal(step, n, ok)
	}
	if a, b, c := r.Int(), r.Bytes(), r.Bytes(); a != 7 || b != nil || string(c) != "text" {
		t.Error(a, b, c)
	}
	for _, want := range []string{"\x01\x02", ""} {
		if step, n, ok := r.Next(); step != 1 || n != 1 || !ok {
			t.Fatal(step, n, ok)
		}
		if got := string(r.Bytes()); got != want {
			t.Errorf("%q", got)
		}
	}
	if _, _, ok := r.Next(); ok {
		t.Error("a row too many")
	}
}

func TestSQLManyBindsEveryNumberOfRows(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a INTEGER, b TEXT)"))
	total := int64(0)
	for n := range 50 {
		rows := make([][]any, n)
		for i := range rows {
			rows[i] = []any{int64(n), fmt.Sprint(i)}
		}
		g.must(abi.SQLWrite, testStep{abi.SQLMany, "INSERT INTO v(a, b) VALUES", rows})
		total += int64(n)
		got := g.must(abi.SQLRead, query("SELECT count(*), count(DISTINCT b), (SELECT count(*) FROM v) FROM v WHERE a = ?", int64(n)))
		if want := [][]any{{0, int64(n), int64(n), total}}; !reflect.DeepEqual(got, want) {
			t.Fatalf("%d rows: got %v, want %v", n, got, want)
		}
	}
	if n := len(g.sink.sql.stmts); n > maxStatements {
		t.Errorf("%d prepared statements are kept", n)
	}
}

// TestSQLManyTakesLargeRows: what a kept statement holds must not add up.
func TestSQLManyTakesLargeRows(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(b)"))
	big := bytes.Repeat([]byte{1}, 60<<10)
	for n := range 40 {
		rows := make([][]any, n+1)
		for i := range rows {
			rows[i] = []any{big}
		}
		g.must(abi.SQLWrite, testStep{abi.SQLMany, "INSERT INTO v VALUES", rows})
	}
}

// TestSQLManyAllocatesNothingPerRow counts the allocations of a whole call.
func TestSQLManyAllocatesNothingPerRow(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a INTEGER, b TEXT, c BLOB, d REAL, e)"))
	allocations := func(n int) float64 {
		rows := make([][]any, n)
		for i := range rows {
			rows[i] = []any{int64(i), "a text of more than thirty-two bytes", make([]byte, 300), 1.5, nil}
		}
		l := layout{base: 1024}
		at := l.script([]testStep{{abi.SQLMany, "INSERT INTO v VALUES", rows}})
		g.mod.Memory().Write(l.base, l.b)
		return testing.AllocsPerRun(20, func() {
			if status, answer := g.call(context.Background(), abi.SQLWrite, at, 1, 512, 500); status != abi.SQLDone {
				t.Fatalf("%#x %s", uint32(status), answer)
			}
		})
	}
	few, many := allocations(16), allocations(1024)
	if many > few+20 {
		t.Errorf("%v allocations for 16 rows, %v for 1,024", few, many)
	}
}

func TestSQLGuard(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a INTEGER, b TEXT, c BLOB)"))
	ins := exec("INSERT INTO v VALUES (1, 'x', x'01')")
	count := query("SELECT count(*) FROM v")
	const q = "SELECT a, b, c FROM v"
	for _, c := range []struct {
		name   string
		guard  testStep
		status abi.SQLStatus
		found  [][]any
	}{
		{"no row wanted, none there", guardStep(q), abi.SQLDone, nil},
		{"row wanted, none there", guardStep(q, int64(1), "x", []byte{1}), abi.SQLGuardFailed, nil},
	} {
		status, answer := g.run(abi.SQLWrite, c.guard)
		if status != c.status || !reflect.DeepEqual(decodeRows(t, answer), c.found) {
			t.Errorf("%s: %#x %q", c.name, status, answer)
		}
	}
	g.must(abi.SQLWrite, ins)
	row := [][]any{{1, int64(1), "x", []byte{1}}}
	for _, c := range []struct {
		name   string
		guard  testStep
		status abi.SQLStatus
		found  [][]any
	}{
		{"equal", guardStep(q, int64(1), "x", []byte{1}), abi.SQLDone, nil},
		{"no row wanted", guardStep(q), abi.SQLGuardFailed, row},
		{"another integer", guardStep(q, int64(2), "x", []byte{1}), abi.SQLGuardFailed, row},
		{"another text", guardStep(q, int64(1), "y", []byte{1}), abi.SQLGuardFailed, row},
		{"text for a blob", guardStep(q, int64(1), "x", "\x01"), abi.SQLGuardFailed, row},
		{"float for an integer", guardStep(q, 1.0, "x", []byte{1}), abi.SQLGuardFailed, row},
		{"NULL", guardStep(q, nil, "x", []byte{1}), abi.SQLGuardFailed, row},
		{"fewer columns", guardStep(q, int64(1)), abi.SQLGuardFailed, row},
	} {
		// The guard stands between two writes: both must be rolled back.
		before := g.must(abi.SQLRead, count)
		status, answer := g.run(abi.SQLWrite, ins, c.guard, exec("INSERT INTO v VALUES (9, 'late', NULL)"))
		if status != c.status || c.status != abi.SQLDone && !reflect.DeepEqual(decodeRows(t, answer), c.found) {
			t.Errorf("%s: %#x %q", c.name, status, answer)
		}
		after := g.must(abi.SQLRead, count)
		if rolledBack := reflect.DeepEqual(before, after); rolledBack != (c.status != abi.SQLDone) {
			t.Errorf("%s: %v rows before, %v after", c.name, before, after)
		}
		if c.status == abi.SQLDone {
			g.must(abi.SQLWrite, exec("DELETE FROM v WHERE rowid > 1"))
		}
	}
}

func TestSQLUniqueNamesTheColumn(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(id TEXT, seq INTEGER PRIMARY KEY)"), exec("CREATE UNIQUE INDEX v_id ON v(id)"),
		exec("INSERT INTO v VALUES ('a', 1)"))
	for _, c := range []struct {
		sql    string
		status abi.SQLStatus
		text   string
	}{
		{"INSERT INTO v VALUES ('b', 1)", 1555, "v.seq"},
		{"INSERT INTO v VALUES ('a', 2)", 2067, "v.id"},
	} {
		if status, answer := g.run(abi.SQLWrite, exec("INSERT INTO v VALUES ('z', 9)"), exec(c.sql)); status != c.status || !strings.Contains(string(answer), c.text) {
			t.Errorf("%s: %d %s", c.sql, status, answer)
		}
	}
	if got := g.must(abi.SQLRead, query("SELECT count(*) FROM v")); got[0][1] != int64(1) {
		t.Errorf("a failed script left rows: %v", got)
	}
}

// TestSQLBadPointerTraps: a pointer outside the memory is the one thing that
// is no status, and nothing was run when it is met.
func TestSQLBadPointerTraps(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, exec("CREATE TABLE v(a)"))
	size := g.mod.Memory().Size()
	traps := func(f func()) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err, _ = p.(error)
			}
		}()
		f()
		return nil
	}
	type patch struct {
		name string
		at   func(script uint32) uint32
		v    uint32
	}
	cellAt := func(script uint32) uint32 { v, _ := g.mod.Memory().ReadUint32Le(script + 20); return v }
	for _, p := range []patch{
		{"text pointer", func(s uint32) uint32 { return s + 4 }, size},
		{"text wraps", func(s uint32) uint32 { return s + 4 }, math.MaxUint32},
		{"text length", func(s uint32) uint32 { return s + 8 }, math.MaxUint32},
		{"cells pointer", func(s uint32) uint32 { return s + 20 }, size - 8},
		{"cell's length", func(s uint32) uint32 { return cellAt(s) + 4 }, size},
		{"cell's pointer", func(s uint32) uint32 { return cellAt(s) + 8 }, size - 1},
		{"cell's pointer beyond 32 bits", func(s uint32) uint32 { return cellAt(s) + 12 }, 1},
	} {
		l := layout{base: 1024}
		at := l.script([]testStep{exec("INSERT INTO v VALUES (?)", "four")})
		g.mod.Memory().Write(l.base, l.b)
		g.mod.Memory().WriteUint32Le(p.at(at), p.v)
		if err := traps(func() { g.call(context.Background(), abi.SQLWrite, at, 1, 0, 100) }); !errors.Is(err, errBadPointer) {
			t.Errorf("%s: %v", p.name, err)
		}
	}
	for _, c := range [][3]uint32{{size - 8, 1, 0}, {math.MaxUint32, 1, 0}, {0, maxSteps, size - 4}} {
		if err := traps(func() { g.call(context.Background(), abi.SQLWrite, c[0], c[1], c[2], 100) }); !errors.Is(err, errBadPointer) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if got := g.must(abi.SQLRead, query("SELECT count(*) FROM v")); got[0][1] != int64(0) {
		t.Errorf("a script that trapped left rows: %v", got)
	}
}

func TestSQLScriptLimits(t *testing.T) {
	g := emptyDB(t, SQLGrant{MaxSQL: 1000, MaxResult: 4000})
	wide := make([]any, maxColumns+1)
	for i := range wide {
		wide[i] = nil
	}
	many := make([]testStep, maxSteps+1)
	for i := range many {
		many[i] = query("SELECT 1")
	}
	for _, c := range []struct {
		name   string
		mode   uint32
		steps  []testStep
		status abi.SQLStatus
		text   string
	}{
		{"steps", abi.SQLRead, many, abi.SQLTooLarge, "257 steps"},
		{"text", abi.SQLRead, []testStep{query("SELECT '" + strings.Repeat("x", 1000) + "'")}, abi.SQLTooLarge, "the limit is 1000"},
		{"columns", abi.SQLRead, []testStep{query("SELECT 1", wide...)}, abi.SQLTooLarge, "129 columns"},
		{"columns of a result", abi.SQLRead, []testStep{query("SELECT 1" + strings.Repeat(",1", maxColumns))}, 1, "too many columns"},
		{"rows", abi.SQLRead, []testStep{{abi.SQLMany, "VALUES", make([][]any, maxRows+1)}}, abi.SQLTooLarge, "65537 rows"},
		{"rows of a query", abi.SQLRead, []testStep{{abi.SQLQuery, "SELECT ?", [][]any{{nil}, {nil}}}}, abi.SQLRefused, "2 rows"},
		{"result of the grant", abi.SQLRead, []testStep{query("SELECT zeroblob(4000)")}, abi.SQLTooLarge, "4000 bytes"},
		{"rows of the result", abi.SQLRead, []testStep{query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n")}, abi.SQLTooLarge, "4000 bytes"},
		{"kind", abi.SQLRead, []testStep{{4, "SELECT 1", nil}}, abi.SQLRefused, "kind 4"},
		{"mode", 2, []testStep{query("SELECT 1")}, abi.SQLRefused, "mode 2"},
		{"too few parameters", abi.SQLRead, []testStep{query("SELECT ?, ?", int64(1))}, abi.SQLRefused, "2 parameters"},
		{"no parameters", abi.SQLRead, []testStep{query("SELECT ?")}, abi.SQLRefused, "1 parameters"},
		{"parameters in many", abi.SQLWrite, []testStep{{abi.SQLMany, "INSERT INTO sqlite_schema SELECT ?,1,1,1,1 WHERE 1 IN", [][]any{{int64(1)}}}}, 1, "may not be modified"},
		{"no statement", abi.SQLRead, []testStep{query("")}, abi.SQLRefused, "without a statement"},
		{"comment", abi.SQLRead, []testStep{query("-- nothing")}, abi.SQLRefused, "without a statement"},
		{"NUL", abi.SQLRead, []testStep{query("SELECT 1\x00; DROP TABLE x")}, abi.SQLRefused, "NUL"},
		{"many without columns", abi.SQLWrite, []testStep{{abi.SQLMany, "INSERT INTO x VALUES", [][]any{{}}}}, abi.SQLRefused, "without columns"},
		{"write in mode read", abi.SQLRead, []testStep{exec("CREATE TABLE x(a)")}, abi.SQLRefused, "mode read"},
		{"PRAGMA write in mode read", abi.SQLRead, []testStep{exec("PRAGMA user_version = 7")}, abi.SQLRefused, "mode read"},
	} {
		if status, answer := g.run(c.mode, c.steps...); status != c.status || !strings.Contains(string(answer), c.text) {
			t.Errorf("%s: status %#x %s; want %#x with %q", c.name, uint32(status), answer, uint32(c.status), c.text)
		}
		if got := g.must(abi.SQLRead, query("SELECT 42")); got[0][1] != int64(42) {
			t.Errorf("%s: the next script got %v", c.name, got)
		}
	}
	g.out = 10
	if status, answer := g.run(abi.SQLRead, query("SELECT 'longer than that'")); status != abi.SQLTooLarge || len(answer) != 10 {
		t.Errorf("a buffer of 10 bytes: %#x %q", status, answer)
	}
	g.out = 0
	if status, _ := g.run(abi.SQLRead, query("SELECT 1")); status != abi.SQLTooLarge {
		t.Errorf("no buffer: %#x", status)
	}
	if status, _ := g.run(abi.SQLRead); status != abi.SQLDone {
		t.Errorf("no buffer and no rows: %#x", status)
	}
}

// TestSQLAnswerDoesNotOverwriteTheScript lays the answer over the cells of a
// step that comes later.
func TestSQLAnswerDoesNotOverwriteTheScript(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	l := layout{base: 1024}
	at := l.script([]testStep{query("SELECT zeroblob(4000)"), query("SELECT ?", "kept")})
	g.mod.Memory().Write(l.base, l.b)
	status, answer := g.call(context.Background(), abi.SQLRead, at, 2, 512, 8000)
	if status != abi.SQLDone {
		t.Fatalf("%#x %s", uint32(status), answer)
	}
	if rows := decodeRows(t, answer); !reflect.DeepEqual(rows[1], []any{1, "kept"}) {
		t.Errorf("%v", rows[1])
	}
}

func TestSQLWithoutGrantIsRefused(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	d := g.sink.sql
	g.sink.sql = nil
	if status, answer := g.run(abi.SQLRead, query("SELECT 1")); status != abi.SQLRefused {
		t.Errorf("%#x %s", status, answer)
	}
	g.sink.sql = d
	g.must(abi.SQLRead)
}
