package meter_test

import (
	"bytes"
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

func tightLoop() []byte {
	return wasmModule{
		Types: [][]byte{sig("", "")},
		Funcs: []wasmFunc{{Name: "run", Code: []byte{0x03, 0x40, 0x0c, 0, 0x0b}}},
	}.Bytes()
}

// twoSelfCalls runs 2^n calls without a loop.
func twoSelfCalls() []byte {
	return wasmModule{
		Types: [][]byte{sig("i", "")},
		Funcs: []wasmFunc{{Name: "run", Code: cat(
			[]byte{0x20, 0, 0x45, 0x04, 0x40, 0x0f, 0x0b},
			[]byte{0x20, 0}, i32c(1), []byte{0x6b, 0x10, 0},
			[]byte{0x20, 0}, i32c(1), []byte{0x6b, 0x10, 0})}},
	}.Bytes()
}

// mutual are two functions that call each other for ever, one of them through
// a table.
func mutual() []byte {
	return wasmModule{
		Types:  [][]byte{sig("", "")},
		Tables: [][]byte{{0x70, 1, 1, 1}},
		Elems:  [][]byte{cat([]byte{0}, i32c(0), []byte{0x0b}, vec([]byte{0}))},
		Funcs: []wasmFunc{
			{Name: "run", Code: []byte{0x10, 1}},
			{Code: cat(i32c(0), []byte{0x11, 0, 0})},
		},
	}.Bytes()
}

// brTable jumps by its argument to one of n targets.
func brTable(n int) []byte {
	code := []byte{0x02, 0x40, 0x02, 0x40, 0x20, 0, 0x0e}
	code = append(code, leb(uint64(n))...)
	code = append(code, bytes.Repeat([]byte{0}, n)...)
	code = append(code, 1, 0x0b)
	code = append(append(code, i32c(1)...), 0x0f, 0x0b)
	return wasmModule{
		Types: [][]byte{sig("i", "i")},
		Funcs: []wasmFunc{{Name: "run", Code: append(code, i32c(2)...)}},
	}.Bytes()
}

// manyLocals recurses with n locals, each with a value of its own that is live
// across the call.
func manyLocals(n int) []byte {
	var load, store []byte
	for i := range n {
		load = cat(load, []byte{0x10, 1, 0x21}, leb(uint64(i+1)))
		store = cat(store, []byte{0x20}, leb(uint64(i+1)), []byte{0x6a})
	}
	return wasmModule{
		Types: [][]byte{sig("i", "i"), sig("", "i")},
		Funcs: []wasmFunc{{Name: "run", Locals: vec(cat(leb(uint64(n)), []byte{0x7f})), Code: cat(
			load, []byte{0x20, 0}, i32c(1), []byte{0x6a, 0x10, 0}, store)}, {Type: 1, Code: i32c(3)}},
	}.Bytes()
}

func TestRunawaysEnd(t *testing.T) {
	withMemory := func(code []byte) []byte {
		return wasmModule{
			Types:  [][]byte{sig("", "")},
			Memory: []byte{1, 1, 0x80, 0x08}, // up to 1024 pages, 64 MiB
			Funcs:  []wasmFunc{{Name: "run", Code: cat(i32c(1023), []byte{0x40, 0, 0x1a}, code)}},
		}.Bytes()
	}
	forever := func(body []byte) []byte { return cat([]byte{0x03, 0x40}, body, []byte{0x0c, 0, 0x0b}) }
	fill := cat(i32c(0), i32c(7), i32c(64<<20), []byte{0xfc, 11, 0})
	up := cat(i32c(64), i32c(0), i32c(64<<20-64), []byte{0xfc, 10, 0, 0})
	for _, c := range []struct {
		name string
		wasm []byte
		args []uint64
		fuel int64
		want meter.Cause
	}{
		{"tight loop", tightLoop(), nil, 50_000_000, meter.CauseFuel},
		{"two self-calls", twoSelfCalls(), []uint64{40}, 50_000_000, meter.CauseFuel},
		{"mutual recursion", mutual(), nil, ample, meter.CauseStack},
		{"recursion with 1,000 locals", manyLocals(1000), []uint64{0}, ample, meter.CauseStack},
		{"memory.fill for ever", withMemory(forever(fill)), nil, 200_000_000, meter.CauseFuel},
		{"memory.copy for ever", withMemory(forever(up)), nil, 200_000_000, meter.CauseFuel},
		{"memory.grow by nothing for ever", withMemory(forever(cat(i32c(0), []byte{0x40, 0, 0x1a}))), nil, 40_000_000, meter.CauseFuel},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, wazero.NewRuntimeConfigCompiler(), c.wasm)
			begin := time.Now()
			_, err := g.call(c.fuel, smallStack, "run", c.args...)
			took := time.Since(begin)
			if err == nil || g.Cause() != c.want || trapText(err) != "wasm error: unreachable" {
				t.Fatalf("%q, cause %v, want %v", trapText(err), g.Cause(), c.want)
			}
			if c.want == meter.CauseStack && g.StackLeft() >= 0 {
				t.Errorf("%d bytes of stack left", g.StackLeft())
			}
			if (c.want == meter.CauseFuel) != (g.Left() < 0) {
				t.Errorf("%d units left", g.Left())
			}
			if took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			t.Logf("ended after %v", took)
		})
	}
}

// A trap of the guest's own is not taken for one of the meter, even when it
// comes with the last unit.
func TestCauseOfOrdinaryTrap(t *testing.T) {
	wasm := wasmModule{
		Types: [][]byte{sig("", "")},
		Funcs: []wasmFunc{{Name: "run", Code: []byte{0x00}}, {Name: "nop", Code: []byte{0x01}}},
	}.Bytes()
	for name, config := range engines {
		g := start(t, config(), wasm)
		if _, err := g.call(2, 0, "run"); err == nil || g.Cause() != meter.CauseNone || g.Left() != 0 {
			t.Errorf("%s: %v, cause %v, left %d", name, err, g.Cause(), g.Left())
		}
		if _, err := g.call(100, smallStack, "nop"); err != nil || g.Left() != 98 || g.StackLeft() != smallStack {
			t.Errorf("%s: %v, left %d units, %d bytes", name, err, g.Left(), g.StackLeft())
		}
	}
}

func TestLargeEncodings(t *testing.T) {
	for name, config := range engines {
		t.Run(name, func(t *testing.T) {
			g := start(t, config(), brTable(65_000))
			for arg, want := range map[uint64]uint64{0: 1, 64_999: 1, 65_000: 2, 1 << 31: 2} {
				if got, err := g.call(1000, smallStack, "run", arg); err != nil || got[0] != want {
					t.Errorf("br_table %d: %v, %v, want %d", arg, got, err, want)
				}
			}
			g = start(t, config(), wasmModule{
				Types: [][]byte{sig("", "i")},
				Funcs: []wasmFunc{{Name: "run", Locals: vec(cat(leb(10_000), []byte{0x7f})),
					Code: cat(i32c(5), []byte{0x21}, leb(9_999), []byte{0x20}, leb(9_999))}},
			}.Bytes())
			if got, err := g.call(1000, smallStack, "run"); err != nil || got[0] != 5 {
				t.Errorf("10,000 locals: %v, %v (cause %v)", got, err, g.Cause())
			}
		})
	}
}

// spinning calls a guest in a goroutine and hands out its error when it ends.
func spinning(t *testing.T, g guest, fuel int64, args ...uint64) (ended chan error) {
	t.Helper()
	g.Reset(fuel, 16<<20)
	f := g.ExportedFunction("run")
	ended = make(chan error, 1)
	running := make(chan struct{})
	go func() {
		close(running)
		_, err := f.Call(context.Background(), args...)
		ended <- err
	}()
	<-running
	return ended
}

func hugeFills() []byte {
	return wasmModule{
		Types:  [][]byte{sig("", "")},
		Memory: []byte{1, 0x80, 0x20, 0x80, 0x20}, // 4096 pages, 256 MiB
		Funcs: []wasmFunc{{Name: "run", Code: cat([]byte{0x03, 0x40},
			i32c(0), i32c(7), i32c(256<<20), []byte{0xfc, 11, 0, 0x0c, 0, 0x0b})}},
	}.Bytes()
}

// endlessGuest is a guest that does not end by itself within any test.
type endlessGuest struct {
	name string
	wasm []byte
	args []uint64
}

func endless() []endlessGuest {
	return []endlessGuest{
		{"tight loop", tightLoop(), nil},
		{"two self-calls", twoSelfCalls(), []uint64{60}},
		{"huge fills", hugeFills(), nil},
	}
}

// TestStop ends guests from another goroutine, many times, at any moment.
func TestStop(t *testing.T) {
	for _, c := range endless() {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, wazero.NewRuntimeConfigCompiler(), c.wasm)
			var took []time.Duration
			for range 20 {
				ended := spinning(t, g, ample, c.args...)
				runtime.GC() // gives the guest time to run, and must come back
				begin := time.Now()
				g.Stop()
				err := <-ended
				took = append(took, time.Since(begin))
				if err == nil || g.Cause() != meter.CauseStop {
					t.Fatalf("%v, cause %v", err, g.Cause())
				}
			}
			judge(t, "stops", took)
		})
	}
}

// TestCollectorRunsBeside checks that stopping the world does not wait for a
// guest. Without the rewrite it waits for ever.
func TestCollectorRunsBeside(t *testing.T) {
	for _, c := range endless() {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, wazero.NewRuntimeConfigCompiler(), c.wasm)
			runtime.GC()
			ended := spinning(t, g, ample, c.args...)
			var took []time.Duration
			for range 20 {
				begin := time.Now()
				runtime.GC()
				took = append(took, time.Since(begin))
			}
			select {
			case err := <-ended:
				t.Fatalf("guest ended: %v", err)
			default:
			}
			g.Stop()
			<-ended
			judge(t, "collections", took)
		})
	}
}

// judge wants the median below 100 ms. The longest is told and not judged: it
// is as much the machine's as ours, and without the meter there is no end.
func judge(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("%d %s: median %v, longest %v", len(took), what, median, took[len(took)-1])
	if median > 100*time.Millisecond {
		t.Errorf("half of the %s took more than %v", what, median)
	}
}

// A start function runs before the host can set the meter.
func TestStartFunctionSpins(t *testing.T) {
	wasm := wasmModule{
		Types: [][]byte{sig("", "")},
		Funcs: []wasmFunc{{Code: []byte{0x03, 0x40, 0x0c, 0, 0x0b}}},
		Start: 1,
	}.Bytes()
	r := newRuntime(t, wazero.NewRuntimeConfigCompiler())
	if _, err := r.Instantiate(context.Background(), rewrite(t, wasm)); err == nil {
		t.Fatal("instantiated")
	}
}

// A guest that calls the host, which calls the guest again, pays from one purse.
func TestReentry(t *testing.T) {
	ctx := context.Background()
	r := newRuntime(t, wazero.NewRuntimeConfigCompiler())
	_, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module) {
		if _, err := m.ExportedFunction("run").Call(ctx); err != nil {
			panic(err)
		}
	}).Export("again").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wasm := wasmModule{
		Types:   [][]byte{sig("", "")},
		Imports: [][]byte{cat(str("host"), str("again"), []byte{0, 0})},
		Funcs:   []wasmFunc{{Name: "run", Code: []byte{0x10, 0}}},
	}.Bytes()
	m, err := r.Instantiate(ctx, rewrite(t, wasm))
	if err != nil {
		t.Fatal(err)
	}
	g := guest{m, bind(t, m)}
	if _, err := g.call(ample, 64<<10, "run"); err == nil || g.Cause() != meter.CauseStack {
		t.Fatalf("%v, cause %v", err, g.Cause())
	}
}

// The estimate of a frame must not be below what the compiler takes. With the
// budget out of the way, recursion ends at the runtime's own ceiling, which
// lies above 50,000,000 bytes: no less may have been charged by then.
func TestFrameEstimateCoversTheNativeStack(t *testing.T) {
	deep := func(code []byte, locals []byte) []byte {
		return wasmModule{
			Types: [][]byte{sig("i", "i"), sig("", "i")},
			Funcs: []wasmFunc{{Name: "run", Locals: locals, Code: code}, {Type: 1, Code: i32c(3)}},
		}.Bytes()
	}
	// Values of one local, each live across the recursive call.
	assigned := []byte{}
	for range 200 {
		assigned = cat(assigned, []byte{0x10, 1, 0x22, 1, 0x10, 1, 0x6a})
	}
	sums := bytes.Repeat([]byte{0x6a}, 200)
	operands := []byte{}
	for range 300 {
		operands = cat(operands, []byte{0x10, 1})
	}
	self := cat([]byte{0x20, 0}, i32c(1), []byte{0x6a, 0x10, 0})
	for name, wasm := range map[string][]byte{
		"two self-calls":      deep(cat(self, self, []byte{0x6a}), nil),
		"20 locals":           manyLocals(20),
		"1,000 locals":        manyLocals(1000),
		"300 operands":        deep(cat(operands, self, bytes.Repeat([]byte{0x6a}, 300)), nil),
		"200 values, 1 local": deep(cat(assigned, self, sums), vec([]byte{1, 0x7f})),
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, wazero.NewRuntimeConfigCompiler(), wasm)
			_, err := g.call(ample, amplyDeep, "run", 0)
			if err == nil || g.Cause() != meter.CauseNone {
				t.Fatalf("%q, cause %v, want the runtime's own overflow", trapText(err), g.Cause())
			}
			used := amplyDeep - g.StackLeft()
			t.Logf("%d MB charged when the runtime's stack was full", used/1e6)
			if used < 50_000_000 {
				t.Errorf("%d bytes charged, the runtime had used at least 50,000,000", used)
			}
		})
	}
}
