package ledger

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/ledger/chain"
)

// testLedger makes a ledger of n rows in a folder of its own.
func testLedger(t testing.TB, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	appendRows(t, path, 1, n)
	return path
}

// ledgerRow is the row with a sequence; every third is unsigned.
func ledgerRow(i int) chain.Row {
	h := func(s string) []byte { b := sha256.Sum256(fmt.Append(nil, s, i)); return b[:] }
	r := chain.Row{ID: fmt.Sprintf("id-%04d", i), AgentID: "agent:ä", EventType: "governance.refusal", Timestamp: "2026-01-01T00:00:00+00:00",
		AttestLevel: abi.AttestDaemonSigned, KeyID: "key", PayloadHash: h("payload"), Signature: append(h("a"), h("b")...),
		PrevHash: h("prev"), RowHash: h("row"), Payload: fmt.Appendf(nil, `{"n":%d}`, i), Sequence: uint64(i)}
	if i%3 == 0 {
		r.Signature, r.KeyID, r.AttestLevel = nil, "", abi.AttestUnsigned
	}
	return r
}

func rowCells(r chain.Row) []any {
	cells := []any{r.ID, r.AgentID, r.EventType, r.PayloadHash, r.Signature, r.AttestLevel, r.Timestamp, r.PrevHash, int64(r.Sequence), string(r.Payload), r.KeyID, r.RowHash}
	if r.Signature == nil {
		cells[columnSignature], cells[columnKeyID] = nil, nil
	}
	return cells
}

// writer writes a ledger as a sink's SQL does, and keeps it open until the test ends.
type writer struct {
	t testing.TB
	f sqlite.File
}

func newWriter(t testing.TB, path string) *writer {
	t.Helper()
	w := &writer{t, sqlite.File{Path: path, Options: sqlite.Options{Busy: 5 * time.Second}}}
	if err := w.f.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func (w *writer) close() {
	w.t.Helper()
	if err := w.f.Close(); err != nil {
		w.t.Error(err)
	}
}

// insert commits rows, and the last one's sequence as the place in a queue.
func (w *writer) insert(rows ...chain.Row) {
	w.t.Helper()
	none := func(*sqlite.Stmt) error { return nil }
	if err := w.f.Transact(context.Background(), true, func(c *sqlite.Conn) error {
		for _, r := range rows {
			if err := c.Each("INSERT INTO signed_events ("+chain.Columns+") VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rowCells(r), none); err != nil {
				return err
			}
		}
		return c.Each("INSERT INTO queue_positions VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET position = excluded.position",
			[]any{make([]byte, 16), int64(rows[len(rows)-1].Sequence)}, none)
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) appendRows(from, to int) {
	w.t.Helper()
	var rows []chain.Row
	for i := from; i <= to; i++ {
		rows = append(rows, ledgerRow(i))
	}
	w.insert(rows...)
}

// appendRows writes rows and closes the ledger.
func appendRows(t testing.TB, path string, from, to int) {
	t.Helper()
	if to < from {
		return
	}
	w := newWriter(t, path)
	w.appendRows(from, to)
	w.close()
}

// readAll checks that the ledger has exactly the rows 1 to n.
func readAll(t testing.TB, l *Reader, n int) {
	t.Helper()
	ctx, i := context.Background(), 0
	for row, err := range l.Rows(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		i++
		if want := ledgerRow(i); !reflect.DeepEqual(*row, want) {
			t.Fatalf("row %d: got %+v, want %+v", i, *row, want)
		}
	}
	seq, hash, err := l.Head(ctx)
	var want [32]byte
	if n > 0 {
		copy(want[:], ledgerRow(n).RowHash)
	}
	if i != n || err != nil || seq != uint64(n) || hash != want {
		t.Errorf("%d rows, head %d %x, %v; wanted %d rows", i, seq, hash, err, n)
	}
	count, err1 := countOf(l)
	high, err2 := l.highWater(ctx)
	if count != uint64(n) || high != uint64(n) || err1 != nil || err2 != nil {
		t.Errorf("count %d %v, high water %d %v, wanted %d", count, err1, high, err2, n)
	}
}

// countOf is the number of rows, for whoever reads them all.
func countOf(l *Reader) (uint64, error) {
	return l.number(context.Background(), "SELECT count(*) FROM signed_events NOT INDEXED")
}

func openLedger(t testing.TB, path string) *Reader {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// contents returns every file of a folder.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}
