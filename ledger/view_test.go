package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/audit-host/audit-host/internal/sqlite"
)

// A view keeps its state until it is renewed, and one that rests does not keep
// the log from being emptied.
func TestLedgerIsRenewed(t *testing.T) {
	ctx := context.Background()
	path := testLedger(t, 3)
	g := newWriter(t, path)
	g.appendRows(4, 4)
	l := openLedger(t, path)
	find := func(i int, want bool) {
		t.Helper()
		row, err := l.Lookup(ctx, fmt.Sprintf("id-%04d", i))
		switch {
		case !want && !errors.Is(err, ErrNoRow):
			t.Fatalf("row %d: %v, want none", i, err)
		case want && err != nil:
			t.Fatal(err)
		case want && !reflect.DeepEqual(*row, ledgerRow(i)):
			t.Fatalf("row %d: got %+v", i, *row)
		}
	}
	renew := func() {
		t.Helper()
		if err := l.Renew(ctx); err != nil {
			t.Fatal(err)
		}
	}
	find(4, true)
	for i := 5; i < 10; i++ {
		g.appendRows(i, i)
		find(i, false)
		renew()
		find(i, true)
		find(i-1, true)
	}
	readAll(t, l, 9)
	conn := g.f.Conn
	emptied := func() bool {
		t.Helper()
		if err := conn.Patience(0); err != nil {
			t.Fatal(err)
		}
		_ = conn.Checkpoint() // fails while somebody reads
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size() == 0
	}
	if emptied() {
		t.Fatal("the log was emptied under a view")
	}
	for range 2 {
		if err := l.Rest(); err != nil {
			t.Fatal(err)
		}
	}
	if !emptied() {
		t.Fatal("a view that rests keeps the log from being emptied")
	}
	g.appendRows(10, 10)
	renew()
	readAll(t, l, 10)
}

// Without a writer, or with another file in its place, a view is not renewed: it
// has to be opened again.
func TestLedgerIsNotRenewed(t *testing.T) {
	ctx := context.Background()
	path := testLedger(t, 3)
	if err := openLedger(t, path).Renew(ctx); err == nil {
		t.Error("a view was renewed without a writer")
	}
	g := newWriter(t, path)
	g.appendRows(4, 4)
	l := openLedger(t, path)
	if err := os.Rename(path, filepath.Join(t.TempDir(), "elsewhere.db")); err != nil {
		t.Fatal(err)
	}
	if err := l.Renew(ctx); !errors.Is(err, sqlite.ErrStale) {
		t.Errorf("a view of a file that was moved away was renewed: %v", err)
	}
}
