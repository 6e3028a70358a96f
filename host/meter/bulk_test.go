package meter_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
)

// bulkModule has a memory of 4 MiB, sets a recognisable pattern, and exports
// the bulk operations with their operands as parameters.
func bulkModule() []byte {
	operands := []byte{0x20, 0, 0x20, 1, 0x20, 2}
	return wasmModule{
		Types:  [][]byte{sig("iii", ""), sig("i", "i")},
		Memory: []byte{1, 64, 65},
		Funcs: []wasmFunc{
			{Name: "fill", Code: cat(operands, []byte{0xfc, 11, 0})},
			{Name: "copy", Code: cat(operands, []byte{0xfc, 10, 0, 0})},
			{Name: "init", Code: cat(operands, []byte{0xfc, 8, 0, 0})},
			{Name: "grow", Type: 1, Code: []byte{0x20, 0, 0x40, 0}},
		},
		Data: [][]byte{cat([]byte{1}, str("a passive segment"))},
	}.Bytes()
}

// TestBulkOperations compares operations longer than a chunk with the
// instructions they replace: overlapping both ways, at the last byte, one
// beyond it, and with a length whose sum wraps. Charged is at least a unit for
// eight bytes, and a failed operation has written nothing.
func TestBulkOperations(t *testing.T) {
	const mib, size = 1 << 20, 4 << 20
	ctx := context.Background()
	for name, config := range engines {
		t.Run(name, func(t *testing.T) {
			plain, err := newRuntime(t, config()).Instantiate(ctx, bulkModule())
			if err != nil {
				t.Fatal(err)
			}
			g := start(t, config(), bulkModule())
			pattern := make([]byte, size)
			for i := range pattern {
				pattern[i] = byte(i*7 + i>>8 + i>>16)
			}
			for _, c := range []struct {
				op      string
				a, b, n uint64
			}{
				{"fill", 3, 9, 0}, {"fill", 3, 9, mib}, {"fill", 3, 9, mib + 1}, {"fill", 0, 1, size},
				{"fill", 1, 1, size}, {"fill", 8, 1, 0xffffffff}, {"fill", 0xffffffff, 1, 2 * mib}, {"fill", size, 1, 0},
				{"copy", 0, 100, 3*mib + 5}, {"copy", 100, 0, 3*mib + 5}, {"copy", 5, 5, 2 * mib},
				{"copy", 2 * mib, 0, 2 * mib}, {"copy", 0, 2 * mib, 2 * mib}, {"copy", 0, 1, size},
				{"copy", 1, 0, size}, {"copy", mib, 0, 3 * mib}, {"copy", mib + 1, 0, 3 * mib}, {"copy", 0, mib + 1, 3 * mib},
				{"copy", 3, 7, 0xffffffff}, {"init", 9, 2, 5}, {"init", 9, 2, 50}, {"init", size, 0, 1},
			} {
				plain.Memory().Write(0, pattern)
				g.Memory().Write(0, pattern)
				_, want := plain.ExportedFunction(c.op).Call(ctx, c.a, c.b, c.n)
				_, got := g.call(ample, smallStack, c.op, c.a, c.b, c.n)
				if trapText(want) != trapText(got) || g.Cause() != meter.CauseNone {
					t.Errorf("%v: %q; rewritten %q, cause %v", c, trapText(want), trapText(got), g.Cause())
				}
				x, _ := plain.Memory().Read(0, size)
				y, _ := g.Memory().Read(0, size)
				if !bytes.Equal(x, y) {
					t.Errorf("%v: memories differ", c)
				}
				if used := ample - g.Left(); got == nil && used < int64(c.n/8) {
					t.Errorf("%v: %d units", c, used)
				}
				if _, err := g.call(10, smallStack, c.op, c.a, c.b, c.n); c.n > 100 && c.n < size && (err == nil || g.Cause() != meter.CauseFuel) && want == nil {
					t.Errorf("%v with 10 units: %v, cause %v", c, err, g.Cause())
				}
			}
			for n, want := range map[uint64]uint64{2: 0xffffffff, 0xffffffff: 0xffffffff, 0: 64} {
				got, err := g.call(1000, smallStack, "grow", n)
				if err != nil || uint64(uint32(got[0])) != want {
					t.Errorf("grow by %d: %v, %v", n, got, err)
				}
			}
			if got, err := g.call(ample, smallStack, "grow", 1); err != nil || got[0] != 64 || ample-g.Left() < 8192 {
				t.Errorf("grow by 1: %v, %v, %d units", got, err, ample-g.Left())
			}
		})
	}
}

// TestChargesAreExact pins what simple shapes cost.
func TestChargesAreExact(t *testing.T) {
	loop := cat([]byte{0x03, 0x40, 0x20, 0}, i32c(1), []byte{0x6b, 0x22, 0, 0x0d, 0, 0x0b})
	long := bytes.Repeat([]byte{0x01}, 1000)
	arm := cat([]byte{0x20, 0, 0x04, 0x40}, long, []byte{0x0b})
	either := cat([]byte{0x20, 0, 0x04, 0x40}, long, []byte{0x05, 0x01, 0x0b})
	skip := cat([]byte{0x02, 0x40, 0x20, 0, 0x0d, 0}, long, []byte{0x0b})
	for _, c := range []struct {
		name string
		code []byte
		arg  uint64
		want int64
	}{
		{"a call of nothing", nil, 0, 1},
		{"three instructions", []byte{1, 1, 1}, 0, 4},
		{"loop, 1 turn", loop, 1, 1 + 1 + 5},
		{"loop, 1,000 turns", loop, 1000, 1 + 1 + 5*1000},
		{"arm taken", arm, 1, 1 + 2 + 1000},
		{"arm not taken", arm, 0, 1 + 2},
		{"either, long arm", either, 1, 1 + 2 + 1 + 1000},
		{"either, short arm", either, 0, 1 + 2 + 1},
		{"branch not taken", skip, 0, 1 + 3 + 1000},
		{"branch taken", skip, 1, 1 + 3},
	} {
		wasm := wasmModule{Types: [][]byte{sig("i", "")}, Funcs: []wasmFunc{{Name: "run", Code: c.code}}}.Bytes()
		g := start(t, wazero.NewRuntimeConfigInterpreter(), wasm)
		if _, err := g.call(ample, smallStack, "run", c.arg); err != nil {
			t.Fatal(err)
		}
		if got := ample - g.Left(); got != c.want {
			t.Errorf("%s: %d units, want %d", c.name, got, c.want)
		}
	}
}
