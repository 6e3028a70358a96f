//go:build wasip1

package guest

import (
	"runtime/debug"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// memoryGoal is what the collector keeps the guest's memory within where it
// can, in bytes: a module can't ask for its cap, whose default is 64 MiB, and
// left alone Go lets its heap double before it collects. A plugin that is
// given more memory and needs it calls debug.SetMemoryLimit itself.
const memoryGoal = 40 << 20

func init() { debug.SetMemoryLimit(memoryGoal) }

//go:wasmexport audit_abi_1
func exportMarker() {}

//go:wasmexport audit_reserve
func exportReserve(n uint32) unsafe.Pointer { return reserve(n) }

//go:wasmexport audit_open
func exportOpen(n uint32) uint64 { return open(n) }

//go:wasmexport audit_deliver
func exportDeliver(n uint32) uint64 { return deliver(n) }

//go:wasmexport audit_flush
func exportFlush() uint64 { return flush() }

//go:wasmexport audit_close
func exportClose() uint64 { return closeSink() }

// Pointers are passed as pointers: a number would go stale when the stack that
// it points into moves, which it may do in any call.

//go:wasmimport audit verdict
func hostVerdict(index, code uint32, message string)

//go:wasmimport audit places
func hostPlaces(list unsafe.Pointer, n uint32)

//go:wasmimport audit log
func hostLog(level uint32, message string)

//go:wasmimport audit metric
func hostMetric(id uint32, n uint64)

//go:wasmimport audit sha256
func hostSHA256(data unsafe.Pointer, n uint32, out unsafe.Pointer)

//go:wasmimport audit sql
func hostSQL(mode uint32, steps unsafe.Pointer, n uint32, out unsafe.Pointer, size uint32) uint64

//go:wasmimport audit now
func hostNow() uint64

//go:wasmimport audit random
func hostRandom(b unsafe.Pointer, n uint32)

//go:wasmimport audit append
func hostAppend(record unsafe.Pointer, n uint32) uint64

//go:wasmimport audit http
func hostHTTP(head unsafe.Pointer, headLen uint32, body unsafe.Pointer, bodyLen uint32, out unsafe.Pointer, size uint32) uint64

//go:wasmimport audit kv_get
func hostKVGet(key string, out unsafe.Pointer, size uint32) uint64

//go:wasmimport audit kv_set
func hostKVSet(key string, value unsafe.Pointer, n uint32) uint64

//go:wasmimport audit kv_delete
func hostKVDelete(key string) uint64

func runHTTP(r *Request, out []byte) uint64 {
	head := r.head()
	return hostHTTP(unsafe.Pointer(unsafe.SliceData(head)), uint32(len(head)),
		unsafe.Pointer(unsafe.SliceData(r.Body)), uint32(len(r.Body)), unsafe.Pointer(unsafe.SliceData(out)), uint32(len(out)))
}

// running keeps the script whose addresses the host is about to follow on the
// heap, where nothing moves, and alive.
var running *Script

func runScript(mode uint32, s *Script, out []byte) uint64 {
	running = s
	cells := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(s.cells))))
	for i := range s.steps {
		st := &s.steps[i]
		st.text = uint32(uintptr(unsafe.Pointer(unsafe.StringData(s.sql[i]))))
		st.cells = cells + st.cells*abi.SQLCellSize
	}
	a := hostSQL(mode, unsafe.Pointer(unsafe.SliceData(s.steps)), uint32(len(s.steps)),
		unsafe.Pointer(unsafe.SliceData(out)), uint32(len(out)))
	running = nil
	return a
}
