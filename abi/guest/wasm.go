//go:build wasip1

package guest

//go:wasmexport audit_abi_1
func exportMarker() {}

//go:wasmexport audit_reserve
func exportReserve(n uint32) uint32 { return reserve(n) }

//go:wasmexport audit_open
func exportOpen(n uint32) uint64 { return open(n) }

//go:wasmexport audit_deliver
func exportDeliver(n uint32) uint64 { return deliver(n) }

//go:wasmexport audit_flush
func exportFlush() uint64 { return flush() }

//go:wasmexport audit_close
func exportClose() uint64 { return closeSink() }

//go:wasmimport audit verdict
func hostVerdict(index, code, msg, n uint32)

//go:wasmimport audit log
func hostLog(level, msg, n uint32)

//go:wasmimport audit metric
func hostMetric(id uint32, n uint64)

//go:wasmimport audit sha256
func hostSHA256(data, n, out uint32)

//go:wasmimport audit sql
func hostSQL(mode, steps, n, out, size uint32) uint64
