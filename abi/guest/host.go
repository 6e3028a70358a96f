package guest

import (
	"time"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// Verdict says what became of one event that was not stored: [abi.Retry] or
// [abi.Reject], once for each, with an answer Partial. With the index
// [abi.WholeBatch] it gives the message about the batch; the Message of an
// [Answer] does the same. Of the message abi.MaxVerdictText bytes are kept.
func Verdict(index uint32, code abi.Outcome, message string) {
	hostVerdict(index, uint32(code), message)
}

// Places says where the sink keeps the events of the batch, one place for each in
// their order, once in a Deliver that answers OK or Partial. It is for a sink that
// keeps them in an order, as a ledger does, on disk; package abi has the rules.
func Places(list []abi.Place) {
	hostPlaces(unsafe.Pointer(unsafe.SliceData(list)), uint32(len(list)))
}

// Log writes a line to the host's log, at a level of package abi. Of the
// message abi.MaxLogText bytes are kept, and of the lines of one call the
// first hundred.
func Log(level uint32, message string) { hostLog(level, message) }

// Metric adds n to one of the counters named in package abi.
func Metric(id uint32, n uint64) { hostMetric(id, n) }

// SHA256 hashes data with the host's implementation, nine times faster than
// a Go guest's own.
func SHA256(out *[abi.HashSize]byte, data []byte) {
	hostSHA256(unsafe.Pointer(unsafe.SliceData(data)), uint32(len(data)), unsafe.Pointer(out))
}

// Now returns the real time. It needs the capability "now"; time.Now works
// without one, and then shows a clock that is moved by waiting only.
func Now() time.Time { return time.Unix(0, int64(hostNow())).UTC() }

// Random fills b with random bytes. It needs the capability "random"; the
// packages math/rand and crypto/rand work without one, and then give the same
// bytes in every instance.
func Random(b []byte) {
	hostRandom(unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)))
}
