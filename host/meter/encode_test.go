package meter_test

import "github.com/audit-host/audit-host/host/internal/wasmtest"

// The encoder under short names.
type (
	wasmModule = wasmtest.Module
	wasmFunc   = wasmtest.Func
)

var (
	leb  = wasmtest.U
	cat  = wasmtest.Cat
	str  = wasmtest.Str
	vec  = wasmtest.Vec
	sec  = wasmtest.Section
	i32c = wasmtest.I32
	i64c = wasmtest.I64
	sig  = wasmtest.Sig
)
