package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/durable"
	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/internal/sqlite/sqlitetest"
)

var (
	makeTable = exec("CREATE TABLE v(i INTEGER PRIMARY KEY, b BLOB)")
	insertRow = exec("INSERT INTO v(b) VALUES (?)", []byte("row"))
	countRows = query("SELECT count(*) FROM v")
)

func (g *sqlGuest) count() int64 {
	g.t.Helper()
	return g.must(abi.SQLRead, countRows)[0][1].(int64)
}

func (g *sqlGuest) expect(want abi.SQLStatus, text string, mode uint32, steps ...testStep) {
	g.t.Helper()
	if status, answer := g.run(mode, steps...); status != want || !strings.Contains(string(answer), text) {
		g.t.Errorf("status %#x %s; want %#x with %q", uint32(status), answer, uint32(want), text)
	}
}

// TestDatabaseIsOpenedNotCreated: a mistyped path makes no fresh audit trail
// (weakness 7), is a status (weakness 4), and is tried again.
func TestDatabaseIsOpenedNotCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "typo.db")
	g := newSQLGuest(t, SQLGrant{Database: path})
	for range 2 {
		g.expect(abi.SQLStatus(sqlite3.CANTOPEN), "there is no such file; audit-host init makes one", abi.SQLWrite, makeTable)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 0 {
		t.Fatalf("files were made: %v, %v", files, err)
	}
	if err := sqlite.CreateEmpty(path); err != nil {
		t.Fatal(err)
	}
	g.must(abi.SQLWrite, makeTable)
}

func TestDatabaseThatIsNone(t *testing.T) {
	dir := t.TempDir()
	garbage, folder := filepath.Join(dir, "garbage.db"), filepath.Join(dir, "folder.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		status abi.SQLStatus
		text   string
	}{
		garbage:                        {abi.SQLStatus(sqlite3.NOTADB), "not a database"},
		folder:                         {abi.SQLStatus(sqlite3.CANTOPEN), "not a regular file"},
		filepath.Join(garbage, "x.db"): {abi.SQLStatus(sqlite3.CANTOPEN), "not a directory"},
	} {
		g := newSQLGuest(t, SQLGrant{Database: path, Create: true})
		g.expect(want.status, want.text, abi.SQLWrite, makeTable)
		g.expect(want.status, want.text, abi.SQLRead, query("SELECT 1"))
		if path == garbage {
			if err := os.Remove(garbage); err != nil {
				t.Fatal(err)
			}
			g.must(abi.SQLWrite, makeTable) // mended, the next call finds it
		}
	}
}

func TestDatabaseFilesAreOurs(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, makeTable)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(g.sink.sql.grant.Database + suffix); err != nil || info.Mode() != 0o600 {
			t.Errorf("%q: %v, %v", suffix, info.Mode(), err)
		}
	}
	if err := g.sink.sql.close(); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(filepath.Dir(g.sink.sql.grant.Database)); err != nil || len(files) != 1 {
		t.Errorf("left after close: %v, %v", files, err)
	}
}

// TestDatabaseBusy: another connection's lock is a status, after the grant's
// time, and the next call succeeds (weakness 3).
func TestDatabaseBusy(t *testing.T) {
	g := emptyDB(t, SQLGrant{BusyTimeout: 100 * time.Millisecond})
	g.must(abi.SQLWrite, makeTable)
	other, err := sqlite.Open(context.Background(), g.sink.sql.grant.Database, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Begin(true); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	status, answer := g.run(abi.SQLWrite, insertRow)
	if took := time.Since(began); status&0xff != abi.SQLStatus(sqlite3.BUSY) || !strings.Contains(string(answer), "locked") || took < 100*time.Millisecond {
		t.Errorf("status %#x %s after %s", uint32(status), answer, took)
	}
	if n := g.count(); n != 0 { // readers are not in the way
		t.Errorf("%d rows", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	g.sink.sql.file.Conn.Patience(time.Hour)
	if status, answer := g.runContext(ctx, abi.SQLWrite, insertRow); status&0xff != abi.SQLStatus(sqlite3.BUSY) && status != abi.SQLTimeout {
		t.Errorf("status %#x %s", uint32(status), answer)
	}
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	g.must(abi.SQLWrite, insertRow)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if n := g.count(); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// TestDatabaseReplaced: commits never go to a file that nobody finds any more
// (weakness 6).
func TestDatabaseReplaced(t *testing.T) {
	copyTo := func(t *testing.T, from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to+".tmp", b, 0o600)
		}
		if err == nil {
			err = os.Rename(to+".tmp", to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, path string) error
		// then is the status of the call after the one that noticed it.
		then abi.SQLStatus
		text string
	}{
		{"unlinked", func(_ *testing.T, p string) error { return os.Remove(p) }, abi.SQLStatus(sqlite3.CANTOPEN), "no such file"},
		{"renamed", func(_ *testing.T, p string) error { return os.Rename(p, p+".old") }, abi.SQLStatus(sqlite3.CANTOPEN), "no such file"},
		{"replaced by a copy", func(t *testing.T, p string) error { copyTo(t, p, p); return nil }, abi.SQLDone, ""},
		{"truncated", func(_ *testing.T, p string) error { return os.Truncate(p, 0) }, 1, "no such table"},
		{"log unlinked", func(_ *testing.T, p string) error { return os.Remove(p + "-wal") }, abi.SQLDone, ""},
		{"log replaced", func(t *testing.T, p string) error { copyTo(t, p+"-wal", p+"-wal"); return nil }, abi.SQLDone, ""},
		{"folder renamed", func(_ *testing.T, p string) error { return os.Rename(filepath.Dir(p), filepath.Dir(p)+".old") }, abi.SQLStatus(sqlite3.CANTOPEN), "no such file"},
	} {
		for _, when := range []string{"before", "before reading", "during"} {
			t.Run(c.name+" "+when, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "in", "test.db")
				if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := sqlite.CreateEmpty(path); err != nil {
					t.Fatal(err)
				}
				g := newSQLGuest(t, SQLGrant{Database: path})
				g.must(abi.SQLWrite, makeTable)
				if err := g.sink.sql.file.Conn.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				if when != "during" {
					if err := c.do(t, path); err != nil {
						t.Fatal(err)
					}
				} else {
					// Between the steps and the commit.
					conn := g.sink.sql.file.Conn
					if err := conn.DB.SetAuthorizer(func(sqlite3.AuthorizerActionCode, string, string, string, string) sqlite3.AuthorizerReturnCode {
						if c.do != nil {
							if err := c.do(t, path); err != nil {
								t.Error(err)
							}
							c.do = nil
						}
						return sqlite3.AUTH_OK
					}); err != nil {
						t.Fatal(err)
					}
				}
				if when == "before reading" {
					g.expect(abi.SQLReplaced, filepath.Dir(path), abi.SQLRead, query("SELECT 1"))
				} else {
					g.expect(abi.SQLReplaced, filepath.Dir(path), abi.SQLWrite, exec("INSERT INTO v(b) VALUES ('lost?')"))
				}
				g.expect(c.then, c.text, abi.SQLWrite, insertRow)
				if c.then == abi.SQLDone {
					if n := g.count(); n != 1 {
						t.Errorf("%d rows", n)
					}
				}
			})
		}
	}
}

// TestDatabaseSymlinkTurned: the name of the grant counts, not where it once
// led.
func TestDatabaseSymlinkTurned(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link.db")
	for _, name := range []string{"a.db", "b.db"} {
		if err := sqlite.CreateEmpty(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.db", link); err != nil {
		t.Fatal(err)
	}
	g := newSQLGuest(t, SQLGrant{Database: link})
	g.must(abi.SQLWrite, makeTable)
	g.must(abi.SQLWrite, insertRow)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b.db", link); err != nil {
		t.Fatal(err)
	}
	g.expect(abi.SQLReplaced, "link.db", abi.SQLWrite, insertRow)
	g.expect(1, "no such table", abi.SQLWrite, insertRow)
}

// TestDatabaseDiskFull: the disk fills up in the middle of a commit and has
// room again later. The connection lives on and nothing is half stored.
func TestDatabaseDiskFull(t *testing.T) {
	layer, name := sqlitetest.NewFaultFS(t)
	g := emptyDB(t, SQLGrant{})
	g.sink.sql.file.Options.VFS = name
	g.must(abi.SQLWrite, makeTable)
	big := exec("INSERT INTO v(b) VALUES (?)", make([]byte, 50_000))
	for after := range 14 {
		left := after
		layer.Write = func(string) error {
			if left--; left < 0 {
				return vfs.SystemError(syscall.ENOSPC, sqlite3.FULL)
			}
			return nil
		}
		g.expect(abi.SQLStatus(sqlite3.FULL), "full", abi.SQLWrite, big)
		layer.Write = nil
		if n := g.count(); n != int64(after) {
			t.Fatalf("%d rows after %d failed and as many good inserts", n, after)
		}
		g.must(abi.SQLWrite, insertRow)
	}
}

// TestDatabaseFaultAtCommit: an I/O error or a fault of the engine at a commit
// is an unknown outcome, the connection is replaced, and the transaction is
// there as a whole or not at all.
func TestDatabaseFaultAtCommit(t *testing.T) {
	for name, fault := range map[string]func() error{
		"error": func() error { return vfs.SystemError(syscall.EIO, sqlite3.IOERR_WRITE) },
		"trap":  func() error { panic("the engine traps") },
	} {
		for _, where := range []string{"write", "sync"} {
			t.Run(name+" "+where, func(t *testing.T) {
				layer, vfsName := sqlitetest.NewFaultFS(t)
				g := emptyDB(t, SQLGrant{})
				g.sink.sql.file.Options.VFS = vfsName
				g.must(abi.SQLWrite, makeTable)
				before := runtime.NumGoroutine()
				for round := range 20 {
					n := g.count()
					conn := g.sink.sql.file.Conn
					armed := true
					hook := func(kind string) error {
						if kind == "-wal" && armed {
							armed = false
							return fault()
						}
						return nil
					}
					if where == "write" {
						layer.Write = hook
					} else {
						layer.Sync = hook
					}
					g.expect(map[string]abi.SQLStatus{"error": abi.SQLDiskFailed, "trap": abi.SQLBroken}[name], "commit", abi.SQLWrite, insertRow, insertRow)
					layer.Write, layer.Sync = nil, nil
					if armed {
						t.Fatal("the fault did not happen")
					}
					if m := g.count(); m != n && m != n+2 {
						t.Fatalf("round %d: %d rows, then %d", round, n, m)
					}
					if g.sink.sql.file.Conn == conn {
						t.Error("the connection was used again")
					}
				}
				if after := runtime.NumGoroutine(); after > before {
					t.Errorf("%d goroutines before, %d after", before, after)
				}
				if runtime.GOOS == "linux" {
					if n := openFiles(t, g.sink.sql.grant.Database); n != 3 {
						t.Errorf("%d files of the database are open, wanted 3", n)
					}
				}
			})
		}
	}
}

// openFiles counts this process's open files whose names begin with path.
func openFiles(t *testing.T, path string) (n int) {
	t.Helper()
	err := filepath.WalkDir("/proc/self/fd", func(p string, d fs.DirEntry, err error) error {
		if target, e := os.Readlink(p); e == nil && strings.HasPrefix(target, path) {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDatabaseTrapBeforeCommitIsNoCommit: the engine traps while a statement
// runs.
func TestDatabaseTrapBeforeCommit(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, makeTable)
	conn := g.sink.sql.file.Conn
	conn.DB.UpdateHook(func(sqlite3.AuthorizerActionCode, string, string, int64) { panic("the engine traps") })
	g.expect(abi.SQLBroken, "the engine traps", abi.SQLWrite, insertRow)
	if n := g.count(); n != 0 {
		t.Errorf("%d rows", n)
	}
	g.must(abi.SQLWrite, insertRow)
}

// TestDatabaseSyncsOncePerCommit: appended means on disk (weakness 1). The
// exact number of syncs, and what a power cut after each commit leaves.
func TestDatabaseSyncsOncePerCommit(t *testing.T) {
	layer, name := sqlitetest.NewFaultFS(t)
	g := emptyDB(t, SQLGrant{})
	path := g.sink.sql.grant.Database
	g.sink.sql.file.Options.VFS, g.sink.sql.file.SyncDir = name, layer.SyncDir
	g.must(abi.SQLWrite, makeTable)
	for i := range 30 {
		before := layer.Syncs["-wal"]
		g.must(abi.SQLWrite, exec("INSERT INTO v(b) VALUES (?)", bytes.Repeat([]byte{byte(i)}, 3000*i)))
		if n := layer.Syncs["-wal"] - before; n != 1 {
			t.Fatalf("commit %d: %d syncs of the log", i, n)
		}
		cut := layer.AfterPowerCut(t, path, nil)
		checkSound(t, cut)
		other := newSQLGuest(t, SQLGrant{Database: cut})
		if n := other.count(); n != int64(i+1) {
			t.Fatalf("%d rows after a power cut, %d were committed", n, i+1)
		}
	}
	if n := layer.Syncs["-wal"]; n > 40 {
		t.Errorf("%d syncs of the log", n)
	}
	before := layer.Syncs["-wal"] + layer.Syncs[".db"]
	g.count()
	if n := layer.Syncs["-wal"] + layer.Syncs[".db"] - before; n != 0 {
		t.Errorf("%d syncs for reading", n)
	}
}

// TestDatabaseSyncsTheFolderOfItsLog: when the folder is synced the log has a
// name there and no commit in it yet.
func TestDatabaseSyncsTheFolderOfItsLog(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	path, synced := g.sink.sql.grant.Database, 0
	g.sink.sql.file.SyncDir = func(dir string) error {
		synced++
		if info, err := os.Stat(path + "-wal"); err != nil || info.Size() != 0 || dir != filepath.Dir(path) {
			t.Errorf("folder %s is synced, and the log is %v, %v", dir, info, err)
		}
		return durable.SyncDir(dir)
	}
	for range 3 {
		g.must(abi.SQLWrite, exec("CREATE TABLE IF NOT EXISTS v(a)"))
	}
	if synced != 1 {
		t.Errorf("synced %d times", synced)
	}
	g.sink.sql.file.Drop(true)
	g.sink.sql.file.SyncDir = func(string) error { return errors.New("no sync") }
	g.expect(abi.SQLBroken, "no sync", abi.SQLWrite, exec("INSERT INTO v VALUES (1)"))
}

// TestDatabaseLogIsBounded writes more than the log may hold.
func TestDatabaseLogIsBounded(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, makeTable)
	for range 60 {
		g.must(abi.SQLWrite, exec("INSERT INTO v(b) VALUES (zeroblob(1000000))"))
		if info, err := os.Stat(g.sink.sql.grant.Database + "-wal"); err != nil || info.Size() > 4200*(sqlite.LogMost+300) {
			t.Fatalf("the log has %d bytes, %v", info.Size(), err)
		}
	}
}

// TestDatabaseCloseBesideAReader: a reader keeps the log from being emptied,
// which is no fault, and loses nothing.
func TestDatabaseCloseBesideAReader(t *testing.T) {
	g := emptyDB(t, SQLGrant{})
	g.must(abi.SQLWrite, makeTable)
	r, err := sqlite.OpenReader(context.Background(), g.sink.sql.grant.Database)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Live {
		t.Error("the writer was not seen")
	}
	g.must(abi.SQLWrite, insertRow)
	if err := g.sink.sql.close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n := g.count(); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// TestDatabaseTwoWritersRace: two sinks append to one sequence, each guarding
// the head it has seen. The loser's status says so, and no number is missing
// or doubled.
func TestDatabaseTwoWritersRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "race.db")
	if err := sqlite.CreateEmpty(path); err != nil {
		t.Fatal(err)
	}
	first := newSQLGuest(t, SQLGrant{Database: path})
	first.must(abi.SQLWrite, exec("CREATE TABLE v(i INTEGER PRIMARY KEY, who INTEGER, n INTEGER)"))
	second := newSQLGuest(t, SQLGrant{Database: path})
	const each = 200
	type result struct {
		races int
		err   error
	}
	results := make(chan result, 2)
	for who, g := range []*sqlGuest{first, second} {
		go func() {
			var r result
			head := int64(0)
			for n := int64(0); n < each && r.err == nil; {
				status, answer := g.run(abi.SQLWrite, guardStep("SELECT coalesce(max(i), 0) FROM v", head), exec("INSERT INTO v VALUES (?, ?, ?)", head+1, int64(who), n))
				switch {
				case status == abi.SQLDone:
					n, head = n+1, head+1
				case status == abi.SQLGuardFailed:
					r.races++
					head = decodeRows(t, answer)[0][1].(int64)
				case status&0xff == abi.SQLStatus(sqlite3.BUSY):
				default:
					r.err = fmt.Errorf("status %#x %s", uint32(status), answer)
				}
			}
			results <- r
		}()
	}
	races := 0
	for range 2 {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		races += r.races
	}
	if races == 0 {
		t.Error("no race was lost, so this test tested nothing")
	}
	got := first.must(abi.SQLRead, query("SELECT count(*), max(i), count(DISTINCT who * 1000 + n) FROM v"))
	if want := fmt.Sprintf("[[0 %d %d %d]]", 2*each, 2*each, 2*each); fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	checkSound(t, path)
}

// A log that was cut while it is open is noticed before anything is written
// behind the hole; one that SQLite emptied itself is not.
func TestDatabaseLogShortened(t *testing.T) {
	for _, size := range []int64{0, 32, 5000} {
		path := filepath.Join(t.TempDir(), "test.db")
		if err := sqlite.CreateEmpty(path); err != nil {
			t.Fatal(err)
		}
		g := newSQLGuest(t, SQLGrant{Database: path})
		g.must(abi.SQLWrite, makeTable)
		if err := g.sink.sql.file.Conn.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		g.must(abi.SQLWrite, insertRow)
		g.must(abi.SQLWrite, insertRow)
		if err := os.Truncate(path+"-wal", size); err != nil {
			t.Fatal(err)
		}
		g.expect(abi.SQLReplaced, path+"-wal was replaced, removed, emptied or shortened", abi.SQLWrite, insertRow)
		g.must(abi.SQLWrite, insertRow)
		if n := g.count(); n > 3 {
			t.Errorf("size %d: %d rows", size, n)
		}
	}
}
