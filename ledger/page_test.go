package ledger

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/ledger/chain"
)

// readPages reads a ledger page by page, each from a copy of what is kept.
func readPages(t *testing.T, l *Reader, after, last uint64) (rows []chain.Row, pages int, err error) {
	t.Helper()
	for p := new(rowPage); ; pages++ {
		err := l.readPage(context.Background(), after, last, p)
		for _, r := range p.Rows {
			for _, b := range []*[]byte{&r.PayloadHash, &r.Signature, &r.PrevHash, &r.RowHash, &r.Payload} {
				*b = slices.Clone(*b)
			}
			rows = append(rows, r)
		}
		if err != nil || len(p.Rows) == 0 {
			return rows, pages, err
		}
		after = p.Rows[len(p.Rows)-1].Sequence
	}
}

func TestPages(t *testing.T) {
	const n = pageRows + 40
	path := testLedger(t, n)
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		after, last uint64
		want, pages int
	}{
		{0, math.MaxUint64, n, 2}, {0, n, n, 2}, {0, pageRows, pageRows, 1}, {0, 1, 1, 1}, {0, 0, 0, 0}, {7, 9, 2, 1}, {n - 1, math.MaxUint64, 1, 1},
		{n, math.MaxUint64, 0, 0}, {math.MaxUint64, math.MaxUint64, 0, 0}, {9, 7, 0, 0},
	} {
		rows, pages, err := readPages(t, l, c.after, c.last)
		if err != nil || len(rows) != c.want || pages != c.pages {
			t.Errorf("behind %d up to %d: %d rows in %d pages, %v; want %d in %d", c.after, c.last, len(rows), pages, err, c.want, c.pages)
		}
		for i, r := range rows {
			if want := ledgerRow(int(c.after) + 1 + i); !reflect.DeepEqual(r, want) {
				t.Fatalf("got %+v, want %+v", r, want)
			}
		}
	}
	if last, err := l.lastSequence(context.Background()); last != n || err != nil {
		t.Errorf("the last row is %d, %v", last, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.readPage(ctx, 0, n, new(rowPage)); err == nil || errors.As(err, new(*RowError)) {
		t.Errorf("a cancelled read: %v", err)
	}
	readAll(t, l, n) // it is still of use
}

// A page ends with the row that fills it, and long rows are not kept in memory.
func TestPageOfLongRows(t *testing.T) {
	path := testLedger(t, 0)
	g := newWriter(t, path)
	sizes := []int{10, pageBytes - 11, 1, 3 * pageBytes, 5, 0}
	for i, size := range sizes {
		r := ledgerRow(i + 1)
		r.Payload = make([]byte, size)
		for k := range r.Payload {
			r.Payload[k] = 'x'
		}
		g.insert(r)
	}
	g.close()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	p := new(rowPage)
	for _, want := range [][]int{sizes[:3], sizes[3:4], sizes[4:]} {
		var after uint64
		if len(p.Rows) > 0 {
			after = p.Rows[len(p.Rows)-1].Sequence
		}
		if err := l.readPage(context.Background(), after, math.MaxUint64, p); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, r := range p.Rows {
			got = append(got, len(r.Payload))
			if r.Payload == nil {
				t.Error("an empty value became NULL")
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("payloads of %v bytes, want %v", got, want)
		}
	}
	if n := cap(p.read.block); n > largestKept {
		t.Errorf("%d bytes are kept", n)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A page of rows that were read before costs one allocation a row, its texts.
func TestPageAllocations(t *testing.T) {
	l, err := Open(testLedger(t, pageRows))
	if err != nil {
		t.Fatal(err)
	}
	p := new(rowPage)
	got := testing.AllocsPerRun(5, func() {
		if err := l.readPage(context.Background(), 0, math.MaxUint64, p); err != nil || len(p.Rows) != pageRows {
			t.Fatal(len(p.Rows), err)
		}
	})
	if got > pageRows+40 {
		t.Errorf("%v allocations for %d rows", got, pageRows)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkLedgerPage(b *testing.B) {
	l, err := Open(testLedger(b, 8*pageRows))
	if err != nil {
		b.Fatal(err)
	}
	p := new(rowPage)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.readPage(context.Background(), 7*pageRows, math.MaxUint64, p); err != nil || len(p.Rows) != pageRows {
			b.Fatal(len(p.Rows), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*pageRows), "ns/row")
	if err := l.Close(); err != nil {
		b.Error(err)
	}
}

// A second reader is one of the same file.
func TestAnotherReader(t *testing.T) {
	for _, live := range []bool{false, true} {
		path := testLedger(t, 5)
		if live {
			newWriter(t, path)
		}
		l := openLedger(t, path)
		o, err := l.another()
		if err != nil {
			t.Fatalf("live %t: %v", live, err)
		}
		readAll(t, o, 5)
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		copied(t, path, path+".away")
		if o, err := l.another(); err == nil || !strings.Contains(err.Error(), "replaced") {
			t.Errorf("live %t: another file is read: %v, %v", live, o, err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
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
