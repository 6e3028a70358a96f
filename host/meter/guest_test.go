package meter_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/host/internal/wasmtest"
	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// buildGoGuest compiles testdata/goguest once for all tests.
var buildGoGuest = sync.OnceValues(func() ([]byte, error) { return wasmtest.BuildGo("testdata/goguest") })

func goGuest(t testing.TB) []byte {
	t.Helper()
	wasm, err := buildGoGuest()
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// startReactor instantiates a guest that needs WASI and calls _initialize.
func startReactor(t testing.TB, c wazero.RuntimeConfig, wasm []byte) api.Module {
	t.Helper()
	ctx := context.Background()
	r := newRuntime(t, c)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	m, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGoGuestComputesTheSame(t *testing.T) {
	ctx := context.Background()
	wasm := goGuest(t)
	out, info, err := meter.Rewrite(wasm, meter.Options{Stack: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes to %d, %d functions, %d charges, largest frame %d bytes", len(wasm), len(out), info.Functions, info.Charges, info.MaxFrame)
	plain := startReactor(t, wazero.NewRuntimeConfigCompiler(), wasm)
	metered := startReactor(t, wazero.NewRuntimeConfigCompiler(), out)
	g := bind(t, metered)
	for _, c := range []struct {
		name string
		arg  uint64
	}{{"decode", 200}, {"digest", 100}, {"deep", 1000}, {"nest", 5000}} {
		want, err := plain.ExportedFunction(c.name).Call(ctx, c.arg)
		if err != nil {
			t.Fatal(err)
		}
		g.Reset(ample, 32<<20)
		got, err := metered.ExportedFunction(c.name).Call(ctx, c.arg)
		if err != nil {
			t.Fatalf("%s: %v, cause %v", c.name, err, g.Cause())
		}
		if got[0] != want[0] {
			t.Errorf("%s(%d) = %d, rewritten %d", c.name, c.arg, want[0], got[0])
		}
		used := ample - g.Left()
		t.Logf("%s(%d): %d units", c.name, c.arg, used)
		g.Reset(used-1, 32<<20)
		if _, err = metered.ExportedFunction(c.name).Call(ctx, c.arg); err != nil && g.Cause() != meter.CauseFuel {
			t.Errorf("%s with too little fuel: %v, cause %v", c.name, err, g.Cause())
		}
	}
}

// What real guests cost, beside the bounds: each has to stay far below.
func TestCostOfRealGuests(t *testing.T) {
	sqlite, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}/embed/sqlite3.wasm", "github.com/ncruces/go-sqlite3").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../plugins/bundled/*.wasm")
	if err != nil || len(files) < 4 {
		t.Fatalf("bundled plugins: %q, %v", files, err)
	}
	guests := map[string][]byte{"a Go guest with encoding/json": goGuest(t)}
	for _, name := range append(files, strings.TrimSpace(string(sqlite))) {
		if guests[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, wasm := range guests {
		_, info, err := meter.Rewrite(wasm, meter.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Logf("%-30s %4.1f MB: %d million units of %d, %d MiB of %d", name, float64(len(wasm))/1e6,
			info.CompileCost/1e6, meter.DefaultCompileCost/1_000_000, info.CompileMemory>>20, meter.DefaultCompileMemory>>20)
		if info.CompileCost > meter.DefaultCompileCost*3/5 || info.CompileMemory > meter.DefaultCompileMemory/2 {
			t.Errorf("%s: too near to the bound", name)
		}
	}
}
