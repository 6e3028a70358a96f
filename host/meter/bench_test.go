package meter_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// benchmarkRatios runs one workload in turns unmetered, metered and with
// wazero's own interruption, and reports quotients. Where a runtime happens to
// place code and memory makes instances of the same module differ by a third,
// so each variant has several, and the best median counts.
func benchmarkRatios(b *testing.B, instance func(wazero.RuntimeConfig, []byte) api.Module, wasm []byte, name string, args ...uint64) {
	out, _, err := meter.Rewrite(wasm, meter.Options{Fuel: ample, Stack: 32 << 20})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type variant struct {
		api.Function
		kind  int
		gauge *meter.Gauge
		times []float64
	}
	var variants []*variant
	var g *meter.Gauge
	for range 4 {
		metered := instance(wazero.NewRuntimeConfigCompiler(), out)
		g = bind(b, metered)
		variants = append(variants,
			&variant{Function: instance(wazero.NewRuntimeConfigCompiler(), wasm).ExportedFunction(name)},
			&variant{Function: metered.ExportedFunction(name), kind: 1, gauge: g})
	}
	variants = append(variants, &variant{Function: instance(
		wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(true), wasm).ExportedFunction(name), kind: 2})
	for b.Loop() {
		for _, v := range variants {
			if v.gauge != nil {
				v.gauge.Reset(ample, 32<<20)
			}
			begin := time.Now()
			if _, err := v.Call(ctx, args...); err != nil {
				b.Fatal(err)
			}
			v.times = append(v.times, float64(time.Since(begin)))
		}
	}
	best := [3]float64{}
	for _, v := range variants {
		slices.Sort(v.times)
		if m := v.times[len(v.times)/2]; best[v.kind] == 0 || m < best[v.kind] {
			best[v.kind] = m
		}
	}
	b.ReportMetric(best[0], "unmetered-ns")
	b.ReportMetric(best[1]/best[0], "x-metered")
	b.ReportMetric(best[2]/best[0], "x-ctxdone")
	b.ReportMetric(float64(ample-g.Left())/best[1], "units/ns")
	b.ReportMetric(0, "ns/op") // of all together, says nothing
}

func BenchmarkTightLoop(b *testing.B) {
	// local 0 counts down: the least that a loop can be.
	wasm := wasmModule{
		Types: [][]byte{sig("i", "")},
		Funcs: []wasmFunc{{Name: "run", Code: cat(
			[]byte{0x03, 0x40, 0x20, 0}, i32c(1), []byte{0x6b, 0x22, 0, 0x0d, 0, 0x0b})}},
	}.Bytes()
	benchmarkRatios(b, instantiator(b), wasm, "run", 5_000_000)
}

func BenchmarkFibonacci(b *testing.B) {
	benchmarkRatios(b, instantiator(b), fibonacci(), "run", 27)
}

func fibonacci() []byte {
	return wasmModule{
		Types: [][]byte{sig("i", "i")},
		Funcs: []wasmFunc{{Name: "run", Code: cat(
			[]byte{0x20, 0}, i32c(2), []byte{0x48, 0x04, 0x7f, 0x20, 0, 0x05, 0x20, 0}, i32c(1),
			[]byte{0x6b, 0x10, 0, 0x20, 0}, i32c(2), []byte{0x6b, 0x10, 0, 0x6a, 0x0b})}},
	}.Bytes()
}

func BenchmarkGoJSON(b *testing.B)   { benchmarkRatios(b, reactor(b), goGuest(b), "decode", 100) }
func BenchmarkGoSHA256(b *testing.B) { benchmarkRatios(b, reactor(b), goGuest(b), "digest", 300) }

func instantiator(b *testing.B) func(wazero.RuntimeConfig, []byte) api.Module {
	return func(c wazero.RuntimeConfig, wasm []byte) api.Module {
		m, err := newRuntime(b, c).InstantiateWithConfig(context.Background(), wasm, wazero.NewModuleConfig())
		if err != nil {
			b.Fatal(err)
		}
		return m
	}
}

func reactor(b *testing.B) func(wazero.RuntimeConfig, []byte) api.Module {
	return func(c wazero.RuntimeConfig, wasm []byte) api.Module { return startReactor(b, c, wasm) }
}

// BenchmarkEmptyCall shows what Reset and an entry cost.
func BenchmarkEmptyCall(b *testing.B) {
	wasm := wasmModule{Types: [][]byte{sig("", "")}, Funcs: []wasmFunc{{Name: "run", Code: []byte{0x01}}}}.Bytes()
	b.Run("unmetered", func(b *testing.B) {
		f := instantiator(b)(wazero.NewRuntimeConfigCompiler(), wasm).ExportedFunction("run")
		ctx := context.Background()
		for b.Loop() {
			if err := f.CallWithStack(ctx, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("metered", func(b *testing.B) {
		g := start(b, wazero.NewRuntimeConfigCompiler(), wasm)
		f := g.ExportedFunction("run")
		ctx := context.Background()
		for b.Loop() {
			g.Reset(ample, smallStack)
			if err := f.CallWithStack(ctx, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRewrite(b *testing.B) {
	wasm := goGuest(b)
	b.SetBytes(int64(len(wasm)))
	for b.Loop() {
		if _, _, err := meter.Rewrite(wasm, meter.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
