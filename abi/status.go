package abi

import "fmt"

// Status is the upper half of the answer of append, http, kv_get, kv_set and
// kv_delete; the lower half is a number of bytes. Expected failures are
// statuses and never traps. (sql has statuses of its own, [SQLStatus].)
type Status uint32

// Statuses.
const (
	// StatusDone: it was done.
	StatusDone Status = 0
	// StatusRefused: the grant does not allow it.
	StatusRefused Status = 1
	// StatusInvalid: what the guest handed over is malformed: a record without
	// its line feed, a request without a method, an empty key.
	StatusInvalid Status = 2
	// StatusTooLarge: it is beyond a limit of the grant, or the answer does not
	// fit into the guest's buffer. Nothing was done or sent.
	StatusTooLarge Status = 3
	// StatusTimeout: it did not end in the grant's time. Whether the server has
	// acted on the request is unknown.
	StatusTimeout Status = 4
	// StatusUnavailable: what it works on is not to be had just now: the server
	// gave no answer or one beyond the limit (it may have acted all the same),
	// the disk is full, the file was replaced.
	StatusUnavailable Status = 5
	// StatusAbsent: there is no such key.
	StatusAbsent Status = 6
)

var statusNames = [...]string{"DONE", "REFUSED", "INVALID", "TOO_LARGE", "TIMEOUT", "UNAVAILABLE", "ABSENT"}

// String returns the status's name as the ABI text spells it.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint32(s))
}

// StatusAnswer packs a status and a number of bytes into the result of an
// import.
func StatusAnswer(s Status, n uint32) uint64 { return uint64(s)<<32 | uint64(n) }

// SplitStatus is the inverse of [StatusAnswer].
func SplitStatus(a uint64) (Status, uint32) { return Status(a >> 32), uint32(a) }

// Limits of the kv capability in bytes, whatever the grant says.
const (
	MaxKVKey   = 256
	MaxKVValue = 64 << 10
)
