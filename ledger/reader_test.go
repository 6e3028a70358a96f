package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/ledger/chain"
)

func TestLedgerCreateRefusesAnExistingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "mine" || err != nil {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
	if err := Create(filepath.Join(path, "no folder")); err == nil {
		t.Error("a ledger inside a file")
	}
	other := filepath.Join(filepath.Dir(path), "new.db")
	if err := Create(other); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(other); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files := contents(t, filepath.Dir(path)); len(files) != 2 {
		t.Errorf("%d files", len(files))
	}
	readAll(t, openLedger(t, other), 0)
}

func TestLedgerReads(t *testing.T) {
	ctx := context.Background()
	path := testLedger(t, 40)
	before := contents(t, filepath.Dir(path))
	l := openLedger(t, path)
	readAll(t, l, 40)
	tail, err := l.Tail(ctx, 3)
	if want := []chain.Row{ledgerRow(38), ledgerRow(39), ledgerRow(40)}; err != nil || !reflect.DeepEqual(tail, want) {
		t.Errorf("tail: %+v, %v", tail, err)
	}
	for _, n := range []int{0, -1} {
		if tail, err := l.Tail(ctx, n); len(tail) != 0 || err != nil {
			t.Errorf("tail of %d: %v, %v", n, tail, err)
		}
	}
	if tail, err := l.Tail(ctx, math.MaxInt); len(tail) != 40 || err != nil {
		t.Errorf("tail of all: %d, %v", len(tail), err)
	}
	row, err := l.Lookup(ctx, "id-0007")
	if want := ledgerRow(7); err != nil || !reflect.DeepEqual(*row, want) {
		t.Errorf("%+v, %v", row, err)
	}
	if _, err := l.Lookup(ctx, "id-0041"); !errors.Is(err, ErrNoRow) {
		t.Errorf("%v", err)
	}
	if p, err := l.Positions(ctx); err != nil || !reflect.DeepEqual(p, map[[16]byte]uint64{{}: 40}) {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := l.integrity(ctx); p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	for row := range l.Rows(ctx) {
		if row.Sequence == 5 {
			break
		}
	}
	readAll(t, l, 40)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for row, err := range l.Rows(cancelled) {
		if row != nil || err == nil || errors.As(err, new(*RowError)) {
			t.Errorf("a cancelled read: %v, %v", row, err)
		}
	}
	if after := contents(t, filepath.Dir(path)); !reflect.DeepEqual(after, before) {
		t.Error("reading changed a file or left one")
	}
}

// TestLedgerReadsWhatLiesInTheLog: a copy with rows that were committed but
// not written back, as a crash leaves it; also in a folder that permits no
// writing.
func TestLedgerReadsWhatLiesInTheLog(t *testing.T) {
	path := testLedger(t, 10)
	g := newWriter(t, path)
	g.appendRows(11, 25)
	for _, files := range [][]string{{"", "-wal"}, {"", "-wal", "-shm"}} {
		for _, mode := range []os.FileMode{0o700, 0o500} {
			dir := t.TempDir()
			for _, f := range files {
				b, err := os.ReadFile(path + f)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "copy.db"+f), b, 0o400); err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, dir)
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			l := openLedger(t, filepath.Join(dir, "copy.db"))
			if l.r.Live {
				t.Errorf("%q: a copy has a writer", files)
			}
			readAll(t, l, 25)
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if after := contents(t, dir); !reflect.DeepEqual(after, before) {
				t.Errorf("%q: reading changed a file or left one", files)
			}
		}
	}
}

// TestLedgerWithAnUnreadableLogIsNotOpened: rows that were committed must not
// be left out silently.
func TestLedgerWithAnUnreadableLogIsNotOpened(t *testing.T) {
	path := testLedger(t, 3)
	if err := os.Mkdir(path+"-wal", 0o700); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(path); err == nil {
		t.Errorf("opened: %v", l.Close())
	}
}

// TestLedgerTellsWhatIsDamagedInTheLog flips one byte of every frame of a log
// in turn. SQLite stops reading there and says nothing; the reader does.
func TestLedgerTellsWhatIsDamagedInTheLog(t *testing.T) {
	path := testLedger(t, 10)
	g := newWriter(t, path)
	for i := 11; i <= 16; i++ {
		g.appendRows(i, i)
	}
	main, err1 := os.ReadFile(path)
	log, err2 := os.ReadFile(path + "-wal")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	const frame = 24 + 4096
	if n := (len(log) - 32) / frame; n < 12 {
		t.Fatalf("%d frames", n)
	}
	read := func(log []byte) (rows uint64, unread string) {
		dir := t.TempDir()
		copied := filepath.Join(dir, "copy.db")
		if err := errors.Join(os.WriteFile(copied, main, 0o600), os.WriteFile(copied+"-wal", log, 0o600)); err != nil {
			t.Fatal(err)
		}
		l, err := Open(copied)
		if err != nil {
			t.Fatal(err)
		}
		rows, err = countOf(l)
		if err := errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		return rows, l.notRead()
	}
	if rows, unread := read(log); rows != 16 || unread != "" {
		t.Errorf("whole: %d rows, %q", rows, unread)
	}
	for at := 32 + 24 + 7; at < len(log); at += frame {
		b := bytes.Clone(log)
		b[at] ^= 1
		if rows, unread := read(b); rows > 15 || !strings.Contains(unread, "not read") {
			t.Errorf("byte %d flipped: %d rows, %q", at, rows, unread)
		}
	}
	for at := range 24 {
		b := bytes.Clone(log)
		b[at] ^= 1
		if _, unread := read(b); !strings.Contains(unread, "header") {
			t.Errorf("byte %d of the header flipped: %q", at, unread)
		}
	}
	// A transaction that was cut short before its commit hides nothing.
	for cut := 1; cut < frame; cut += 1000 {
		if rows, unread := read(log[:len(log)-cut]); rows != 15 || unread != "" {
			t.Errorf("%d bytes short: %d rows, %q", cut, rows, unread)
		}
	}
	if rows, unread := read(log[:20]); rows != 10 || !strings.Contains(unread, "header") {
		t.Errorf("20 bytes: %d rows, %q", rows, unread)
	}
}

// TestLedgerBesideAWriter: one state for all that is read, however much is
// written meanwhile.
func TestLedgerBesideAWriter(t *testing.T) {
	path := testLedger(t, 10)
	g := newWriter(t, path)
	g.appendRows(11, 20)
	l := openLedger(t, path)
	if !l.r.Live {
		t.Fatal("the writer was not seen")
	}
	readAll(t, l, 20)
	for i := 21; i < 200; i++ {
		g.appendRows(i, i)
	}
	readAll(t, l, 20)
	readAll(t, openLedger(t, path), 199)
}

// TestLedgerNoticesANewWriter: opened without one, the files are read as they
// lie there; when they change under the reader it says so.
func TestLedgerNoticesANewWriter(t *testing.T) {
	path := testLedger(t, 10)
	l := openLedger(t, path)
	readAll(t, l, 10)
	appendRows(t, path, 11, 12)
	var last error
	for _, err := range l.Rows(context.Background()) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "read it again") || errors.As(last, new(*RowError)) {
		t.Errorf("%v", last)
	}
	readAll(t, openLedger(t, path), 12)
}

func TestLedgerThatIsNone(t *testing.T) {
	dir := t.TempDir()
	files := map[string]func(path string) error{
		"empty":   sqlite.CreateEmpty,
		"garbage": func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 9000), 0o600) },
		"another": func(p string) error {
			d, err := deadletter.Open(p)
			if err != nil {
				return err
			}
			return d.Close()
		},
		"newer":     altered("PRAGMA user_version = 2"),
		"column":    altered("ALTER TABLE signed_events ADD COLUMN extra TEXT"),
		"renamed":   altered("ALTER TABLE signed_events RENAME COLUMN payload TO p"),
		"not there": func(string) error { return nil },
		"folder":    func(p string) error { return os.Mkdir(p, 0o700) },
		"lax":       altered("DROP TABLE signed_events", strings.Replace(chain.Schema[0], ") STRICT", ")", 1)),
	}
	for name, make := range files {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(name, err)
		}
		l, err := Open(path)
		if err == nil {
			t.Errorf("%s: opened", name)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		format := name != "garbage" && name != "not there" && name != "folder"
		if errors.As(err, new(*FormatError)) != format {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// altered makes a ledger and changes it without any limits.
func altered(sql ...string) func(string) error {
	return func(path string) error {
		if err := Create(path); err != nil {
			return err
		}
		return alter(path, sql...)
	}
}

func alter(path string, sql ...string) error {
	c, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		return err
	}
	for _, s := range sql {
		if err = c.Protect(func() error { return c.Exec(s) }); err != nil {
			break
		}
	}
	return errors.Join(err, c.Close())
}

// TestLedgerNamesRowsThatAreNone: values that a STRICT table cannot hold,
// written past SQLite, and columns that contradict each other.
func TestLedgerNamesRowsThatAreNone(t *testing.T) {
	// A table that is not STRICT takes any value; the schema is then edited
	// to claim that it is.
	lax := strings.Replace(chain.Schema[0], ") STRICT", ")", 1)
	for i, name := range strings.Split(chain.Columns, ", ") {
		if name == "sequence" {
			continue
		}
		isText := strings.HasSuffix(columnTypes()[i], " TEXT") // else a BLOB
		for _, value := range []string{"17", "1.5", "'text'", "x'00'", "NULL"} {
			wrong := value == "17" || value == "1.5" || value == "NULL" ||
				value == "'text'" && !isText || value == "x'00'" && isText
			if !wrong || value == "NULL" && i != columnSignature && i != columnKeyID {
				continue // NOT NULL holds without STRICT
			}
			if (value == "17" || value == "1.5") && isText {
				continue // TEXT affinity makes a text of it
			}
			path := testLedger(t, 0)
			var insert []string
			for n := 1; n <= 3; n++ {
				insert = append(insert, laxInsert(ledgerRow(n+3), uint64(n)))
			}
			err := alter(path, append(append([]string{"DROP TABLE signed_events", lax, chain.Schema[1]}, insert...),
				fmt.Sprintf("UPDATE signed_events SET %s = %s WHERE sequence = 2", name, value))...)
			if err == nil {
				err = claimStrict(path)
			}
			if err != nil {
				t.Fatal(name, value, err)
			}
			l := openLedger(t, path)
			var rows int
			var last error
			for _, err := range l.Rows(context.Background()) {
				if err != nil {
					last = err
				} else {
					rows++
				}
			}
			var e *RowError
			if !errors.As(last, &e) || e.Sequence != 2 || rows != 1 || !strings.Contains(e.Reason, name) {
				t.Errorf("%s = %s: %d rows, then %v", name, value, rows, last)
			}
			if _, err := l.Tail(context.Background(), 3); !errors.As(err, &e) {
				t.Errorf("%s = %s: tail: %v", name, value, err)
			}
		}
	}
}

func laxInsert(r chain.Row, seq uint64) string {
	text := func(s string) string { return "'" + s + "'" }
	blob := func(b []byte) string {
		if b == nil {
			return "NULL"
		}
		return fmt.Sprintf("x'%x'", b)
	}
	if r.Signature == nil {
		r.Signature, r.KeyID = []byte{1}, "k"
	}
	return fmt.Sprintf("INSERT INTO signed_events (%s) VALUES (%s)", chain.Columns, strings.Join([]string{
		text(r.ID), text(r.AgentID), text(r.EventType), blob(r.PayloadHash), blob(r.Signature), text(r.AttestLevel), text(r.Timestamp),
		blob(r.PrevHash), fmt.Sprint(seq), text(string(r.Payload)), text(r.KeyID), blob(r.RowHash)}, ", "))
}

// claimStrict edits the schema's text in the file.
func claimStrict(path string) error {
	c, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		return err
	}
	if _, err = c.DB.Config(sqlite3.DBCONFIG_DEFENSIVE, false); err == nil {
		err = c.Protect(func() error {
			return c.Exec("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = sql || ' STRICT' WHERE name = 'signed_events'")
		})
	}
	return errors.Join(err, c.Close())
}

// TestLedgerDamagedPages flips bytes of every page but the first: whatever it hits, reading ends with all rows, or with an error, and
// never with a panic.
func TestLedgerDamagedPages(t *testing.T) {
	path := testLedger(t, 300)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	damaged, noticed := 0, 0
	for at := page; at < len(whole); at += page {
		b := bytes.Clone(whole)
		for i := range 64 {
			b[at+i] ^= 0xa5
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		damaged++
		l, err := Open(path)
		if err != nil {
			noticed++
			continue
		}
		for row, err := range l.Rows(context.Background()) {
			var e *RowError
			if err != nil && (!errors.As(err, &e) || row != nil) {
				t.Errorf("page %d: %v", at/page, err)
			}
			if err != nil {
				noticed++
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if noticed < damaged/2 {
		t.Errorf("%d pages were damaged, %d of it noticed", damaged, noticed)
	}
}

// TestLedgerReadsInConstantMemory reads many rows and looks at what is alive
// in between.
func TestLedgerReadsInConstantMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	for from := 1; from <= 20_000; from += 2000 {
		appendRows(t, path, from, from+1999)
	}
	l := openLedger(t, path)
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := live(), uint64(0)
	for row, err := range l.Rows(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		if row.Sequence%2500 == 0 {
			most = max(most, live())
		}
	}
	if most > before+1<<20 {
		t.Errorf("%d bytes alive before, %d while 20,000 rows were read", before, most)
	}
}

// TestLedgerRefusesToWrite keeps the reader from growing a way to write.
func TestLedgerRefusesToWrite(t *testing.T) {
	path := testLedger(t, 1)
	for _, live := range []bool{false, true} {
		if live {
			newWriter(t, path)
		}
		l := openLedger(t, path)
		err := l.r.Do(context.Background(), func(c *sqlite.Conn) error { return c.Exec("DELETE FROM signed_events") })
		if err == nil || !strings.Contains(err.Error(), "readonly") {
			t.Errorf("live %t: %v", live, err)
		}
		readAll(t, l, 1)
	}
}
