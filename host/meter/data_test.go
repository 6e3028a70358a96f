package meter_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// dataSection returns the contents of a module's data section and the number of its
// segments.
func dataSection(t *testing.T, wasm []byte) (body []byte, segments int) {
	t.Helper()
	for at := 8; at < len(wasm); {
		id := wasm[at]
		size, n := binary.Uvarint(wasm[at+1:])
		body := wasm[at+1+n:][:size]
		if id == 11 {
			count, _ := binary.Uvarint(body)
			return body, int(count)
		}
		at += 1 + n + int(size)
	}
	t.Fatal("no data section")
	return nil, 0
}

// memoryOf instantiates a module without running anything of it, and returns its
// memory. It is nil if the module can't be instantiated.
func memoryOf(t *testing.T, wasm []byte) []byte {
	t.Helper()
	ctx := context.Background()
	r := newRuntime(t, wazero.NewRuntimeConfigInterpreter())
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	compiled, err := r.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		if !strings.Contains(err.Error(), "out of bounds") {
			t.Fatal(err)
		}
		return nil
	}
	return firstBytes(t, m.Memory())
}

func firstBytes(t *testing.T, m api.Memory) []byte {
	t.Helper()
	all, ok := m.Read(0, m.Size())
	if !ok {
		t.Fatal("the memory can't be read")
	}
	return bytes.Clone(all)
}

// Segments close to each other become one, where a fresh memory reads the same and
// nothing can name them; otherwise the section is left as it came.
func TestDataSegmentsAreJoined(t *testing.T) {
	at := func(from int32, text string) []byte { return cat([]byte{0}, i32c(from), []byte{0x0b}, str(text)) }
	in0 := func(from int32, text string) []byte { return cat([]byte{2, 0}, i32c(from), []byte{0x0b}, str(text)) }
	passive := func(text string) []byte { return cat([]byte{1}, str(text)) }
	const page = 65536
	for _, c := range []struct {
		name     string
		segments [][]byte
		count    bool // there is a data count
		want     int  // segments; 0 if the section is to be left alone
	}{
		{"one", [][]byte{at(5, "a")}, false, 1},
		{"adjacent", [][]byte{at(0, "abc"), at(3, "def")}, false, 1},
		{"a hole of 64", [][]byte{at(7, "abc"), at(74, "def")}, false, 1},
		{"a hole of 65", [][]byte{at(7, "abc"), at(75, "def")}, false, 2},
		{"from 0 on is no hole", [][]byte{at(20, "abc")}, false, 1},
		{"in any order", [][]byte{at(200, "c"), at(10, "a"), at(230, "d"), at(40, "b")}, false, 2},
		{"with the index of the memory", [][]byte{in0(10, "a"), at(20, "b")}, false, 1},
		{"empty ones", [][]byte{at(10, ""), at(10, "a"), at(11, "")}, false, 1},
		{"up to the end", [][]byte{at(page-10, "abc"), at(page-3, "def")}, false, 1},
		{"beyond the end", [][]byte{at(page-10, "abc"), at(page-2, "def")}, false, 1},
		{"empty beyond the end", [][]byte{at(page-3, "abc"), at(page+9, "")}, false, 1},
		{"at the end of the address space", [][]byte{at(1, "a"), at(-2, "abc")}, false, 2},
		{"overlapping", [][]byte{at(12, "xyz"), at(10, "abc"), at(20, "d")}, false, 0},
		{"a passive one", [][]byte{at(10, "abc"), passive("p"), at(20, "d")}, false, 0},
		{"a data count", [][]byte{at(10, "abc"), at(20, "d")}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := wasmModule{Memory: []byte{1, 1, 2}}
			var wasm []byte
			if c.count {
				m.Data = c.segments
				wasm = m.Bytes()
			} else {
				wasm = append(m.Bytes(), sec(11, vec(c.segments...))...)
			}
			out := rewrite(t, wasm)
			before, _ := dataSection(t, wasm)
			after, n := dataSection(t, out)
			if c.want == 0 && !bytes.Equal(before, after) {
				t.Errorf("the section is % x, was % x", after, before)
			} else if c.want > 0 && n != c.want {
				t.Errorf("%d segments, want %d: % x", n, c.want, after)
			}
			if !bytes.Equal(memoryOf(t, wasm), memoryOf(t, out)) {
				t.Error("the memory begins otherwise")
			}
		})
	}
	// What another module's memory holds is not ours to fill, and a global may be anything.
	memory := cat(str("env"), str("memory"), []byte{2, 0, 1})
	global := cat(str("env"), str("base"), []byte{3, 0x7f, 0})
	for name, wasm := range map[string][]byte{
		"an imported memory": append(wasmModule{Imports: [][]byte{memory}}.Bytes(), sec(11, vec(at(10, "abc"), at(20, "d")))...),
		"a global": append(wasmModule{Imports: [][]byte{global}, Memory: []byte{1, 1, 2}}.Bytes(),
			sec(11, vec(at(10, "abc"), cat([]byte{0, 0x23, 0, 0x0b}, str("d"))))...),
	} {
		before, _ := dataSection(t, wasm)
		if after, _ := dataSection(t, rewrite(t, wasm)); !bytes.Equal(before, after) {
			t.Errorf("%s: the section is % x, was % x", name, after, before)
		}
	}
}

// Go's linker leaves some ten thousand segments, and an instance begins with the
// same memory after they were joined.
func TestGoGuestHasFewSegments(t *testing.T) {
	wasm := goGuest(t)
	out := rewrite(t, wasm)
	_, before := dataSection(t, wasm)
	_, after := dataSection(t, out)
	if before < 1000 || after > 100 {
		t.Errorf("%d segments, then %d", before, after)
	}
	if !bytes.Equal(memoryOf(t, wasm), memoryOf(t, out)) {
		t.Error("the memory begins otherwise")
	}
}
