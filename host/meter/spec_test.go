package meter_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// The WebAssembly specification's own suite, as wazero carries it: JSON files
// with commands, and a binary for each module.
type specFile struct {
	Commands []specCommand `json:"commands"`
}

type specCommand struct {
	Type       string      `json:"type"`
	Line       int         `json:"line"`
	Name       string      `json:"name"`
	As         string      `json:"as"`
	Filename   string      `json:"filename"`
	ModuleType string      `json:"module_type"`
	Text       string      `json:"text"`
	Action     specAction  `json:"action"`
	Expected   []specValue `json:"expected"`
}

type specAction struct {
	Type   string      `json:"type"`
	Module string      `json:"module"`
	Field  string      `json:"field"`
	Args   []specValue `json:"args"`
}

// specTally counts assertions. Those that do not hold without the rewrite say
// something about the runtime and are left out.
type specTally struct {
	sync.Mutex
	files, modules, held, exhaustions, refused, never int
}

func specDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("find the module of wazero: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal/integration_test/spectest")
}

// TestSpecification runs every command of the suite in two worlds, one with the
// modules as they are and one with all of them rewritten. What holds in the
// first has to hold in the second, to the bit and to the text of the trap.
func TestSpecification(t *testing.T) {
	dir := specDir(t)
	imports, err := os.ReadFile(filepath.Join(dir, "testdata/spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		version        string
		engine         string
		files, asserts int
	}{
		{"v1", "compiler", 73, 16_299},
		{"v2", "compiler", 148, 48_312},
		{"v2", "interpreter", 148, 48_312},
	} {
		t.Run(c.version+"/"+c.engine, func(t *testing.T) {
			names, err := filepath.Glob(filepath.Join(dir, c.version, "testdata/*.json"))
			if err != nil {
				t.Fatal(err)
			}
			var tally specTally
			t.Run("files", func(t *testing.T) {
				for _, name := range names {
					t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
						t.Parallel()
						runSpecFile(t, name, imports, engines[c.engine]().WithCoreFeatures(api.CoreFeaturesV2), &tally)
					})
				}
			})
			t.Logf("%d files, %d modules; %d assertions hold with and without the rewrite, %d of them exhaustions; "+
				"%d bad modules refused in both; %d assertions hold in neither",
				tally.files, tally.modules, tally.held, tally.exhaustions, tally.refused, tally.never)
			if tally.files < c.files || tally.held < c.asserts {
				t.Errorf("%d files and %d assertions ran, want at least %d and %d", tally.files, tally.held, c.files, c.asserts)
			}
		})
	}
}

// world is one runtime with the modules of a file in it.
type world struct {
	r       wazero.Runtime
	rewrite bool
	named   map[string]api.Module
	last    api.Module
	gauges  []*meter.Gauge
}

func newWorld(t *testing.T, imports []byte, config wazero.RuntimeConfig, rewrite bool) *world {
	r := wazero.NewRuntimeWithConfig(context.Background(), config)
	t.Cleanup(func() { r.Close(context.Background()) })
	w := &world{r: r, rewrite: rewrite, named: map[string]api.Module{}}
	if err := w.instantiate(imports, ""); err != nil {
		t.Fatalf("instantiate the suite's imports: %v", err)
	}
	return w
}

// errRefused marks what Rewrite did not take.
var errRefused = errors.New("refused by Rewrite")

func (w *world) instantiate(wasm []byte, as string) error {
	if w.rewrite {
		out, _, err := meter.Rewrite(wasm, meter.Options{Fuel: ample, Stack: specStack})
		if err != nil {
			return errors.Join(errRefused, err)
		}
		wasm = out
	}
	config := wazero.NewModuleConfig().WithStartFunctions()
	if as != "" {
		config = config.WithName(as)
	}
	m, err := w.r.InstantiateWithConfig(context.Background(), wasm, config)
	if err != nil {
		return err
	}
	w.last = m
	if w.rewrite {
		g, err := meter.Bind(func(name string) meter.Global {
			if g, ok := m.ExportedGlobal(name).(api.MutableGlobal); ok {
				return g
			}
			return nil
		})
		if err != nil {
			return err
		}
		w.gauges = append(w.gauges, g)
	}
	return nil
}

// specStack is below the runtime's own ceiling, so that the suite's runaway
// recursions end by the meter.
const specStack = 16 << 20

// outcome is what an action did.
type outcome struct {
	values []uint64
	trap   string
	cause  meter.Cause
}

func (w *world) act(a specAction) outcome {
	m := w.last
	if a.Module != "" {
		m = w.named[a.Module]
	}
	if a.Type == "get" {
		return outcome{values: []uint64{m.ExportedGlobal(a.Field).Get()}}
	}
	for _, g := range w.gauges {
		g.Reset(ample, specStack)
	}
	var args []uint64
	for _, v := range a.Args {
		args = append(args, v.words()...)
	}
	f := m.ExportedFunction(a.Field)
	values, err := f.Call(context.Background(), args...)
	o := outcome{values: values, trap: trapText(err)}
	for _, g := range w.gauges {
		o.cause = max(o.cause, g.Cause())
	}
	pos := 0
	for _, typ := range f.Definition().ResultTypes() {
		switch {
		case err != nil:
		case typ == 0x7b:
			pos++
		case typ == 0x70 && values[pos] != 0:
			values[pos] = 1 // an address, different in the two worlds
		}
		pos++
	}
	return o
}

func runSpecFile(t *testing.T, name string, imports []byte, config wazero.RuntimeConfig, tally *specTally) {
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var file specFile
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	plain, metered := newWorld(t, imports, config, false), newWorld(t, imports, config, true)
	both := []*world{plain, metered}
	n := specTally{files: 1}
	defer func() {
		tally.Lock()
		defer tally.Unlock()
		tally.files += n.files
		tally.modules += n.modules
		tally.held += n.held
		tally.exhaustions += n.exhaustions
		tally.refused += n.refused
		tally.never += n.never
	}()

	for i := 0; i < len(file.Commands); i++ {
		c := file.Commands[i]
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("line %d, %s %s: "+format, append([]any{c.Line, c.Type, c.Action.Field}, args...)...)
		}
		switch c.Type {
		case "module":
			as := ""
			if i+1 < len(file.Commands) && file.Commands[i+1].Type == "register" {
				i++
				as = file.Commands[i].As
			}
			wasm := readSpecModule(t, name, c.Filename)
			errs := [2]error{}
			for k, w := range both {
				if errs[k] = w.instantiate(wasm, as); errs[k] == nil && c.Name != "" {
					w.named[c.Name] = w.last
				}
			}
			if (errs[0] == nil) != (errs[1] == nil) {
				t.Fatalf("line %d: instantiate %s: %v, rewritten: %v", c.Line, c.Filename, errs[0], errs[1])
			}
			n.modules++
		case "action", "assert_return", "assert_trap", "assert_exhaustion":
			a, b := plain.act(c.Action), metered.act(c.Action)
			switch {
			case c.Type == "assert_exhaustion" && c.holds(a):
				if b.cause != meter.CauseStack && b.trap != a.trap {
					fail("%q, cause %v; want the stack to be spent", b.trap, b.cause)
				}
				n.held++
				n.exhaustions++
			case b.trap != a.trap || b.cause != meter.CauseNone || !equalWords(a.values, b.values):
				fail("%v; rewritten: %v", a, b)
			case !c.holds(a):
				n.never++
			default:
				n.held++
			}
		case "assert_malformed", "assert_invalid", "assert_unlinkable", "assert_uninstantiable":
			if c.ModuleType == "text" {
				continue
			}
			wasm := readSpecModule(t, name, c.Filename)
			a, b := plain.instantiate(wasm, ""), metered.instantiate(wasm, "")
			linked := c.Type == "assert_unlinkable" || c.Type == "assert_uninstantiable"
			switch {
			case a == nil && errors.Is(b, errRefused) && !linked:
				n.refused++ // more careful than the runtime
			case (a == nil) != (b == nil):
				fail("%v; rewritten: %v", a, b)
			case c.Type == "assert_uninstantiable" && a != nil && trapText(a) != trapText(b):
				fail("%q; rewritten: %q", trapText(a), trapText(b))
			case a == nil:
				n.never++
			default:
				n.refused++
			}
		default:
			fail("unknown command")
		}
	}
}

func readSpecModule(t *testing.T, name, file string) []byte {
	t.Helper()
	wasm, err := os.ReadFile(filepath.Join(filepath.Dir(name), file))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}
