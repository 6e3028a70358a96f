package host

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

func inspect(t *testing.T, wasm []byte) *Inspection {
	t.Helper()
	in, err := Inspect(context.Background(), wasm, InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if in.Size != len(wasm) || len(in.Digest) != 64 {
		t.Errorf("size %d, digest %q", in.Size, in.Digest)
	}
	if in.Fits != (in.Problem == "") {
		t.Errorf("fits %t, problem %q", in.Fits, in.Problem)
	}
	return in
}

func TestInspect(t *testing.T) {
	g := guestModule{
		imports:  [][]byte{imported("audit", "sql", typSQL), imported("audit", "log", typThree), imported(wasiModule, "proc_exit", typInt)},
		manifest: `{"name":"ledger","version":"1.2.3","capabilities":["sql"],"idempotent":true}`,
	}
	in := inspect(t, g.bytes())
	if !in.Fits || !slices.Equal(in.ABI, []int{1}) || !slices.Equal(in.Capabilities, []string{"sql"}) || !in.Compiled || in.Compile <= 0 {
		t.Errorf("%+v", in)
	}
	if in.Manifest == nil || in.Manifest.Name != "ledger" || in.Manifest.Version != "1.2.3" || !in.Manifest.Idempotent {
		t.Errorf("manifest %+v", in.Manifest)
	}
	if in.MemoryMin != 2*wasmPage || in.MemoryMax != DefaultMemory || in.Functions != 4 || in.Charges < 4 || in.MeteredSize <= in.Size {
		t.Errorf("%+v", in)
	}
	if want := []Symbol{{"audit", "sql", "(i32, i32, i32, i32, i32) -> (i64)"}, {"audit", "log", "(i32, i32, i32) -> ()"}, {wasiModule, "proc_exit", "(i32) -> ()"}}; !slices.Equal(in.Imports, want) {
		t.Errorf("imports %v", in.Imports)
	}
	if want := []Symbol{{"", "audit_abi_1", "() -> ()"}, {"", "audit_deliver", "(i32) -> (i64)"}, {"", "audit_open", "(i32) -> (i64)"},
		{"", "audit_reserve", "(i32) -> (i32)"}, {"", "memory", "memory"}}; !slices.Equal(in.Exports, want) {
		t.Errorf("exports %v", in.Exports)
	}
	b, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(b), `"sha256":"`) || !strings.Contains(string(b), `"capabilities":["sql"]`) {
		t.Errorf("%s, %v", b, err)
	}
}

// What does not fit is shown as far as it can be read.
func TestInspectShowsWhatDoesNotFit(t *testing.T) {
	in := inspect(t, guestModule{change: func(m *wasmtest.Module) {
		m.Funcs[0].Name = "audit_abi_7"
		m.Funcs = append(m.Funcs, wasmtest.Func{Type: typVoid, Name: "audit_abi_3"}, wasmtest.Func{Type: typVoid, Name: "audit_abi_x"})
		m.Start = 1
		m.Imports = [][]byte{imported("env", "abort", typVoid), cat(str("env"), str("t"), op(1, 0x70, 0, 1))}
		m.Tables = nil
	}}.bytes())
	if in.Fits || !in.Start || !slices.Equal(in.ABI, []int{3, 7}) || in.Manifest == nil {
		t.Errorf("%+v", in)
	}
	for _, w := range []string{"wanted the version marker audit_abi_1, found audit_abi_3, audit_abi_7", "start section", "import env.abort", "import env.t"} {
		if !strings.Contains(in.Problem, w) {
			t.Errorf("%q lacks %q", in.Problem, w)
		}
	}
	if want := []Symbol{{"env", "abort", "() -> ()"}, {"env", "t", "table"}}; !slices.Equal(in.Imports, want) {
		t.Errorf("imports %v", in.Imports)
	}

	in = inspect(t, guestModule{change: func(m *wasmtest.Module) { m.Custom = nil }}.bytes())
	if in.Fits || in.Manifest != nil || !slices.Equal(in.ABI, []int{1}) || in.Problem != "no audit.manifest section; add one with: audit-host plugin manifest MANIFEST.json FILE.wasm" {
		t.Errorf("%+v", in)
	}
	in = inspect(t, []byte("hello"))
	if in.Fits || in.Imports != nil || !strings.Contains(in.Problem, "not a WebAssembly binary") {
		t.Errorf("%+v", in)
	}
	in = inspect(t, guestModule{memory: leb(0), change: func(m *wasmtest.Module) { m.Memory = cat(op(0), leb(60_000)) }}.bytes())
	if in.Fits || !strings.Contains(in.Problem, "60000 pages") {
		t.Errorf("%+v", in)
	}
	in = inspect(t, guestModule{change: func(m *wasmtest.Module) { m.Funcs[0].Code = op(0x6a) }}.bytes())
	if in.Fits || !strings.Contains(in.Problem, "compile") {
		t.Errorf("%+v", in)
	}
}

func TestInspectGoGuest(t *testing.T) {
	c := newCache(t, filepath.Join(t.TempDir(), "cache"), nil)
	cold, err := Inspect(context.Background(), goGuest(t), InspectOptions{Cache: c})
	if err != nil || !cold.Fits {
		t.Fatalf("%+v, %v", cold, err)
	}
	// The second from the files: this cache's memory has given it up.
	warm, err := Inspect(context.Background(), goGuest(t), InspectOptions{Cache: c})
	if err != nil || !warm.Fits || warm.Compile > cold.Compile/2 {
		t.Fatalf("%v after %v, %v", warm.Compile, cold.Compile, err)
	}
	t.Logf("%d bytes, metered %d, %d functions, %d charges, largest frame %d bytes, compile %v, from the cache %v",
		cold.Size, cold.MeteredSize, cold.Functions, cold.Charges, cold.MaxFrame, cold.Compile, warm.Compile)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if in, err := Inspect(ctx, goGuest(t), InspectOptions{}); err == nil {
		t.Errorf("%+v", in)
	}
}
