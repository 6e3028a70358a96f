package queue

import (
	"context"

	"github.com/audit-host/audit-host/abi"
)

// Sink is where a drainer delivers. Its methods are called by one goroutine.
type Sink interface {
	// Deliver hands over a batch once and says what became of it. It does not
	// retry. After an outcome made by the host (abi.Outcome.HostMade) the next
	// call runs on a fresh instance. A sink that panics is treated like one
	// that answered abi.HostPanic. When ctx is done the delivery is cut short,
	// and its outcome is then unknown.
	Deliver(ctx context.Context, b *abi.Batch) abi.Result
	// Close makes durable what is held back and ends the instance.
	Close(ctx context.Context) error
}

// Sealer computes hashes and signature of an event before it is delivered. It
// is called concurrently, and again for a second delivery, with the same
// result.
type Sealer interface{ Seal(*abi.Event) }

// DeadLetters keeps events that a sink will never take.
type DeadLetters interface {
	// Put stores letters durably, all or none. It is idempotent on sink and
	// event id.
	Put(ctx context.Context, letters []abi.DeadLetter) error
}
