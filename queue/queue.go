// Package queue keeps accepted events until every sink has taken them.
//
// An event enters with Submit, is made durable by the backend, and is handed
// out to one consumer per sink, in one order that is the same for all of them.
// A consumer acknowledges cumulatively; what it has not acknowledged comes
// again, also after a crash. A [Drainer] takes what a consumer hands out to a
// [Sink] and gives every event exactly one final outcome.
//
// Guarantee: an event whose receipt reached [Durable] is handed out to every
// consumer until that consumer has acknowledged it, whatever happens to the
// process, within what [Caps].DurableMeans says of the backend. No event is
// handed out before it is durable, so no sink ever stores what a power cut
// could take back. Not guaranteed: that an event is handed out only once. Its
// ID is the idempotency key by which a sink recognises a second delivery.
//
// The package knows events as an id and a record; it starts no goroutine that
// it does not join.
package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// Seq is an event's position in one queue. Positions increase strictly and,
// where [Caps].Dense is set, have no gaps.
type Seq uint64

// MaxID is the longest ID in bytes.
const MaxID = abi.MaxIDLen

// Event is what a caller submits.
type Event struct {
	// ID is the idempotency key, 1 to MaxID bytes. Two events may have the same
	// one: the ledger tells them apart.
	ID string
	// Payload is the event's record (abi.AppendRecord). Submit copies it.
	Payload []byte
	// Source says who brought it: a word of few, by which refusals are counted. It
	// is not kept.
	Source string
}

// Entry is an event as a consumer gets it. It is never changed afterwards, and
// must not be.
type Entry struct {
	Seq     Seq
	ID      string
	Payload []byte
	// At is when the event was accepted, by the wall clock.
	At time.Time
}

// Batch is what one Next hands out: at least one event, in order.
type Batch struct {
	First  Seq
	Events []Entry
}

// Last is the position of the last event.
func (b Batch) Last() Seq { return b.Events[len(b.Events)-1].Seq }

// Level is how far an event has come.
type Level uint8

// Levels, each including those before it.
const (
	// Accepted: in this process's memory; lost at a crash.
	Accepted Level = iota + 1
	// Durable: what Caps.DurableMeans says; on disk, fsync has returned.
	Durable
	// Committed: every required consumer has acknowledged it.
	Committed
)

func (l Level) String() string {
	switch l {
	case Accepted:
		return "accepted"
	case Durable:
		return "durable"
	case Committed:
		return "committed"
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

var (
	// ErrFull: the bound in memory or on disk is reached. Nothing was queued;
	// the refusal is counted and told by a loss record once there is room.
	ErrFull = errors.New("queue: full")
	// ErrClosed: the queue or the consumer is closed.
	ErrClosed = errors.New("queue: closed")
	// ErrFailed: the backend could not write. For a receipt it means that it is
	// unknown whether the event is stored; submit it again with its ID.
	ErrFailed = errors.New("queue: cannot write")
	// ErrTooLarge: the payload exceeds Caps.MaxEvent, or the queue's bound.
	ErrTooLarge = errors.New("queue: event too large")
	// ErrBadID: the ID does not have 1 to MaxID bytes.
	ErrBadID = errors.New("queue: event id must have 1 to 128 bytes")
	// ErrBusy: the consumer, or the queue's directory, is in use.
	ErrBusy = errors.New("queue: in use already")
	// ErrBadAck: an acknowledgement that goes back, or beyond what was handed
	// out.
	ErrBadAck = errors.New("queue: acknowledgement out of order")
	// ErrBehind: the queue ends before the position it should go on from.
	ErrBehind = errors.New("queue: ends before that position")
	// ErrDamaged is wrapped by errors that name the file and the offset where
	// stored bytes are not those that were written.
	ErrDamaged = errors.New("queue: damaged")
)

// ErrLagged is returned once to an optional consumer that fell behind the
// bound: it missed the events From to To.
type ErrLagged struct{ From, To Seq }

func (e ErrLagged) Error() string {
	return fmt.Sprintf("events %d to %d are no longer kept", e.From, e.To)
}

// RemainingError is returned by Close when required consumers had not
// acknowledged everything.
type RemainingError struct {
	Events uint64
	Kept   bool  // they come again when the queue is opened again
	Cause  error // why Close did not wait longer, nil if no consumer was there to wait for
}

func (e *RemainingError) Error() string {
	s := fmt.Sprintf("close queue: %d events remain", e.Events)
	if e.Kept {
		s += ", kept on disk"
	} else {
		s += ", and are lost with this process"
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *RemainingError) Unwrap() error { return e.Cause }

// Queue is a queue of events. All methods may be called concurrently.
type Queue interface {
	// Submit takes an event into memory. It does no I/O and never waits:
	// ErrFull, ErrTooLarge, ErrBadID, ErrClosed or ErrFailed.
	Submit(Event) (Receipt, error)
	// Consumer opens the named consumer. Its cursor is kept by the queue, and a
	// new one begins at the oldest event kept. ErrBusy if it is open already. With
	// Caps.AckDurable the cursor is durable when Consumer returns.
	Consumer(ctx context.Context, name string, o ConsumerOptions) (Consumer, error)
	// Watermarks is a snapshot of one instant.
	Watermarks() Watermarks
	Caps() Caps
	// Close stops accepting at once, makes durable what was accepted, waits
	// until the open required consumers have acknowledged everything or ctx is
	// done, and ends. A *RemainingError says what was left.
	Close(ctx context.Context) error
}

// Blocker is a queue that can wait for room.
type Blocker interface {
	// SubmitBlocking is Submit, but waits for room until ctx is done. An event
	// whose wait was given up counts as refused.
	SubmitBlocking(context.Context, Event) (Receipt, error)
}

// SubmitWait submits ev, waits for room where q can, and then until the event
// has reached l.
func SubmitWait(ctx context.Context, q Queue, ev Event, l Level) (Receipt, error) {
	submit := q.Submit
	if b, ok := q.(Blocker); ok {
		submit = func(ev Event) (Receipt, error) { return b.SubmitBlocking(ctx, ev) }
	}
	r, err := submit(ev)
	if err != nil {
		return r, err
	}
	return r, r.Wait(ctx, l)
}

// ConsumerOptions says how a consumer takes part.
type ConsumerOptions struct {
	// Required consumers hold back deletion and the Committed level. An optional
	// one that falls behind the bound is cut loose with ErrLagged.
	Required bool
	// From, if not 0, is the position to begin at, and wins over the stored
	// cursor in both directions. ErrBehind if the queue ends before it.
	From Seq
}

// Consumer hands out events to one sink. Next is for one goroutine at a time, and
// so is Ack; one may be called while the other runs, and Acked and Close always.
type Consumer interface {
	// Next waits for durable events and returns up to maxEvents of them, and up
	// to maxBytes of ID and payload, but at least one (0: a default). It goes on
	// behind what it returned before; what was not acknowledged comes again from
	// a new Consumer. ErrClosed: the consumer is closed, or the queue is and
	// everything was handed out. ErrLagged: see there. An error that wraps
	// ErrDamaged is final. After any other but that of ctx, one of reading a file,
	// Next may be called again.
	Next(ctx context.Context, maxEvents, maxBytes int) (Batch, error)
	// Ack says that everything up to upTo has its final outcome. With
	// Caps.AckDurable that is durable when it returns nil. ErrBadAck if it goes back
	// or beyond what was handed out; after ErrFailed, an error of writing, Ack may
	// be called again.
	Ack(ctx context.Context, upTo Seq) error
	// Acked is the position of the cursor.
	Acked() Seq
	// Close gives the consumer's name free.
	Close() error
}

// Watermarks is a snapshot in which
//
//	Submitted - SendFailures = Accepted - Opened
//
// holds at every instant.
type Watermarks struct {
	// Submitted counts the calls of Submit and SubmitBlocking since the queue
	// was opened; SendFailures those that ended with an error, and the events
	// accepted whose receipts failed later.
	Submitted, SendFailures uint64
	// Opened is the last position there was when the queue was opened.
	Opened Seq
	// Accepted, Durable and Committed are the last positions of each level.
	Accepted, Durable, Committed Seq
	// Events are those not yet committed, with their bound, 0 for none.
	Events, LimitEvents int64
	// Bytes are what they take of LimitBytes.
	Bytes, LimitBytes int64
	// Refused counts since the queue was opened. Unrecorded is what no loss record
	// tells yet, of that and of what a process refused which was then killed.
	Refused, Unrecorded Refusals
	// Oldest is when the oldest event not yet committed was accepted; zero if
	// there is none.
	Oldest time.Time
	// Failure is why the queue can't write now; nil if it can.
	Failure error
}

// Caps says what a backend can do.
type Caps struct {
	ID           [16]byte // names the queue that positions belong to, for its whole life
	Dense        bool     // positions have no gaps
	Dedupe       bool     // a second event of the same ID is dropped
	AckDurable   bool     // what was acknowledged never comes again
	MultiProcess bool     // several processes may share the queue
	DurableMeans string   // what Durable promises, in words
	MaxEvent     int      // the largest payload in bytes
}

// Ticket is what a backend makes receipts of.
type Ticket interface {
	// WaitTicket waits until event n has reached l: nil, ErrFailed, ErrClosed or
	// ctx's error.
	WaitTicket(ctx context.Context, n uint64, l Level) error
	// TicketSeq is known from Durable on.
	TicketSeq(n uint64) (Seq, bool)
}

// Receipt follows one event. It is a value and costs nothing unless used; the
// zero Receipt is that of no event.
type Receipt struct {
	t Ticket
	n uint64
}

// NewReceipt is for backends.
func NewReceipt(t Ticket, n uint64) Receipt { return Receipt{t, n} }

// Wait waits until the event has reached l.
func (r Receipt) Wait(ctx context.Context, l Level) error {
	if r.t == nil {
		return errors.New("wait: the receipt is that of no event")
	}
	return r.t.WaitTicket(ctx, r.n, l)
}

// Seq is the event's position, known from Durable on.
func (r Receipt) Seq() (Seq, bool) {
	if r.t == nil {
		return 0, false
	}
	return r.t.TicketSeq(r.n)
}

// checkEvent is the part of Submit that needs no lock.
func checkEvent(ev Event, maxEvent int) error {
	switch {
	case ev.ID == "" || len(ev.ID) > MaxID:
		return ErrBadID
	case len(ev.Payload) > maxEvent:
		return ErrTooLarge
	}
	return nil
}
