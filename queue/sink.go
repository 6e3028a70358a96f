package queue

import (
	"context"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// Sink is where a drainer delivers. Its methods are called by one goroutine.
type Sink interface {
	// Deliver hands over a batch once and says what became of it. It does not
	// retry. After an outcome made by the host (abi.Outcome.HostMade) the next
	// call runs on a fresh instance. A sink that panics is treated like one
	// that answered abi.HostPanic. When ctx is done the delivery is cut short,
	// and its outcome is then unknown. The batch and its events are the
	// drainer's again once Deliver has returned; a sink that keeps any copies it.
	Deliver(ctx context.Context, b *abi.Batch) abi.Result
	// Close makes durable what is held back and ends the instance.
	Close(ctx context.Context) error
}

// Sealer computes hashes and signatures of events before they are delivered,
// for signatures made together cost less. It is called concurrently, and again
// for a second delivery, with the same result.
type Sealer interface{ Seal(...*abi.Event) }

// DeadLetters keeps events that a sink will never take.
type DeadLetters interface {
	// Put stores letters durably, all or none. It is idempotent on sink and
	// event id.
	Put(ctx context.Context, letters []abi.DeadLetter) error
}

// SinkOptions says which sink a drainer serves, and how. Name and Sink are
// needed; the other zero values are good.
type SinkOptions struct {
	// Name is the sink's name, and that of its cursor in the queue.
	Name string
	Sink Sink
	// Plugin is the SHA-256 of the sink's plugin in hex, for dead letters.
	Plugin string
	// Required sinks hold back deletion and the Committed level. One that is not
	// may miss events when it falls behind the queue's bound.
	Required bool
	// BatchEvents is the most events in one delivery; 0 means 256.
	BatchEvents int
	// BatchBytes bounds the IDs and records in one delivery; 0 means 1 MiB. An
	// event larger than that is delivered alone.
	BatchBytes int
	// MaxRestarts is how many incidents within RestartWindow the sink survives;
	// the next one parks it. An incident is the first unknown outcome of a batch
	// that the queue handed out, or an event found guilty of one. 0 means none:
	// the first unknown outcome parks the sink.
	MaxRestarts int
	// RestartWindow is how long an incident counts; 0 means a minute.
	RestartWindow time.Duration
	// From, if not 0, is the position to begin at: the sink's own head + 1.
	From Seq
}
