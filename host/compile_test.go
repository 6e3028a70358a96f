package host

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// slowToCompile is a guest that keeps the compiler busy for a second or more.
func slowToCompile() []byte {
	table := cat(op(0x02, 0x40), i32c(0), op(0x0e), leb(40_000), make([]byte, 40_001), op(0x0b))
	return guestModule{more: []wasmtest.Func{{Code: table}, {Code: table}}}.bytes()
}

// A stop does not wait for a compiler, which can't be interrupted, and what that
// has made is freed when it is through.
func TestStopDoesNotWaitForTheCompiler(t *testing.T) {
	wasm := slowToCompile()
	begin := time.Now()
	openGuest(t, wasm, Options{})
	whole := time.Since(begin)

	cache, err := OpenCache(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(context.Context) error{
		"open": func(ctx context.Context) error {
			_, err := Open(ctx, wasm, Options{})
			return err
		},
		"with a cache": func(ctx context.Context) error {
			_, err := Prepare(ctx, wasm, Options{Cache: cache})
			return err
		},
		"inspect": func(ctx context.Context) error {
			_, err := Inspect(ctx, wasm, InspectOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- prepare(ctx) }()
			for !compilerRuns() {
				time.Sleep(time.Millisecond)
			}
			begin := time.Now()
			cancel()
			err := <-done
			took := time.Since(begin)
			if !errors.Is(err, context.Canceled) || !errors.Is(err, errAbandoned) {
				t.Errorf("%v", err)
			}
			if took > whole/2 {
				t.Errorf("it took %v to stop, and %v to compile", took, whole)
			}
			if !compilerRuns() {
				t.Error("the compiler was through by then: nothing was tried")
			}
			for runtime.NumGoroutine() > before || compilerRuns() {
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	if _, err := Open(doneContext(), wasm, Options{}); !errors.Is(err, context.Canceled) || errors.Is(err, errAbandoned) {
		t.Errorf("with a context that is done: %v", err)
	}
}

func doneContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// compilerRuns tells whether a goroutine is in wazero's compiler.
func compilerRuns() bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "wazevo.(*engine).CompileModule")
}

// deepTrap is a guest that traps 31 frames deep in functions of this name and
// type.
func deepTrap(name, params string) []byte {
	g := guestModule{}
	m := g.module()
	m.Types = append(m.Types, sig("i"+params, ""))
	typ, fn := len(m.Types)-1, len(m.Funcs)
	rest := make([]byte, 0, 2*len(params))
	for range params {
		rest = append(rest, 0x41, 0)
	}
	m.Funcs = append(m.Funcs, wasmtest.Func{Type: typ, Code: cat(arg0, op(0x45, 0x04, 0x40), opUnreachable, op(0x0b),
		arg0, i32c(1), op(0x6b), rest, callf(fn))})
	for i := range m.Funcs {
		if m.Funcs[i].Name == abi.ExportDeliver {
			m.Funcs[i].Code = cat(i32c(40), rest, callf(fn), storeAll)
		}
	}
	sub := func(id byte, body []byte) []byte { return cat(op(id), leb(uint64(len(body))), body) }
	m.Custom["name"] = cat(sub(0, str(name)), sub(1, vec(cat(leb(uint64(fn)), str(name)))),
		sub(2, vec(cat(leb(uint64(fn)), vec(cat(leb(0), str(name)))))))
	return m.Bytes()
}

// A stack trace has 30 names and signatures: what a trap costs must not be a
// hundred times the name section.
func TestTrapIsCheapWhateverTheNames(t *testing.T) {
	long := strings.Repeat("é", 5<<20)
	for name, wasm := range map[string][]byte{
		"names":      deepTrap(long, ""),
		"parameters": deepTrap("f", strings.Repeat("i", 999)),
	} {
		t.Run(name, func(t *testing.T) {
			crashes := openCrashes(t, CrashOptions{})
			s := openGuest(t, wasm, Options{Crashes: crashes})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := s.Deliver(context.Background(), batchOf(1, "x"))
			runtime.ReadMemStats(&after)
			if r.Outcome != abi.Trap || len(r.Detail) > 2*abi.MaxVerdictText {
				t.Errorf("%v, a detail of %d bytes", r.Outcome, len(r.Detail))
			}
			took := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d KiB", took>>10)
			if took > 8<<20 {
				t.Errorf("a trap took %d KiB", took>>10)
			}
			if b, _ := lastBundle(t, crashes); len(b.Trace) == 0 || len(b.Trace) > 40<<10 {
				t.Errorf("a trace of %d bytes", len(b.Trace))
			}
		})
	}
}
