package ingest

import (
	"context"
	"errors"
	"fmt"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// Intake takes accepted events; the pipeline behind the queue implements it.
type Intake interface {
	// Submit hands e to the queue. It may wait for room until ctx ends, if the
	// operator chose so, and does no I/O otherwise. Errors that wrap
	// [queue.ErrTooLarge] or [queue.ErrBadID] are about this event; after any
	// other one the queue can't take events now, and the client is told to
	// repeat.
	Submit(ctx context.Context, e abi.Event) (queue.Receipt, error)
}

// Refuser is an [Intake] that counts refusals. When it has answered that the queue
// is full it is told how many events of the request were not handed to it, because
// they must not overtake the refused one.
type Refuser interface{ Refuse(n int) }

// ErrNotNow is wrapped by an error of a [Parse] that is not about the text: no
// id could be minted, say. The client is told to repeat.
var ErrNotNow = errors.New("events can't be taken now")

// Parse turns the text of one element into the event. The event has memory of its
// own and does not keep raw. The string is the kind of its decision, as in
// "refuse".
type Parse func(raw []byte) (abi.Event, string, error)

// Taker makes events of elements and hands them to a queue. It is the only way in
// for what comes from outside.
type Taker struct {
	Intake Intake
	Parse  Parse
	// Record tells whether events with this decision are recorded.
	Record   func(decision string) bool
	MaxEvent int // bytes of one element's text
}

// Taken is what became of one element.
type Taken struct {
	Index   int          // from 0
	Line    int          // of lines, from 1
	Raw     []byte       // its text
	ID      string       // of the event; empty if there is none
	Status  event.Status // accepted, skipped, rejected or retry
	Receipt queue.Receipt
	Payload []byte // of an accepted one
	Err     error  // for rejected, and for the first retry
}

var errEventSize = errors.New("the event is too large")

// Run takes the elements in order and tells what became of each, until tell
// returns false. After the first that was not taken now none is: a later event
// would stand before an earlier one. What tell is given is valid until it returns.
func (t *Taker) Run(ctx context.Context, elements event.Elements, tell func(*Taken) bool) *event.Broken {
	taken, retry := Taken{}, 0
	var stopped error
	broken := elements.Each(func(raw []byte, line int) bool {
		i := taken.Index
		if retry > 0 {
			taken = Taken{Status: event.StatusRetry}
		} else {
			taken = t.take(ctx, raw)
		}
		if taken.Status == event.StatusRetry {
			if retry++; retry == 1 {
				stopped = taken.Err
			}
		}
		taken.Index, taken.Line, taken.Raw = i, line, raw
		more := tell(&taken)
		taken.Index++
		return more
	})
	if r, ok := t.Intake.(Refuser); ok && errors.Is(stopped, queue.ErrFull) {
		r.Refuse(retry - 1)
	}
	return broken
}

// take parses one element and hands its event to the queue.
func (t *Taker) take(ctx context.Context, raw []byte) Taken {
	// A client that is gone, or a server that stops, has nothing more read.
	if ctx.Err() != nil {
		return Taken{Status: event.StatusRetry, Err: context.Cause(ctx)}
	}
	if len(raw) > t.MaxEvent {
		return Taken{Status: event.StatusRejected,
			Err: fmt.Errorf("%w: %d bytes, at most %d (http.max_event)", errEventSize, len(raw), t.MaxEvent)}
	}
	e, decision, err := t.Parse(raw)
	switch {
	case errors.Is(err, ErrNotNow):
		return Taken{Status: event.StatusRetry, Err: err}
	case err != nil:
		return Taken{Status: event.StatusRejected, Err: err}
	}
	if !t.Record(decision) {
		return Taken{ID: e.ID, Status: event.StatusSkipped}
	}
	rc, err := t.Intake.Submit(ctx, e)
	switch {
	case err == nil:
		return Taken{ID: e.ID, Status: event.StatusAccepted, Receipt: rc, Payload: e.Payload}
	case errors.Is(err, queue.ErrTooLarge):
		return Taken{ID: e.ID, Status: event.StatusRejected, Err: fmt.Errorf("%w: %w", errEventSize, err)}
	case errors.Is(err, queue.ErrBadID):
		return Taken{ID: e.ID, Status: event.StatusRejected, Err: err}
	}
	return Taken{ID: e.ID, Status: event.StatusRetry, Err: err}
}
