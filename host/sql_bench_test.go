package host

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/ledger/chain"
)

// benchRows lays out a step of n ledger rows in guest memory, which later
// batches only fill with their own ids, sequences and hashes.
type benchRows struct {
	g      *sqlGuest
	script uint32
	cells  uint32
	n      int
	random bool
	seq    uint64
	clock  uint64
}

func newBenchRows(b *testing.B, n int, random bool) *benchRows {
	path := filepath.Join(b.TempDir(), "ledger.db")
	if err := ledger.Create(path); err != nil {
		b.Fatal(err)
	}
	g := newSQLGuest(b, SQLGrant{Database: path})
	payload := make([]byte, 300)
	for i := range payload {
		payload[i] = 'x'
	}
	rows := make([][]any, n)
	h := make([]byte, 32)
	for i := range rows {
		rows[i] = []any{fmt.Sprintf("%036d", i), "agent:alice", "governance.refusal", h, make([]byte, 64), "daemon_signed",
			"2026-01-01T00:00:00.000000+00:00", h, int64(0), string(payload), "03a107bff3ce10be1d70dd18e74bc099", h}
	}
	l := layout{base: 1024}
	at := l.script([]testStep{
		guardStep("SELECT sequence FROM signed_events WHERE sequence = -1"),
		{abi.SQLMany, "INSERT INTO signed_events (" + chain.Columns + ") VALUES", rows},
		exec("INSERT INTO queue_positions VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET position = excluded.position", make([]byte, 16), int64(1)),
	})
	if !g.mod.Memory().Write(l.base, l.b) {
		b.Fatalf("%d bytes do not fit", len(l.b))
	}
	r := &benchRows{g: g, script: at, n: n, random: random, clock: 1 << 40}
	r.cells, _ = g.mod.Memory().ReadUint32Le(at + abi.SQLStepSize + 20)
	return r
}

// fill gives every row of the next batch an id and a sequence.
func (r *benchRows) fill() {
	mem, _ := r.g.mod.Memory().Read(0, r.g.mod.Memory().Size())
	for i := range r.n {
		r.seq++
		r.clock += 7
		row := mem[int(r.cells)+i*chain.NumColumns*abi.SQLCellSize:]
		var id [16]byte
		if r.random {
			h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, r.seq))
			copy(id[:], h[:])
		} else {
			binary.BigEndian.PutUint64(id[:], r.clock)
			_, _ = rand.Read(id[8:])
		}
		copy(mem[binary.LittleEndian.Uint64(row[8:]):][:36], fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
		binary.LittleEndian.PutUint64(row[8*abi.SQLCellSize+8:], r.seq)
	}
}

// BenchmarkSQLMany writes batches of ledger rows: one call, one transaction,
// synchronous=FULL.
func BenchmarkSQLMany(b *testing.B) {
	for _, n := range []int{1, 256, 1024} {
		for _, random := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/random=%t", n, random), func(b *testing.B) {
				r := newBenchRows(b, n, random)
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					r.fill()
					b.StartTimer()
					if status, answer := r.g.call(context.Background(), abi.SQLWrite, r.script, 3, 0, 512); status != abi.SQLDone {
						b.Fatalf("%#x %s", uint32(status), answer)
					}
				}
				b.ReportMetric(float64(r.seq)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkSQLStalls tells how long single batches take while the log is written
// back again and again: run it with -benchtime=3000x or more.
func BenchmarkSQLStalls(b *testing.B) {
	r := newBenchRows(b, 256, false)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		r.fill()
		b.StartTimer()
		start := time.Now()
		if status, answer := r.g.call(context.Background(), abi.SQLWrite, r.script, 3, 0, 512); status != abi.SQLDone {
			b.Fatalf("%#x %s", uint32(status), answer)
		}
		took = append(took, time.Since(start))
	}
	b.ReportMetric(float64(r.seq)/b.Elapsed().Seconds(), "rows/s")
	slices.Sort(took)
	for name, at := range map[string]int{"p50": len(took) / 2, "p99": len(took) * 99 / 100, "p99.9": len(took) * 999 / 1000, "longest": len(took) - 1} {
		b.ReportMetric(took[at].Seconds()*1e3, name+"-ms")
	}
}
