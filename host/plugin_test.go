package host

import (
	"testing"

	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// The encoder under short names.
var (
	cat  = wasmtest.Cat
	i32c = wasmtest.I32
	i64c = wasmtest.I64
	leb  = wasmtest.U
	str  = wasmtest.Str
	vec  = wasmtest.Vec
	sec  = wasmtest.Section
	sig  = wasmtest.Sig
)

// Types of a plugin built by plugin.
const (
	typVoid   = iota // () -> ()
	typI32           // (i32) -> (i32)
	typAnswer        // (i32) -> (i64)
	typDone          // () -> (i64)
	typInt           // (i32) -> ()
	typFour          // (i32, i32, i32, i32) -> ()
	typThree         // (i32, i32, i32) -> ()
	typWASI4         // (i32, i32, i32, i32) -> (i32)
	typMetric        // (i32, i64) -> ()
	typSQL           // (i32, i32, i32, i32, i32) -> (i64)
	typNow           // () -> (i64)
	typTwo           // (i32, i32) -> ()
)

// inbox is where the plugins of these tests keep their inbox: the batch's
// number of events stands 8 bytes behind it.
const inbox = 1024

// Instructions.
var (
	opUnreachable = []byte{0x00}
	opReturn      = []byte{0x0f}
	opDrop        = []byte{0x1a}
	count         = cat(i32c(inbox), []byte{0x28, 2, 8}) // i32.load offset=8
	storeAll      = cat(count, []byte{0xad})             // i64.extend_i32_u: OK(count)
	arg0          = []byte{0x20, 0}
)

func op(b ...byte) []byte { return b }

func forever(body ...[]byte) []byte {
	return cat(op(0x03, 0x40), cat(body...), op(0x0c, 0, 0x0b))
}

// callf is the call instruction. Imports come first in the index space.
func callf(i int) []byte { return cat(op(0x10), leb(uint64(i))) }

// when runs code if the batch has n events.
func when(n int32, code []byte) []byte {
	return cat(count, i32c(n), op(0x46, 0x04, 0x40), code, op(0x0b))
}

// says returns from audit_deliver.
func says(outcome, arg uint32) []byte {
	return cat(i64c(int64(uint64(outcome)<<32|uint64(arg))), opReturn)
}

// guestModule is what a test changes of a well-behaved plugin.
type guestModule struct {
	imports  [][]byte
	reserve  []byte // code, nil for one that returns inbox
	open     []byte // nil for one that returns OK
	deliver  []byte // runs before the batch is stored
	memory   []byte // limits, nil for 2 to 65,536 pages
	manifest string // nil for one without capabilities
	more     []wasmtest.Func
	change   func(m *wasmtest.Module)
}

func imported(module, name string, typ byte) []byte { return cat(str(module), str(name), op(0, typ)) }

const plainManifest = `{"name":"hostile","version":"1"}`

// module gives the module before it is encoded.
func (g guestModule) module() wasmtest.Module {
	if g.reserve == nil {
		g.reserve = i32c(inbox)
	}
	if g.open == nil {
		g.open = i64c(0)
	}
	if g.memory == nil {
		g.memory = cat(op(1, 2), leb(65_536))
	}
	if g.manifest == "" {
		g.manifest = plainManifest
	}
	m := wasmtest.Module{
		Types: [][]byte{
			typVoid: sig("", ""), typI32: sig("i", "i"), typAnswer: sig("i", "l"), typDone: sig("", "l"), typInt: sig("i", ""),
			typFour: sig("iiii", ""), typThree: sig("iii", ""), typWASI4: sig("iiii", "i"), typMetric: sig("il", ""),
			typSQL: sig("iiiii", "l"), typNow: sig("", "l"), typTwo: sig("ii", ""),
		},
		Imports: g.imports,
		Memory:  g.memory,
		Tables:  [][]byte{{0x70, 0, 1}},
		Funcs: append([]wasmtest.Func{
			{Type: typVoid, Name: "audit_abi_1"},
			{Type: typI32, Name: "audit_reserve", Code: g.reserve},
			{Type: typAnswer, Name: "audit_open", Code: g.open},
			{Type: typAnswer, Name: "audit_deliver", Code: cat(g.deliver, storeAll)},
		}, g.more...),
		Custom: map[string][]byte{"audit.manifest": []byte(g.manifest)},
	}
	if g.change != nil {
		g.change(&m)
	}
	return m
}

func (g guestModule) bytes() []byte { m := g.module(); return m.Bytes() }

// engines runs a test on wazero's compiler and on its interpreter.
func engines(t *testing.T, f func(t *testing.T, o Options)) {
	t.Run("compiler", func(t *testing.T) { f(t, Options{Name: "test"}) })
	t.Run("interpreter", func(t *testing.T) { f(t, Options{Name: "test", Interpreter: true}) })
}
