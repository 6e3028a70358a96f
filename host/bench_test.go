package host

import (
	"context"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

// reportEvents adds the time per event to a benchmark.
func reportEvents(b *testing.B, events int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(events), "ns/event")
}

func BenchmarkDeliver(b *testing.B) {
	small := guestModule{memory: cat(op(0), leb(32))}.bytes()
	for _, c := range []struct {
		name   string
		wasm   []byte
		events int
	}{
		{"small guest, 1 event", small, 1},
		{"small guest, 256 events of 400 B", small, 256},
		{"Go guest, 1 event", goGuest(b), 1},
		{"Go guest, 256 events of 400 B", goGuest(b), 256},
		{"Go guest, 1024 events of 400 B", goGuest(b), 1024},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := openGuest(b, c.wasm, Options{Cache: sharedCache(b)})
			batch := batchOf(c.events, strings.Repeat("x", 400))
			b.ReportAllocs()
			for b.Loop() {
				if r := s.Deliver(context.Background(), batch); r.Outcome != abi.OK {
					b.Fatalf("%v %q", r.Outcome, r.Detail)
				}
			}
			reportEvents(b, c.events)
		})
	}
}

// BenchmarkTrapToFresh is a batch that traps and the next one, on a fresh
// instance.
func BenchmarkTrapToFresh(b *testing.B) {
	for _, c := range []struct {
		name string
		wasm []byte
		trap string
	}{
		{"small guest", guestModule{deliver: when(1, opUnreachable)}.bytes(), "x"},
		{"Go guest", goGuest(b), "panic"},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := openGuest(b, c.wasm, Options{Cache: sharedCache(b)})
			bad, good := batchOf(1, c.trap), batchOf(2, "x")
			for b.Loop() {
				if r := s.Deliver(context.Background(), bad); r.Outcome != abi.Trap {
					b.Fatalf("%v %q", r.Outcome, r.Detail)
				}
				if r := s.Deliver(context.Background(), good); r.Outcome != abi.OK {
					b.Fatalf("%v %q", r.Outcome, r.Detail)
				}
			}
		})
	}
}

// BenchmarkOpen loads a Go guest, from the cache and without one.
func BenchmarkOpen(b *testing.B) {
	for name, cache := range map[string]*Cache{"cold": nil, "from the cache": sharedCache(b)} {
		b.Run(name, func(b *testing.B) {
			wasm := goGuest(b)
			for b.Loop() {
				s, err := Open(context.Background(), wasm, Options{Cache: cache})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
