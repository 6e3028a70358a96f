package abi

import (
	"fmt"
	"time"
)

// Outcome says how the delivery of a batch ended. Values below
// [FirstHostOutcome] are returned by a guest; the others are made by the host
// alone, and a guest that returns one of them breaks the ABI ([BadABI]).
type Outcome uint32

// Outcomes of a guest. In the 64-bit answer of an export the argument is the lower
// half; above it are 16 bits of outcome and 16 of [Reason].
const (
	// OK: every event of the batch is stored. The argument is the number of
	// events and must equal the batch's.
	OK Outcome = 0
	// Partial: the argument is the number of events stored; every other
	// event of the batch got a verdict that is not OK.
	Partial Outcome = 1
	// Retry: nothing was stored, the same batch is wanted again; the argument
	// is the wish for a pause in milliseconds.
	Retry Outcome = 2
	// Reject: nothing was stored and no repetition will change that.
	Reject Outcome = 3
	// Busy: what the sink writes to is not to be had just now (locked, full,
	// unreachable); the argument is the wish for a pause in milliseconds.
	Busy Outcome = 4
	// BadConfig: audit_open does not accept its configuration. Only
	// audit_open may return it.
	BadConfig Outcome = 5
)

// FirstHostOutcome is the smallest value that only the host can produce.
const FirstHostOutcome Outcome = 0x100

// Outcomes made by the host. All of them mean that it is unknown whether the
// batch was stored: the instance is thrown away and the same batch is
// delivered again to a fresh one.
const (
	// Trap: the guest executed an illegal operation (its panic, an
	// out-of-bounds access, unreachable, stack overflow).
	Trap Outcome = FirstHostOutcome + iota
	// Exit: the guest called proc_exit.
	Exit
	// Fuel: the guest used up the instructions granted for one batch.
	Fuel
	// Deadline: the batch was not finished in its time.
	Deadline
	// Memory: the guest could not be given the memory it needs.
	Memory
	// HostPanic: the host's own code panicked while serving the guest.
	HostPanic
	// BadABI: the guest broke a rule of the ABI (a count that does not add
	// up, an index out of range, an outcome it may not return).
	BadABI
)

// HostMade tells whether only the host can produce o.
func (o Outcome) HostMade() bool { return o >= FirstHostOutcome }

var outcomeNames = map[Outcome]string{
	OK: "OK", Partial: "PARTIAL", Retry: "RETRY", Reject: "REJECT", Busy: "BUSY", BadConfig: "BAD_CONFIG",
	Trap: "TRAP", Exit: "EXIT", Fuel: "FUEL", Deadline: "DEADLINE", Memory: "MEMORY",
	HostPanic: "HOST_PANIC", BadABI: "BAD_ABI",
}

// String returns the outcome's name as the ABI text spells it.
func (o Outcome) String() string {
	if s, ok := outcomeNames[o]; ok {
		return s
	}
	return fmt.Sprintf("outcome(%#x)", uint32(o))
}

// Verdict is what the guest said about one event. Its code is OK, Retry or
// Reject.
type Verdict struct {
	Code   Outcome
	Reason string
}

// Result is the outcome of one delivery, with what the host knows about it.
type Result struct {
	Outcome Outcome
	// Verdicts has one entry per event of the batch when Outcome is Partial,
	// and is nil otherwise.
	Verdicts []Verdict
	// Reason is why, as a number; ReasonOther if the guest did not say, and for
	// outcomes of the host's.
	Reason Reason
	// Places has one entry per event of the batch, when Outcome is OK or Partial and
	// the sink says where it keeps events; else it is nil. That of an event whose
	// place is not known is zero. Valid until the sink's next call.
	Places []Place
	// RetryAfter is the guest's wish, for Retry and Busy.
	RetryAfter time.Duration
	// Rule is the rule of the ABI that the guest broke, such as R5; for BadABI.
	Rule string
	// Detail is the guest's message about the whole batch, or the trap's text.
	Detail string
	// Stderr is the end of what the guest wrote to its standard error.
	Stderr string
	// Races counts the lost races for the next sequence number that the
	// guest reported during this delivery.
	Races uint64
}
