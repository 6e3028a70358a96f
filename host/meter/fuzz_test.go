package meter_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// seeds are long enough that a generated module is not all zeros.
func seeds(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, 1500)
		for k := range out[i] {
			out[i][k] = byte(r.Uint32())
		}
	}
	return out
}

type agreement struct {
	returned, trapped int
	executed, charged int64
}

// agree runs a generated module as it is and rewritten, and compares results,
// trap and memory, and what was charged with what was executed.
func agree(t *testing.T, config wazero.RuntimeConfig, choices []byte) (n agreement) {
	t.Helper()
	ctx := context.Background()
	wasm := generate(choices)
	r := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(api.CoreFeaturesV2))
	defer r.Close(ctx)
	plain, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatalf("generated module: %v", err)
	}
	m, err := r.InstantiateWithConfig(ctx, rewrite(t, wasm), wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatalf("rewritten module: %v", err)
	}
	g := guest{m, bind(t, m)}
	before := int64(0) // instructions that earlier calls executed
	for _, args := range [][]uint64{{0, 0}, {1, 7}, {0xffffffff, 123456}} {
		want, wantErr := plain.ExportedFunction("run").Call(ctx, args...)
		got, gotErr := g.call(ample, smallStack, "run", args...)
		used := ample - g.Left()
		if trapText(wantErr) != trapText(gotErr) || g.Cause() != meter.CauseNone {
			t.Fatalf("run(%d): trap %q; rewritten %q, cause %v", args, trapText(wantErr), trapText(gotErr), g.Cause())
		}
		if !slices.Equal(want, got) {
			t.Fatalf("run(%d) = %d; rewritten %d", args, want, got)
		}
		a, _ := plain.Memory().Read(0, plain.Memory().Size())
		b, _ := g.Memory().Read(0, g.Memory().Size())
		if !bytes.Equal(a, b) {
			t.Fatalf("run(%d): memories differ", args)
		}
		executed, err := plain.ExportedFunction("ticks").Call(ctx, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := g.call(ample, smallStack, "ticks", 0, 0); err != nil || same[0] != executed[0] {
			t.Fatalf("%d instructions; rewritten %d, %v", executed[0], same, err)
		}
		if wantErr != nil {
			n.trapped++
			return n // an instance that trapped is not called again
		}
		n.returned++
		if g.StackLeft() != smallStack {
			t.Fatalf("%d bytes of stack not given back", smallStack-g.StackLeft())
		}
		total := int64(executed[0])
		if used < total-before {
			t.Fatalf("%d instructions executed, %d units charged", total-before, used)
		}
		n.executed += total - before
		n.charged += used
		before = total
	}
	return n
}

func TestRandomModulesAgree(t *testing.T) {
	for name, config := range engines {
		t.Run(name, func(t *testing.T) {
			var sum agreement
			for _, s := range seeds(300) {
				n := agree(t, config(), s)
				sum.returned += n.returned
				sum.trapped += n.trapped
				sum.executed += n.executed
				sum.charged += n.charged
			}
			t.Logf("%d calls returned, %d trapped; %d instructions executed, %d units charged",
				sum.returned, sum.trapped, sum.executed, sum.charged)
			if sum.returned < 100 || sum.trapped < 50 {
				t.Errorf("%d calls returned and %d trapped: the generator is lopsided", sum.returned, sum.trapped)
			}
		})
	}
}

func FuzzAgree(f *testing.F) {
	for _, s := range seeds(8) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		agree(t, wazero.NewRuntimeConfigCompiler(), choices)
	})
}

// FuzzRewrite feeds bytes. What Rewrite takes and the runtime then compiles
// has to be something that the runtime would compile as it was: the rewriting
// makes no invalid module valid.
func FuzzRewrite(f *testing.F) {
	for _, s := range seeds(4) {
		f.Add(generate(s))
	}
	f.Add(brTable(10))
	f.Add(mutual())
	f.Add(tightLoop())
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, wasm []byte) { masked(t, ctx, wasm) })
}

func masked(t *testing.T, ctx context.Context, wasm []byte) (accepted bool) {
	before := bytes.Clone(wasm)
	out, info, err := meter.Rewrite(wasm, meter.Options{MaxModuleSize: 1 << 20, MaxLocals: 5000})
	if !bytes.Equal(before, wasm) {
		t.Fatal("the input was changed")
	}
	if err != nil || slices.Contains(info.Dropped, "name") {
		return false
	}
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(64))
	defer r.Close(ctx)
	if _, err := r.CompileModule(ctx, out); err != nil {
		if _, plain := r.CompileModule(ctx, wasm); plain == nil {
			t.Fatalf("valid module broken: %v", err)
		}
		return false
	}
	if _, err := r.CompileModule(ctx, wasm); err != nil {
		t.Fatalf("invalid module made valid: %v", err)
	}
	return true
}

// TestMutations breaks valid modules byte by byte, from the suite and our own.
func TestMutations(t *testing.T) {
	ctx := context.Background()
	names, err := filepath.Glob(filepath.Join(specDir(t), "v2/testdata/*.0.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	modules := [][]byte{mutual(), generate(seeds(1)[0])}
	for _, name := range names {
		wasm, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(wasm) > 16 && len(wasm) < 20_000 {
			modules = append(modules, wasm)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	accepted, refused := 0, 0
	for range 4000 {
		wasm := bytes.Clone(modules[r.IntN(len(modules))])
		for range 1 + r.IntN(2) {
			wasm[8+r.IntN(len(wasm)-8)] = byte(r.Uint32N(256))
		}
		if masked(t, ctx, wasm) {
			accepted++
		} else {
			refused++
		}
	}
	t.Logf("%d mutated modules accepted, %d refused", accepted, refused)
	if accepted < 100 || refused < 100 {
		t.Errorf("%d accepted, %d refused: the mutations are lopsided", accepted, refused)
	}
}
