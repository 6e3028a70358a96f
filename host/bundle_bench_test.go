package host

import (
	"context"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// BenchmarkRecording is what remembering host calls for a crash bundle costs:
// per call of a host function whose answer is kept (now), of one whose answer
// is not (metric), and per batch of a Go guest.
func BenchmarkRecording(b *testing.B) {
	const calls = 1000
	loop := func(call ...[]byte) func(m *wasmtest.Module) {
		return func(m *wasmtest.Module) {
			m.Funcs[3].Locals = vec(op(1, 0x7f))
			m.Funcs[3].Code = cat(i32c(calls), op(0x21, 1), op(0x03, 0x40), cat(call...),
				op(0x20, 1), i32c(1), op(0x6b, 0x22, 1, 0x0d, 0, 0x0b), storeAll)
		}
	}
	now := guestModule{manifest: `{"name":"x","version":"1","capabilities":["now"]}`,
		imports: [][]byte{imported("audit", "now", typNow)}, change: loop(callf(0), opDrop)}.bytes()
	metric := guestModule{imports: [][]byte{imported("audit", "metric", typMetric)}, change: loop(i32c(9), i64c(1), callf(0))}.bytes()
	for _, c := range []struct {
		name  string
		wasm  []byte
		calls int
		o     Options
	}{
		{"now", now, calls, Options{Now: true}},
		{"metric", metric, calls, Options{}},
		{"Go guest, 256 events", goGuest(b), 1, Options{Cache: sharedCache(b), Now: true}},
	} {
		for _, recording := range []bool{false, true} {
			name := c.name + ", off"
			if c.o.Crashes = nil; recording {
				name, c.o.Crashes = c.name+", on", openCrashes(b, CrashOptions{})
			}
			b.Run(name, func(b *testing.B) {
				s := openGuest(b, c.wasm, c.o)
				batch := batchOf(256, "x")
				if c.calls > 1 {
					batch = batchOf(1, "x")
				}
				b.ReportAllocs()
				for b.Loop() {
					if r := s.Deliver(context.Background(), batch); r.Outcome != abi.OK {
						b.Fatalf("%v %q", r.Outcome, r.Detail)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.calls), "ns/call")
			})
		}
	}
}
