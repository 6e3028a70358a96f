// Package abi holds what crosses the boundary between the host and a sink
// plugin: the event, the batch frame, the outcomes, and the names of every
// export and import. Its normative text is README.md beside it.
//
// Guarantee: a batch that [Batch.Encode] wrote is read back by [Parse] as it
// was, and Parse never reads outside the bytes it was given, whatever they
// hold. Not guaranteed: that the strings of a parsed batch obey the limits of
// [Event]; the host checks them when it accepts an event.
//
// The package and those under it import the standard library only, so that a
// plugin which imports them downloads nothing else.
package abi

// Version is the major version of the ABI. A guest states it by exporting
// [ExportMarker].
const Version = 1

// ImportModule is the module name of every host function.
const ImportModule = "audit"

// Names of what a guest exports. Signatures stand in README.md and in
// [Exports].
const (
	ExportMemory     = "memory"
	ExportInitialize = "_initialize"
	ExportMarker     = "audit_abi_1"
	ExportReserve    = "audit_reserve"
	ExportOpen       = "audit_open"
	ExportDeliver    = "audit_deliver"
	ExportFlush      = "audit_flush"
	ExportClose      = "audit_close"
)

// Names of the host functions in [ImportModule].
const (
	ImportVerdict = "verdict"
	ImportLog     = "log"
	ImportMetric  = "metric"
	ImportSHA256  = "sha256"
	ImportSQL     = "sql"
	ImportNow     = "now"
	ImportRandom  = "random"
	ImportAppend  = "append"
	ImportHTTP    = "http"
	ImportKVGet   = "kv_get"
	ImportKVSet   = "kv_set"
	ImportKVDel   = "kv_delete"
	ImportPlaces  = "places"
)

// Capabilities that a manifest may ask for and a grant gives. The names are
// those of the imports they stand for, but for CapabilityKV, which stands for
// three.
const (
	CapabilitySQL    = ImportSQL
	CapabilityAppend = ImportAppend
	CapabilityHTTP   = ImportHTTP
	CapabilityKV     = "kv"
	CapabilityNow    = ImportNow
	CapabilityRandom = ImportRandom
)

// Capabilities lists them all, in the order of README.md.
func Capabilities() []string {
	return []string{CapabilitySQL, CapabilityAppend, CapabilityHTTP, CapabilityKV, CapabilityNow, CapabilityRandom}
}

// WholeBatch is the index that stands for the batch itself in a verdict.
const WholeBatch = ^uint32(0)

// Counters that a guest may add to through the metric import.
const (
	// MetricRaces counts lost races for the next sequence number.
	MetricRaces uint32 = 1
)

// Limits of what a guest may send in one call, in bytes; the rest is cut off.
const (
	MaxVerdictText = 1024
	MaxLogText     = 4096
)

// Log levels of the log import.
const (
	LogDebug uint32 = iota
	LogInfo
	LogWarn
	LogError
)

// ValueType is a WebAssembly value type as its text format names it.
type ValueType string

// The two value types that ABI 1 uses.
const (
	I32 ValueType = "i32"
	I64 ValueType = "i64"
)

// Signature is a function's type.
type Signature struct {
	Name     string
	Params   []ValueType
	Results  []ValueType
	Optional bool
	// Capability is the grant that the import needs; empty for those that
	// every guest has.
	Capability string
}

// Exports lists the functions a guest exports.
func Exports() []Signature {
	return []Signature{
		{Name: ExportMarker},
		{Name: ExportReserve, Params: []ValueType{I32}, Results: []ValueType{I32}},
		{Name: ExportOpen, Params: []ValueType{I32}, Results: []ValueType{I64}},
		{Name: ExportDeliver, Params: []ValueType{I32}, Results: []ValueType{I64}},
		{Name: ExportInitialize, Optional: true},
		{Name: ExportFlush, Results: []ValueType{I64}, Optional: true},
		{Name: ExportClose, Results: []ValueType{I64}, Optional: true},
	}
}

// Imports lists the host functions of [ImportModule].
func Imports() []Signature {
	return []Signature{
		{Name: ImportVerdict, Params: []ValueType{I32, I32, I32, I32}},
		{Name: ImportLog, Params: []ValueType{I32, I32, I32}},
		{Name: ImportMetric, Params: []ValueType{I32, I64}},
		{Name: ImportSHA256, Params: []ValueType{I32, I32, I32}},
		{Name: ImportPlaces, Params: []ValueType{I32, I32}},
		{Name: ImportSQL, Params: []ValueType{I32, I32, I32, I32, I32}, Results: []ValueType{I64}, Capability: CapabilitySQL},
		{Name: ImportAppend, Params: []ValueType{I32, I32}, Results: []ValueType{I64}, Capability: CapabilityAppend},
		{Name: ImportHTTP, Params: []ValueType{I32, I32, I32, I32, I32, I32}, Results: []ValueType{I64}, Capability: CapabilityHTTP},
		{Name: ImportKVGet, Params: []ValueType{I32, I32, I32, I32}, Results: []ValueType{I64}, Capability: CapabilityKV},
		{Name: ImportKVSet, Params: []ValueType{I32, I32, I32, I32}, Results: []ValueType{I64}, Capability: CapabilityKV},
		{Name: ImportKVDel, Params: []ValueType{I32, I32}, Results: []ValueType{I64}, Capability: CapabilityKV},
		{Name: ImportNow, Results: []ValueType{I64}, Capability: CapabilityNow},
		{Name: ImportRandom, Params: []ValueType{I32, I32}, Capability: CapabilityRandom},
	}
}

// Answer packs an outcome, of 16 bits, its reason and its argument into the 64-bit
// result of an export.
func Answer(o Outcome, why Reason, arg uint32) uint64 {
	return uint64(why)<<48 | uint64(uint16(o))<<32 | uint64(arg)
}

// SplitAnswer is the inverse of [Answer].
func SplitAnswer(a uint64) (Outcome, Reason, uint32) {
	return Outcome(uint16(a >> 32)), Reason(a >> 48), uint32(a)
}
