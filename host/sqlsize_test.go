package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/internal/sqlite/sqlitetest"
)

// TestSQLMaxSize: a guest that writes for as long as it can gets no more on the
// disk than the grant says, beside the log, is told so like of a full disk, and
// what it had stored stays.
func TestSQLMaxSize(t *testing.T) {
	const most = 2 << 20
	path := filepath.Join(t.TempDir(), "x.db")
	g := newSQLGuest(t, SQLGrant{Database: path, Create: true, MaxSize: most, TimeLimit: 5 * time.Second})
	var told countingHandler
	g.sink.o.Log = told.logger()
	g.sink.sql.file.Limits = sqlite.LogLimits{Begin: 200, Rest: 50, Most: 400}
	g.must(abi.SQLWrite, makeTable)
	fill := exec("INSERT INTO v(b) VALUES (zeroblob(100000))")
	stored := int64(0)
	for range 200 {
		status, answer := g.run(abi.SQLWrite, fill)
		if status == abi.SQLDone {
			stored++
			continue
		}
		if status != abi.SQLStatus(sqlite3.FULL) || !strings.Contains(string(answer), "max_size in [sink.grant.sql]") {
			t.Fatalf("status %#x %s", uint32(status), answer)
		}
	}
	if n := g.count(); n != stored || n < 15 || n > most/100_000 {
		t.Errorf("%d rows, %d were stored", n, stored)
	}
	// One call that writes and writes, in one statement and in many, reaches neither
	// the disk nor more than the engine's memory.
	endless := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO v(b) SELECT randomblob(10000) FROM n"
	g.expect(abi.SQLTooLarge, "write less in one call", abi.SQLWrite, exec(endless))
	steps := []testStep{}
	for range 200 {
		steps = append(steps, fill)
	}
	g.expect(abi.SQLStatus(sqlite3.FULL), "max_size", abi.SQLWrite, steps...)
	if n := g.count(); n != stored {
		t.Errorf("%d rows, wanted %d", n, stored)
	}
	size := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if db, log := size(path), size(path+"-wal"); db > most || log > 4200*(400+most/4096) {
		t.Errorf("the database has %d bytes, its log %d", db, log)
	}
	if g.sink.Counts().Breaches[LimitSQLSize] == 0 || !told.has("plugin reached a limit", "limit=sql_size", "raise=max_size in [sink.grant.sql]") {
		t.Errorf("%v %q", g.sink.Counts(), told.lines)
	}
	// What makes it no larger goes on, and room that was made is used.
	g.must(abi.SQLWrite, exec("DELETE FROM v WHERE i = 1"))
	g.must(abi.SQLWrite, exec("UPDATE v SET b = zeroblob(90000) WHERE i = 2"))
	g.must(abi.SQLWrite, exec("DELETE FROM v"))
	g.must(abi.SQLWrite, fill)
	// One that was larger before the grant may shrink and not grow.
	g.sink.sql.grant.MaxSize = 4096
	g.must(abi.SQLWrite, exec("UPDATE v SET b = zeroblob(80000)"))
	g.expect(abi.SQLStatus(sqlite3.FULL), "max_size", abi.SQLWrite, exec("INSERT INTO v(b) VALUES (zeroblob(3000000))"))
}

// TestSQLMaxSizeOfTheLog: a reader keeps the log from being begun anew. A guest that
// goes on to write the same page over and over is stopped before the disk is.
func TestSQLMaxSizeOfTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	g := newSQLGuest(t, SQLGrant{Database: path, Create: true, MaxSize: 1 << 20})
	g.sink.sql.file.Limits = sqlite.LogLimits{Begin: 20, Rest: 5, Most: 40}
	g.must(abi.SQLWrite, makeTable)
	g.must(abi.SQLWrite, insertRow)
	r, err := sqlite.Open(context.Background(), path, sqlite.Options{ReadOnly: true, KeepLog: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Protect(func() error { return r.Exec("BEGIN; SELECT count(*) FROM v") }); err != nil {
		t.Fatal(err)
	}
	full := 0
	for i := range 500 {
		status, answer := g.run(abi.SQLWrite, exec("UPDATE v SET b = ?", fmt.Sprint(i)))
		if status == abi.SQLStatus(sqlite3.FULL) && strings.Contains(string(answer), "reader") {
			full++
		} else if status != abi.SQLDone {
			t.Fatalf("status %#x %s", uint32(status), answer)
		}
	}
	if info, err := os.Stat(path + "-wal"); err != nil || full == 0 || info.Size() > 4200*100 {
		t.Errorf("full %d times, log %v %v", full, info.Size(), err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	g.must(abi.SQLWrite, insertRow)
}

// TestSQLTemporarySpaceIsMemory: sorting, a temporary index, a statement that is
// rolled back: none of it makes a file.
func TestSQLTemporarySpaceIsMemory(t *testing.T) {
	layer, name := sqlitetest.NewFaultFS(t)
	path := filepath.Join(t.TempDir(), "x.db")
	g := newSQLGuest(t, SQLGrant{Database: path, Create: true})
	g.sink.sql.file.Options.VFS = name
	g.must(abi.SQLWrite, makeTable)
	g.must(abi.SQLWrite, exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO v(b) SELECT randomblob(5000) FROM n"))
	g.must(abi.SQLRead, query("SELECT count(*) FROM (SELECT b FROM v ORDER BY b LIMIT 100000)"))
	g.must(abi.SQLRead, query("SELECT count(*) FROM (SELECT DISTINCT b FROM v)"))
	// A statement journal of some megabytes.
	g.expect(abi.SQLStatus(sqlite3.CONSTRAINT_UNIQUE), "", abi.SQLWrite, exec("CREATE UNIQUE INDEX u ON v(length(b))"))
	g.must(abi.SQLWrite, exec("UPDATE v SET b = randomblob(5001)"), exec("UPDATE v SET b = zeroblob(10)"))
	layer.Mu.Lock()
	defer layer.Mu.Unlock()
	for file, f := range layer.Files {
		if !f.Removed && file != path && file != path+"-wal" {
			t.Errorf("the file %q was opened", file)
		}
	}
}
