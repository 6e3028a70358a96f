package abi

import "time"

// DeadLetter is an event that a sink refused for good, or that ended every
// instance it was delivered to, with all that is needed to understand and to
// replay it.
type DeadLetter struct {
	// Event is sealed, as it was delivered. Where Raw is set it could not be
	// decoded and only ID and Seq are known.
	Event Event
	// Raw is the queue's record of an event that could not be decoded.
	Raw []byte
	// Sink is the name of the sink that did not take it, Plugin the SHA-256 of
	// its plugin in hex.
	Sink, Plugin string
	// Outcome is Reject, or the host-made outcome of the last attempt.
	Outcome Outcome
	// Reason is the guest's verdict, or the text of the trap.
	Reason string
	// Stderr is the end of what the guest wrote to its standard error.
	Stderr string
	// Attempts is how often the event was delivered.
	Attempts uint32
	FailedAt time.Time
}
