package conformance

import (
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// Where the small sink has its inbox, and how many pages it begins with.
const (
	inbox = 1024
	pages = 20
)

// Instructions of the small sink.
var (
	count    = wasmtest.Cat(wasmtest.I32(inbox), []byte{0x28, 2, 8}) // the number of events of the frame
	answerOK = wasmtest.Cat(count, []byte{0xad})                     // OK(count)
	busy     = wasmtest.I64(4 << 32)
)

// small is a sink of a hundred bytes that appends the payload region as it lies.
// refused is what it does when it gets no memory in audit_deliver.
func small(refused []byte) wasmtest.Module {
	const append, void, number, answer = 0, 1, 2, 3 // types
	end, ret := []byte{0x0b}, []byte{0x0f}
	field := func(at byte) []byte { return wasmtest.Cat(wasmtest.I32(inbox), []byte{0x28, 2, at}) }
	arg := []byte{0x20, 0}
	pagesNow := []byte{0x3f, 0}
	grow := []byte{0x40, 0}
	wanted := wasmtest.Cat(arg, wasmtest.I32(16), []byte{0x76}, wasmtest.I32(2), []byte{0x6a}) // (n >> 16) + 2
	return wasmtest.Module{
		Types:   [][]byte{wasmtest.Sig("ii", "l"), wasmtest.Sig("", ""), wasmtest.Sig("i", "i"), wasmtest.Sig("i", "l")},
		Imports: [][]byte{wasmtest.Cat(wasmtest.Str("audit"), wasmtest.Str("append"), []byte{0}, wasmtest.U(append))},
		Memory:  wasmtest.Cat([]byte{0}, wasmtest.U(pages)),
		Funcs: []wasmtest.Func{
			{Type: void, Name: "audit_abi_1"},
			{Type: number, Name: "audit_reserve", Code: wasmtest.Cat(
				pagesNow, wanted, []byte{0x49, 0x04, 0x40}, // if there are fewer
				wanted, pagesNow, []byte{0x6b}, grow, wasmtest.I32(-1), []byte{0x46, 0x04, 0x40}, wasmtest.I32(0), ret, end, end,
				wasmtest.I32(inbox))},
			{Type: answer, Name: "audit_open", Code: wasmtest.Cat( // {} and nothing else
				arg, wasmtest.I32(2), []byte{0x46, 0x04, 0x7e}, wasmtest.I64(0), []byte{0x05}, wasmtest.I64(5<<32), end)},
			{Type: answer, Name: "audit_deliver", Code: wasmtest.Cat(
				pagesNow, wasmtest.I32(pages+4), []byte{0x49, 0x04, 0x40}, wasmtest.I32(4), grow, wasmtest.I32(-1), []byte{0x46, 0x04, 0x40},
				refused, ret, end, end,
				count, []byte{0x45, 0x04, 0x40}, answerOK, ret, end, // nothing to append
				wasmtest.I32(inbox), field(32), []byte{0x6a}, field(36), []byte{0x10, 0}, // append(inbox + payload offset, length)
				wasmtest.I64(32), []byte{0x88, 0x50, 0x04, 0x7e}, answerOK, []byte{0x05}, busy, end)},
		},
	}
}

func withManifest(t *testing.T, m wasmtest.Module, text string) []byte {
	t.Helper()
	wasm, err := manifest.Append(m.Bytes(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

const smallManifest = `{"name": "small", "version": "1", "capabilities": ["append"], "idempotent": false}`

// TestSmallSink: what a guest does that gets no memory, and what can be said of
// a module that does not run.
func TestSmallSink(t *testing.T) {
	other := small(busy)
	other.Funcs[0].Name = "audit_abi_2"
	starts := small(busy)
	starts.Start = 2
	for name, c := range map[string]struct {
		wasm      []byte
		broken    string
		unchecked string // the first
	}{
		"small":          {withManifest(t, small(busy), smallManifest), "", ""},
		"careless":       {withManifest(t, small(answerOK), smallManifest), "memory R5", ""},
		"text":           {[]byte("hello"), "module R1", "manifest"},
		"no manifest":    {small(busy).Bytes(), "manifest R3", "imports"},
		"another ABI":    {withManifest(t, other, smallManifest), "module R2", "manifest"},
		"start section":  {withManifest(t, starts, smallManifest), "module R1", "manifest"},
		"not asked for":  {withManifest(t, small(busy), `{"name": "small", "version": "1"}`), "imports R4", "config"},
		"unknown grant":  {withManifest(t, small(busy), `{"name": "small", "version": "1", "capabilities": ["append", "files"]}`), "imports R4", "config"},
		"strange schema": {withManifest(t, small(busy), `{"name": "small", "version": "1", "capabilities": ["append"], "config_schema": 7}`), "manifest R3", "imports"},
		"needs a config": {withManifest(t, small(busy), `{"name": "small", "version": "1", "capabilities": ["append"], "config_schema": {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}}}`),
			"", "config"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Check(t.Context(), c.wasm, Options{Cache: cache, Batches: 100})
			if err != nil {
				t.Fatal(err)
			}
			var broken []string
			unchecked := ""
			for _, r := range r.Results {
				if r.Status == Broken {
					broken = append(broken, r.Case+" "+r.Rule)
				}
				if r.Status == Unchecked && unchecked == "" {
					unchecked = r.Case
				}
			}
			if strings.Join(broken, ", ") != c.broken || unchecked != c.unchecked {
				t.Errorf("broken %q, the first unchecked %q; wanted %q and %q", broken, unchecked, c.broken, c.unchecked)
				told(t, r)
			}
		})
	}
}
