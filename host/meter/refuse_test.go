package meter_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
)

// body is a module with one exported function () -> () of this code, a memory
// and a table.
func body(code ...byte) []byte {
	return wasmModule{
		Types:  [][]byte{sig("", "")},
		Tables: [][]byte{{0x70, 0, 1}},
		Memory: []byte{0, 1},
		Funcs:  []wasmFunc{{Name: "run", Code: code}},
	}.Bytes()
}

// many is n times the same.
func many[T any](n int, v T) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = v
	}
	return list
}

func TestRefusals(t *testing.T) {
	empty := []byte("\x00asm\x01\x00\x00\x00")
	void := wasmModule{Types: [][]byte{sig("", "")}, Funcs: []wasmFunc{{Name: "run"}}}
	export := func(name string, kind, index byte) []byte {
		return cat(empty, sec(1, vec(sig("", ""))), sec(3, vec([]byte{0})),
			sec(7, vec(cat(str(name), []byte{kind, index}))), sec(10, vec([]byte{2, 0, 0x0b})))
	}
	for _, c := range []struct {
		name  string
		wasm  []byte
		want  string // in the reason
		limit string
		fn    int // -1 outside of bodies
	}{
		{"not wasm", []byte("hello, world"), "not a WebAssembly binary", "", -1},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "component", "", -1},
		{"reserved export", export("audit:fuel", 0, 0), `"audit:fuel"`, "", -1},
		{"tag section", cat(empty, sec(13, []byte{0})), "exception handling", "", -1},
		{"unknown section", cat(empty, sec(14, []byte{0})), "unknown section 14", "", -1},
		{"section twice", cat(empty, sec(1, []byte{0}), sec(1, []byte{0})), "repeated or out of order", "", -1},
		{"section without a count", cat(empty, sec(1, nil)), "unexpected end", "", -1},
		{"section with a rest", cat(empty, sec(1, []byte{0, 0})), "1 bytes left over", "", -1},
		{"section beyond the end", cat(empty, []byte{1, 9, 0}), "9 bytes wanted", "", -1},
		{"vector of 4 billion", cat(empty, sec(1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f})), "4294967295 announced", "", -1},
		{"LEB128 of 6 bytes", cat(empty, sec(1, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0})), "longer than 5", "", -1},
		{"LEB128 of 33 bits", cat(empty, sec(1, []byte{0x80, 0x80, 0x80, 0x80, 0x10})), "too large", "", -1},
		{"no body", cat(empty, sec(1, vec(sig("", ""))), sec(3, vec([]byte{0}))), "1 functions declared, 0 bodies", "", -1},
		{"shared memory", cat(empty, sec(5, vec([]byte{3, 1, 1}))), "threads", "", -1},
		{"memory64", cat(empty, sec(5, vec([]byte{4, 1}))), "limits flag 0x4", "", -1},
		{"two memories", cat(empty, sec(5, vec([]byte{0, 1}, []byte{0, 1}))), "multi-memory", "", -1},
		{"value type", cat(empty, sec(1, vec([]byte{0x60, 1, 0x69, 0}))), "value type 0x69", "", -1},
		{"exports our function", export("f", 0, 1), "function index 1 out of range", "", -1},
		{"exports our table", export("f", 1, 0), "table index 0 out of range", "", -1},
		{"exports our global", export("f", 3, 0), "global index 0 out of range", "", -1},
		{"large table", cat(empty, sec(4, vec(cat([]byte{0x70, 0}, leb(2_000_000))))), "table of 2000000", "MaxTableElements", -1},
		{"large tables", cat(empty, sec(4, vec(cat([]byte{0x70, 0}, leb(600_000)), cat([]byte{0x70, 0}, leb(600_000))))), "all tables together", "MaxTableElements", -1},
		{"many tables", cat(empty, sec(4, vec(many(101, []byte{0x70, 0, 0})...))), "more than 100 tables", "MaxTables", -1},
		{"many branches", body(bytes.Repeat([]byte{0x02, 0x40, 0x0b}, 10_000)...), "more than 20000 control instructions", "MaxBranches", 0},
		{"many branches with many locals", wasmModule{Types: void.Types, Funcs: []wasmFunc{{}, shapes[0].make(nil, 1000, 1000)}}.Bytes(), "compiling", "MaxCompileCost", 1},
		{"one function for all the memory", wasmModule{Types: void.Types, Funcs: []wasmFunc{{Code: times(300_000, []byte{0x10, 0})}}}.Bytes(), "for function 0 alone: split it", "MaxCompileMemory", 0},
		{"many functions with many locals", wasmModule{Types: void.Types, Funcs: many(14_000, wasmFunc{
			Locals: vec(cat(leb(10_000), []byte{0x7f}))})}.Bytes(), "compiling needs", "MaxCompileMemory", 3_342},
		{"many parameters", cat(empty, sec(1, vec(sig(strings.Repeat("i", 1001), "")))), "type 0 has 1001", "type size", -1},
		{"many results", cat(empty, sec(1, vec(sig("", ""), sig("", strings.Repeat("i", 1001))))), "type 1 has 1001", "type size", -1},
		{"many types", cat(empty, sec(1, vec(many(10_001, sig("", ""))...))), "10001 entries in the type section are more than 10000", "section entries", -1},
		{"many operands", body(times(10_001, []byte{0x41, 0})...), "more than 10000 operands", "operands", 0},
		{"too many locals", wasmModule{Types: void.Types, Funcs: []wasmFunc{{
			Locals: vec(cat(leb(4_000_000_000), []byte{0x7f}))}}}.Bytes(), "4000000000 parameters and locals", "MaxLocals", 0},
		{"large body", wasmModule{Types: void.Types, Funcs: []wasmFunc{{
			Code: bytes.Repeat([]byte{1}, 3<<20)}}}.Bytes(), "body of", "MaxFunctionSize", -1},
		{"reads our fuel", body(0x23, 0, 0x1a), "global index 0 out of range", "", 0},
		{"writes our fuel", body(0x42, 0, 0x24, 0), "global index 0 out of range", "", 0},
		{"calls our function", body(0x10, 1), "function index 1 out of range", "", 0},
		{"references our function", body(0xd2, 1, 0x1a), "function index 1 out of range", "", 0},
		{"grows our table", body(0xd0, 0x70, 0x41, 0, 0xfc, 15, 1, 0x1a), "table index 1 out of range", "", 0},
		{"calls by our type", body(0x41, 0, 0x11, 1, 0), "type index 1 out of range", "", 0},
		{"block of our type", body(0x02, 1, 0x0b), "type index 1 out of range", "", 0},
		{"memory.grow without a memory", wasmModule{Types: void.Types, Funcs: []wasmFunc{{
			Code: []byte{0x41, 0, 0x40, 0, 0x1a}}}}.Bytes(), "without a memory", "", 0},
		{"memory.grow of memory 1", body(0x41, 0, 0x40, 1, 0x1a), "multi-memory", "", 0},
		{"load from memory 1", body(0x41, 0, 0x28, 0x42, 1, 0, 0x1a), "multi-memory", "", 0},
		{"branch too far", body(0x0c, 1), "branch to label 1, 1 are open", "", 0},
		{"else without if", body(0x02, 0x40, 0x05, 0x0b), "else without if", "", 0},
		{"end too early", body(0x0b), "1 bytes after the end", "", 0},
		{"no end", body(0x02, 0x40), "unexpected end", "", 0},
		{"br_table of 4 billion", body(0x41, 0, 0x0e, 0xff, 0xff, 0xff, 0xff, 0x0f), "announced", "", 0},
		{"return_call", body(0x12, 0), "tail calls", "", 0},
		{"atomics", body(0xfe, 0x03, 0), "threads", "", 0},
		{"try_table", body(0x1f, 0x40, 0, 0x0b), "exception handling", "", 0},
		{"call_ref", body(0x14, 0), "typed function references", "", 0},
		{"struct.new", body(0xfb, 0), "garbage collection", "", 0},
		{"relaxed SIMD", body(0xfd, 0x80, 0x02), "relaxed SIMD", "", 0},
		{"hole in SIMD", body(0xfd, 0x9a, 0x01), "not a vector instruction", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _, err := meter.Rewrite(c.wasm, meter.Options{})
			var refusal *meter.Error
			if out != nil || !errors.As(err, &refusal) {
				t.Fatalf("accepted, or an untyped error: %v", err)
			}
			if !strings.Contains(err.Error(), c.want) || refusal.Limit != c.limit || refusal.Func != c.fn {
				t.Errorf("%v (limit %q, function %d); want %q, %q, %d", err, refusal.Limit, refusal.Func, c.want, c.limit, c.fn)
			}
			if refusal.Offset < 0 || refusal.Offset > len(c.wasm) {
				t.Errorf("offset %d of %d bytes", refusal.Offset, len(c.wasm))
			}
		})
	}
	if _, _, err := meter.Rewrite(tightLoop(), meter.Options{MaxModuleSize: 10}); err == nil || !strings.Contains(err.Error(), "larger than 10") {
		t.Errorf("module over the limit: %v", err)
	}
	if _, _, err := meter.Rewrite(tightLoop(), meter.Options{MaxFunctions: -1}); err == nil {
		t.Error("negative option accepted")
	}
}

// Valid but unusual: everything here has to come out right.
func TestUnusualEncodings(t *testing.T) {
	long := []byte{0x80, 0x80, 0x80, 0x80, 0x00} // 0 in five bytes
	wasm := cat([]byte("\x00asm\x01\x00\x00\x00"),
		sec(0, cat(str("first"), []byte{1, 2, 3})),
		// One type, its count and its section size longer than needed.
		[]byte{1}, []byte{0x88, 0x80, 0x80, 0x80, 0x00}, []byte{0x81, 0x80, 0x80, 0x80, 0x00, 0x60, 0, 0},
		sec(2, []byte{0}), // empty import section
		sec(3, cat([]byte{1}, long)),
		sec(4, []byte{0}),
		sec(5, vec([]byte{0, 1})),
		sec(6, []byte{0}),
		sec(0, cat(str("middle"), []byte{4})),
		sec(7, vec(cat(str("run"), []byte{0}, long))),
		sec(9, []byte{0}),
		sec(12, []byte{0}),
		sec(10, vec(cat([]byte{20}, []byte{0, 0x41}, long, []byte{0x41}, long,
			[]byte{0x36, 0x82, 0x00}, []byte{0x00, 0x01, 0x01, 0x0b}))),
		sec(11, []byte{0}),
		sec(0, cat(str(".debug_line"), []byte("offsets"))),
		sec(0, cat(str("producers"), []byte{0})),
		sec(0, cat(str("name"), []byte{1, 6, 1, 0, 3}, []byte("abc"))),
	)
	out, info, err := meter.Rewrite(wasm, meter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Dropped) != 1 || info.Dropped[0] != ".debug_line" {
		t.Errorf("dropped %q, want .debug_line only", info.Dropped)
	}
	for _, keep := range []string{"\x05first\x01\x02\x03", "\x06middle\x04", "\x09producers\x00", "\x00\x03abc\x01\x0caudit:refill"} {
		if !bytes.Contains(out, []byte(keep)) {
			t.Errorf("%q is gone", keep)
		}
	}
	for name, config := range engines {
		g := start(t, config(), wasm)
		if _, err := g.call(100, smallStack, "run"); err != nil || g.Left() >= 100 {
			t.Errorf("%s: %v, %d units left", name, err, g.Left())
		}
	}
}

// A name section whose counts are made up would make the runtime allocate by
// them: it is dropped, as the specification lets a malformed one be.
func TestMalformedNameSectionIsDropped(t *testing.T) {
	for _, names := range [][]byte{
		{1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f},
		{1, 4, 1, 0, 9, 'a'},
		{1, 4, 1, 7, 1, 'a'}, // no function 7: it would be one of ours
		{2, 7, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		{0, 2, 1, 0xff},
	} {
		m := wasmModule{Types: [][]byte{sig("", "")}, Funcs: []wasmFunc{{Name: "run"}}, Custom: map[string][]byte{"name": names}}
		_, info, err := meter.Rewrite(m.Bytes(), meter.Options{})
		if err != nil || len(info.Dropped) != 1 {
			t.Errorf("% x: %v, dropped %q", names, err, info.Dropped)
		}
	}
}

// Long names are cut between two characters, what is too much of them is left
// out, and what no stack trace shows is too.
func TestNamesAreCut(t *testing.T) {
	sub := func(id byte, body []byte) []byte { return cat([]byte{id}, leb(uint64(len(body))), body) }
	long := strings.Repeat("a", 255) + strings.Repeat("é", 1<<20)
	const functions = 30_000
	m := wasmModule{Types: [][]byte{sig("", "")}, Funcs: many(functions, wasmFunc{}), Custom: map[string][]byte{
		"name": cat(sub(0, str(long)), sub(1, cat(leb(functions), each(functions, func(i int) []byte { return cat(leb(uint64(i)), str(long[:299])) }))),
			sub(2, vec(cat(leb(0), vec(cat(leb(0), str("a local"))))))),
	}}
	m.Funcs[functions-1].Name = "last"
	wasm := m.Bytes()
	out, info, err := meter.Rewrite(wasm, meter.Options{})
	if err != nil || len(info.Dropped) != 0 {
		t.Fatal(err, info.Dropped)
	}
	if grown := len(out) - len(wasm); grown > -(2<<20) || bytes.Contains(out, []byte("a local")) || !bytes.Contains(out, []byte("audit:refill")) {
		t.Errorf("%d bytes to %d", len(wasm), len(out))
	}
	r := newRuntime(t, wazero.NewRuntimeConfigInterpreter())
	c, err := r.CompileModule(context.Background(), out)
	if err != nil {
		t.Fatal(err)
	}
	if name := c.Name(); name != long[:255] {
		t.Errorf("the module's name has %d bytes", len(name))
	}
	if name := c.ExportedFunctions()["last"].DebugName(); len(name) > 300 || !strings.HasSuffix(name, ".$29999") {
		t.Errorf("the last function is called %q", name)
	}
	for _, wasm := range [][]byte{
		wasmModule{Types: [][]byte{sig("", "")}, Funcs: []wasmFunc{{Name: strings.Repeat("n", 1025)}}}.Bytes(),
		cat([]byte("\x00asm\x01\x00\x00\x00"), sec(0, str(strings.Repeat("n", 1025)))),
	} {
		var refusal *meter.Error
		if _, _, err := meter.Rewrite(wasm, meter.Options{}); !errors.As(err, &refusal) || refusal.Limit != "name" || len(err.Error()) > 200 {
			t.Errorf("a name of 1025 bytes: %v", err)
		}
	}
}

// table.grow stops at the limit, whatever maximum the module asked for.
func TestTableIsClamped(t *testing.T) {
	for _, limits := range [][]byte{{0, 1}, cat([]byte{1, 1}, leb(4_000_000_000))} {
		wasm := wasmModule{
			Types:  [][]byte{sig("i", "i")},
			Tables: [][]byte{cat([]byte{0x70}, limits)},
			Funcs:  []wasmFunc{{Name: "run", Code: []byte{0xd0, 0x70, 0x20, 0, 0xfc, 15, 0}}},
		}.Bytes()
		g := start(t, wazero.NewRuntimeConfigCompiler(), wasm)
		got, err := g.call(ample, smallStack, "run", 999_999)
		if err != nil || got[0] != 1 {
			t.Errorf("grow to the limit: %v, %v", got, err)
		}
		if used := ample - g.Left(); used < 999_999 {
			t.Errorf("%d units for 999,999 elements", used)
		}
		if got, err = g.call(ample, smallStack, "run", 1); err != nil || int32(got[0]) != -1 {
			t.Errorf("grow beyond the limit: %v, %v", got, err)
		}
	}
}

// Tables share what is allowed to all of them.
func TestTablesShareTheLimit(t *testing.T) {
	grow := func(table byte) wasmFunc {
		return wasmFunc{Name: "grow" + string('0'+table), Code: []byte{0xd0, 0x70, 0x20, 0, 0xfc, 15, table}}
	}
	wasm := wasmModule{
		Types:  [][]byte{sig("i", "i")},
		Tables: [][]byte{{0x70, 0, 100}, {0x70, 1, 0, 50}},
		Funcs:  []wasmFunc{grow(0), grow(1)},
	}.Bytes()
	g := start(t, wazero.NewRuntimeConfigCompiler(), wasm)
	share := uint64(1_000_000-100) / 2
	for _, c := range []struct {
		name string
		n    uint64
		want int32
	}{{"grow0", share + 1, -1}, {"grow0", share, 100}, {"grow1", 51, -1}, {"grow1", 50, 0}} {
		if got, err := g.call(ample, smallStack, c.name, c.n); err != nil || int32(got[0]) != c.want {
			t.Errorf("%s by %d: %v, %v, want %d", c.name, c.n, got, err, c.want)
		}
	}
}

func TestBindNeedsARewrittenModule(t *testing.T) {
	if _, err := meter.Bind(func(string) meter.Global { return nil }); err == nil || !strings.Contains(err.Error(), "audit:fuel") {
		t.Errorf("err %v", err)
	}
}
