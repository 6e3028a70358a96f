package host

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// logGuest is a guest on a new ledger with small bounds of the log.
func logGuest(t *testing.T) (*sqlGuest, *dbFile) {
	t.Helper()
	g := newSQLGuest(t, SQLGrant{Database: testLedger(t, 0)})
	f := &g.sink.sql.file
	f.limits = logLimits{begin: 100, rest: 20, most: 400}
	return g, f
}

// awaitAnswer waits for the second connection's answer, without taking it.
func awaitAnswer(t *testing.T, k *logKeeper) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(k.told) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second connection does not answer")
		}
	}
}

func TestLogIsWrittenBackBesideTheWriter(t *testing.T) {
	g, f := logGuest(t)
	rows, asked, rounds := 0, 0, 0
	for rounds < 3 {
		before := 0
		if f.log != nil {
			before = f.log.pages
		}
		g.appendRows(rows+1, rows+5)
		rows += 5
		k := f.log
		if k.pages < before {
			rounds++
		}
		if k.asking {
			// While it works the writer goes on, and does the rest.
			asked++
			g.appendRows(rows+1, rows+5)
			rows += 5
			if k.asking {
				awaitAnswer(t, k)
			}
		}
		if k.pages > k.limits.begin+50 {
			t.Fatalf("the log has %d pages, of which %d are written back", k.pages, k.written)
		}
	}
	if asked < rounds || f.log.alone {
		t.Errorf("the log was begun anew %d times, the second connection was asked %d times; alone: %t", rounds, asked, f.log.alone)
	}
	// One that is left where it is does not stand in the way of the end.
	for f.log.pages < f.log.limits.begin {
		g.appendRows(rows+1, rows+5)
		rows += 5
	}
	path := f.path
	if err := g.sink.sql.close(); err != nil {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(path + "*"); err != nil || len(files) != 1 {
		t.Errorf("files left: %q, %v", files, err)
	}
	checkSound(t, path)
	readAll(t, openLedger(t, path), rows)
}

// A reader keeps the log from being begun anew. The second connection is asked now
// and then, and not at every commit; when the reader has gone, all is made up for.
func TestLogBesideAReader(t *testing.T) {
	g, f := logGuest(t)
	g.appendRows(1, 5)
	l := openLedger(t, f.path)
	rows, asked := 5, 0
	for f.log.pages < f.log.limits.most+100 {
		g.appendRows(rows+1, rows+5)
		rows += 5
		if f.log.asking {
			asked++
			awaitAnswer(t, f.log)
		}
	}
	if most := f.log.limits.most/(f.log.limits.begin/4) + 1; asked == 0 || asked > most {
		t.Errorf("asked %d times, at most %d are due", asked, most)
	}
	if err := l.Rest(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first one writes it back
		g.appendRows(rows+1, rows+5)
		rows += 5
	}
	if f.log.pages > 50 {
		t.Errorf("the log has %d pages", f.log.pages)
	}
}

// Without a second connection the writer writes back as soon as it is due; and it
// waits for one that falls far behind.
func TestLogWithoutASecondConnection(t *testing.T) {
	g, f := logGuest(t)
	g.appendRows(1, 5)
	k, rows := f.log, 5
	k.alone = true
	for range 60 {
		g.appendRows(rows+1, rows+5)
		rows += 5
		if k.pages > k.limits.begin+50 {
			t.Fatalf("the log has %d pages", k.pages)
		}
	}

	k.alone, k.asking, k.pages = false, true, k.limits.most
	k.told <- k.limits.begin
	k.committed()
	if k.asking || len(k.told) != 0 || k.alone {
		t.Errorf("%+v", k)
	}
	k.asking, k.pages = true, k.limits.most
	k.told <- -1
	k.committed()
	if !k.alone {
		t.Error("that there is no second connection is not noticed")
	}
	// What is told of a log that is no more counts for nothing.
	k.alone, k.asking, k.stale, k.written = false, true, true, 7
	k.answered(100)
	if k.written != 7 || k.stale || k.asking {
		t.Errorf("%+v", k)
	}
}

// When nothing is committed any more the log is written back, so that a copy of
// the file alone has all rows.
func TestLogIsWrittenBackAtIdle(t *testing.T) {
	g, f := logGuest(t)
	f.limits.idle = 5 * time.Millisecond
	// One that is taken while it is written to is not whole.
	rowsAlone := func() (uint64, error) {
		file := filepath.Join(t.TempDir(), "alone.db")
		copied(t, file, f.path)
		l, err := OpenLedger(file)
		if err != nil {
			return 0, err
		}
		n, err := countOf(l)
		return n, errors.Join(err, l.Close())
	}
	for round := 1; round <= 3; round++ {
		g.appendRows(5*round-4, 5*round)
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			n, err := rowsAlone()
			if err == nil && n == uint64(5*round) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the file alone has %d rows of %d, %v", n, 5*round, err)
			}
		}
	}
}

// The second connection never touches files that are not the writer's.
func TestLogOfAnotherFile(t *testing.T) {
	for i, suffix := range []string{"", "-wal", "-shm"} {
		g, f := logGuest(t)
		g.appendRows(1, 5)
		if c := f.log.open(); c == nil {
			t.Fatal("no second connection")
		} else if err := c.close(); err != nil {
			t.Error(err)
		}
		name := f.path + suffix
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
		copied(t, name, name+".away")
		if c := f.log.open(); c != nil {
			t.Errorf("file %d: opened beside a writer of another one", i)
			_ = c.close()
		}
		if err := os.Rename(name+".away", name); err != nil {
			t.Fatal(err)
		}
		g.appendRows(6, 10)
		if n := g.must(abi.SQLRead, query("SELECT count(*) FROM signed_events"))[0][1]; n != int64(10) {
			t.Errorf("file %d: %v rows", i, n)
		}
	}
}

func copied(t *testing.T, to, from string) {
	t.Helper()
	r, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
