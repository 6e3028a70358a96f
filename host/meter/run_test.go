package meter_test

import (
	"context"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

const (
	ample      = int64(1) << 50        // fuel that no test spends
	amplyDeep  = int64(meter.MaxStack) // stack beyond the runtime's own ceiling
	smallStack = int64(1) << 20
)

// engines are the two ways wazero runs a guest. Both have to agree.
var engines = map[string]func() wazero.RuntimeConfig{
	"compiler":    wazero.NewRuntimeConfigCompiler,
	"interpreter": wazero.NewRuntimeConfigInterpreter,
}

// guest is an instance with its meter.
type guest struct {
	api.Module
	*meter.Gauge
}

func rewrite(t testing.TB, wasm []byte) []byte {
	t.Helper()
	out, _, err := meter.Rewrite(wasm, meter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newRuntime(t testing.TB, c wazero.RuntimeConfig) wazero.Runtime {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(context.Background(), c.WithCoreFeatures(api.CoreFeaturesV2))
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

func bind(t testing.TB, m api.Module) *meter.Gauge {
	t.Helper()
	g, err := meter.Bind(func(name string) meter.Global {
		if g, ok := m.ExportedGlobal(name).(api.MutableGlobal); ok {
			return g
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// start rewrites and instantiates a module.
func start(t testing.TB, c wazero.RuntimeConfig, wasm []byte) guest {
	t.Helper()
	r := newRuntime(t, c)
	m, err := r.InstantiateWithConfig(context.Background(), rewrite(t, wasm), wazero.NewModuleConfig())
	if err != nil {
		t.Fatal(err)
	}
	return guest{m, bind(t, m)}
}

// call runs an export with the given fuel and stack.
func (g guest) call(fuel, stack int64, name string, args ...uint64) ([]uint64, error) {
	g.Reset(fuel, stack)
	return g.ExportedFunction(name).Call(context.Background(), args...)
}

// trapText is the first line of an error: what trapped, without the stack.
func trapText(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimSuffix(line, " (recovered by wazero)")
}
