package host

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// Exact numbers: what a delivery allocates does not depend on how many
// events it has.
func TestDeliverAllocations(t *testing.T) {
	const perBatch = 11 // contexts, their timer and watchdog, closures
	s := openGuest(t, guestModule{memory: cat(op(0), leb(32))}.bytes(), Options{})
	ctx := context.Background()
	for _, n := range []int{1, 16, 256, 1024} {
		b := batchOf(n, strings.Repeat("x", 400))
		got := testing.AllocsPerRun(200, func() {
			if r := s.Deliver(ctx, b); r.Outcome != abi.OK {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
		})
		if got != perBatch {
			t.Errorf("%d events: %v allocations, want %d", n, got, perBatch)
		}
	}
}

// A thousand traps leave nothing behind.
func TestTrapsLeaveNothingBehind(t *testing.T) {
	s := openGuest(t, guestModule{deliver: when(1, opUnreachable)}.bytes(), Options{})
	round := func(n int) {
		t.Helper()
		for range n {
			if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Trap {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			if r := s.Deliver(context.Background(), batchOf(2, "x")); r.Outcome != abi.OK {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
		}
	}
	round(50)
	goroutines, heap, mapped := runtime.NumGoroutine(), heapBytes(), mappedBytes(t)
	round(1000)
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if h := heapBytes(); h > heap+4<<20 {
		t.Errorf("heap of %d bytes, %d before", h, heap)
	}
	// An instance reserves 64 MiB of address space: a thousand would show.
	if m := mappedBytes(t); m > mapped+1<<30 {
		t.Errorf("%d bytes mapped, %d before", m, mapped)
	}
}

// A module that can't be instantiated gives its memory back as well.
func TestFailedInstantiationLeavesNothingBehind(t *testing.T) {
	wasm := guestModule{change: func(m *wasmtest.Module) {
		m.Data = [][]byte{cat(op(0), i32c(-10), op(0x0b), vec(op(1), op(2)))}
	}}.bytes()
	open := func() {
		t.Helper()
		if _, err := Open(context.Background(), wasm, Options{Memory: 1 << 30}); err == nil {
			t.Fatal("it was opened")
		}
	}
	open()
	mapped := mappedBytes(t)
	for range 20 {
		open()
	}
	if m := mappedBytes(t); m > mapped+4<<30 {
		t.Errorf("%d bytes mapped, %d before", m, mapped)
	}
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC() // the second runs what the first found unreachable
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// mappedBytes is the address space in use; 0 where the system does not say.
func mappedBytes(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var pages uint64
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}

// The functions that every guest has, and those that are granted.
func TestHostFunctions(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		deliver := func(manifest string, imports [][]byte, o Options, code ...[]byte) abi.Result {
			t.Helper()
			s := openGuest(t, guestModule{imports: imports, deliver: cat(code...), manifest: manifest}.bytes(), o)
			return s.Deliver(context.Background(), batchOf(1, "x"))
		}
		wishes := func(c string) string {
			return `{"name":"x","version":"1","capabilities":["` + c + `"]}`
		}
		// The message is what lies in memory at 64, n bytes of it.
		message := func(f int, n int32) []byte { return cat(i32c(-1), i32c(0), i32c(64), i32c(n), callf(f)) }
		verdict := imported("audit", "verdict", typFour)

		// SHA-256 of two pages of memory that hold nothing but the batch.
		r := deliver("", [][]byte{imported("audit", "sha256", typThree), verdict}, o,
			i32c(2048), i32c(70_000), i32c(64), callf(0),
			// Bytes of a hash are no text: compare the first four by number.
			i32c(64), op(0x28, 2, 0), op(0xad), i64c(int64(uint64(abi.Retry)<<32)), op(0x84), opReturn)
		sum := sha256.Sum256(make([]byte, 70_000))
		if got := uint32(r.RetryAfter / time.Millisecond); r.Outcome != abi.Retry || got != binary.LittleEndian.Uint32(sum[:]) {
			t.Errorf("sha256: %v %q %#x", r.Outcome, r.Detail, got)
		}
		// And of more than the portion it works on at a time.
		r = deliver("", [][]byte{imported("audit", "sha256", typThree)}, o,
			i32c(200), op(0x40, 0, 0x1a), i32c(3*wasmPage), i32c(5<<20), i32c(64), callf(0),
			i32c(64), op(0x28, 2, 0), op(0xad), i64c(int64(uint64(abi.Retry)<<32)), op(0x84), opReturn)
		sum = sha256.Sum256(make([]byte, 5<<20))
		if got := uint32(r.RetryAfter / time.Millisecond); r.Outcome != abi.Retry || got != binary.LittleEndian.Uint32(sum[:]) {
			t.Errorf("sha256 of 5 MiB: %v %q %#x", r.Outcome, r.Detail, got)
		}

		// Counters add up and have a bound; unknown ones are ignored.
		metric := [][]byte{imported("audit", "metric", typMetric)}
		r = deliver("", metric, o, i32c(1), i64c(2), callf(0), i32c(1), i64c(3), callf(0), i32c(9), i64c(7), callf(0))
		if r.Outcome != abi.OK || r.Races != 5 {
			t.Errorf("metric: %v %q, %d races", r.Outcome, r.Detail, r.Races)
		}
		r = deliver("", metric, o, i32c(1), i64c(-1), callf(0), i32c(1), i64c(-1), callf(0))
		if r.Outcome != abi.OK || r.Races != 1000 {
			t.Errorf("metric: %v %q, %d races", r.Outcome, r.Detail, r.Races)
		}

		// Control characters of a guest don't reach a log or a terminal.
		r = deliver("", [][]byte{verdict}, o, i32c(64), i32c(0x1b41420a), op(0x36, 2, 0), message(0, 4))
		if r.Outcome != abi.OK || r.Detail != "\nBA\uFFFD" {
			t.Errorf("message: %v %q", r.Outcome, r.Detail)
		}

		granted := o
		granted.Now, granted.Random = true, true
		before := time.Now()
		r = deliver(wishes("now"), [][]byte{imported("audit", "now", typNow)}, granted,
			// Seconds since 1970 as the pause.
			callf(0), i64c(1e9), op(0x80), i64c(int64(uint64(abi.Retry)<<32)), op(0x84), opReturn)
		if got := int64(r.RetryAfter / time.Millisecond); r.Outcome != abi.Retry || got < before.Unix() || got > time.Now().Unix() {
			t.Errorf("now: %v %q %d", r.Outcome, r.Detail, got)
		}
		random := func() uint32 {
			r := deliver(wishes("random"), [][]byte{imported("audit", "random", typTwo)}, granted, i32c(64), i32c(4), callf(0),
				i32c(64), op(0x28, 2, 0), op(0xad), i64c(int64(uint64(abi.Retry)<<32)), op(0x84), opReturn)
			if r.Outcome != abi.Retry {
				t.Fatalf("random: %v %q", r.Outcome, r.Detail)
			}
			return uint32(r.RetryAfter / time.Millisecond)
		}
		if a, b, c := random(), random(), random(); a == b && b == c {
			t.Errorf("random gives %#x thrice", a)
		}
	})
}

// The shim denies: no arguments, no environment, no files. Without a grant the
// clock begins at 1970 and randomness is the same every time.
func TestWASIShimDenies(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		// Every function is called with zeros; the answer is its error number
		// as the pause.
		for _, sig := range wasiFunctions {
			if sig.Name == "proc_exit" {
				continue // tested with the hostile guests
			}
			params, code := "", []byte{}
			for _, p := range sig.Params {
				params += map[abi.ValueType]string{abi.I32: "i", abi.I64: "l"}[p]
				code = cat(code, map[abi.ValueType][]byte{abi.I32: i32c(0), abi.I64: i64c(0)}[p])
			}
			const own = typTwo + 1
			g := guestModule{imports: [][]byte{imported(wasiModule, sig.Name, own)},
				deliver: cat(code, callf(0), op(0xad), i64c(int64(uint64(abi.Retry)<<32)), op(0x84), opReturn),
				change:  func(m *wasmtest.Module) { m.Types = append(m.Types, wasmtest.Sig(params, "i")) }}
			s := openGuest(t, g.bytes(), o)
			r := s.Deliver(context.Background(), batchOf(1, "x"))
			want := uint32(wasiBadF)
			switch sig.Name {
			case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_time_get", "random_get", "sched_yield":
				want = wasiOK
			case "poll_oneoff":
				want = wasiInval
			}
			if got := uint32(r.RetryAfter / time.Millisecond); r.Outcome != abi.Retry || got != want {
				t.Errorf("%s: %v %q, error number %d, want %d", sig.Name, r.Outcome, r.Detail, got, want)
			}
		}
		// Twice the same "random" bytes, in two instances.
		g := guestModule{imports: [][]byte{imported(wasiModule, "random_get", typTwo+1)},
			deliver: cat(i32c(64), i32c(8), callf(0), opDrop, i32c(64), op(0x28, 2, 0), op(0xad), i64c(int64(uint64(abi.Retry)<<32)), op(0x84), opReturn),
			change:  func(m *wasmtest.Module) { m.Types = append(m.Types, sig("ii", "i")) }}
		a := openGuest(t, g.bytes(), o).Deliver(context.Background(), batchOf(1, "x"))
		b := openGuest(t, g.bytes(), o).Deliver(context.Background(), batchOf(1, "x"))
		if a.Outcome != abi.Retry || a.RetryAfter != b.RetryAfter {
			t.Errorf("%v and %v", a, b)
		}
		o.Random = true
		c := openGuest(t, g.bytes(), o).Deliver(context.Background(), batchOf(1, "x"))
		d := openGuest(t, g.bytes(), o).Deliver(context.Background(), batchOf(1, "x"))
		if c.Outcome != abi.Retry || c.RetryAfter == d.RetryAfter {
			t.Errorf("with the grant: %v and %v", c, d)
		}
	})
}

// The shim's signatures are those of wazero's own WASI.
func TestWASISignatures(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	m, err := wasi_snapshot_preview1.NewBuilder(r).Compile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range wasiFunctions {
		def, ok := m.ExportedFunctions()[sig.Name]
		if !ok || !same(def, sig) {
			t.Errorf("%s: %s, wazero knows it: %t", sig.Name, form(sig.Params, sig.Results), ok)
		}
	}
}

// A guest sleeps without the real clock: the clock moves by what it slept.
func TestSleepMovesTheClock(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		subscribe := cat(i32c(64), i64c(0), op(0x37, 3, 16), i32c(64), i64c(20e6), op(0x37, 3, 24))
		clock := func(at int32) []byte { return cat(i32c(0), i64c(0), i32c(at), callf(1), opDrop) }
		g := guestModule{imports: [][]byte{imported(wasiModule, "poll_oneoff", typWASI4), imported(wasiModule, "clock_time_get", typTwo+1)},
			deliver: cat(clock(512), subscribe, i32c(64), i32c(256), i32c(1), i32c(600), callf(0), opDrop, clock(520),
				i32c(520), op(0x29, 3, 0), i32c(512), op(0x29, 3, 0), op(0x7d), i64c(1e6), op(0x80), i64c(int64(uint64(abi.Retry)<<32)), op(0x84), opReturn),
			change: func(m *wasmtest.Module) { m.Types = append(m.Types, sig("ili", "i")) }}
		begin := time.Now()
		r := openGuest(t, g.bytes(), o).Deliver(context.Background(), batchOf(1, "x"))
		if took := time.Since(begin); r.Outcome != abi.Retry || r.RetryAfter != 20*time.Millisecond || took < 20*time.Millisecond {
			t.Errorf("%v %q, the guest's clock moved by %v in %v", r.Outcome, r.Detail, r.RetryAfter, took)
		}
	})
}

// A close beside a running guest waits, and frees nothing when it gives up:
// memory that vanishes under a guest ends the process.
func TestCloseWaitsForTheGuest(t *testing.T) {
	s, err := Open(context.Background(), guestModule{deliver: when(1, forever())}.bytes(), Options{Name: "ledger", Deadline: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	running, ended := make(chan struct{}), make(chan abi.Result)
	go func() {
		close(running)
		ended <- s.Deliver(context.Background(), batchOf(1, "x"))
	}()
	<-running
	for len(s.turn) == 0 {
		runtime.Gosched() // until the delivery has its turn
	}
	given, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := s.Close(given); err == nil || !strings.Contains(err.Error(), "sink ledger: close plugin: a call into the guest is still running") {
		t.Errorf("%v", err)
	}
	if r := s.Deliver(given, batchOf(2, "x")); r.Outcome != abi.Deadline {
		t.Errorf("a second delivery: %v %q", r.Outcome, r.Detail)
	}
	closed := make(chan error)
	go func() { closed <- s.Close(context.Background()) }()
	if r := <-ended; r.Outcome != abi.Deadline || !strings.Contains(r.Detail, "raise deadline") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// A guest that spins for its whole deadline does not hold up another sink.
func TestSpinningGuestDisturbsNobody(t *testing.T) {
	c := sharedCache(t)
	bad := openGuest(t, guestModule{deliver: when(1, forever())}.bytes(), Options{Deadline: time.Second, Cache: c})
	good := openGuest(t, goGuest(t), Options{Cache: c})
	b := batchOf(64, "garbage")
	if r := good.Deliver(context.Background(), b); r.Outcome != abi.OK {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	ended := make(chan abi.Result)
	go func() { ended <- bad.Deliver(context.Background(), batchOf(1, "x")) }()
	var took []time.Duration
	for {
		select {
		case r := <-ended:
			if r.Outcome != abi.Deadline {
				t.Errorf("%v %q", r.Outcome, r.Detail)
			}
			slices.Sort(took)
			if len(took) < 100 {
				t.Fatalf("%d batches in a second", len(took))
			}
			t.Logf("%d batches beside a spinning guest: median %v, longest %v", len(took), took[len(took)/2], took[len(took)-1])
			return
		default:
			begin := time.Now()
			if r := good.Deliver(context.Background(), b); r.Outcome != abi.OK {
				t.Fatalf("%v %q", r.Outcome, r.Detail)
			}
			took = append(took, time.Since(begin))
		}
	}
}
