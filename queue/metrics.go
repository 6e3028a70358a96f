package queue

import (
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// State is what a drainer is doing.
type State string

// States of a drainer.
const (
	Stopped   State = "stopped"   // Run has not begun, or has ended
	Running   State = "running"   // it delivers, or waits for events
	Waiting   State = "waiting"   // it pauses before it tries something again
	Bisecting State = "bisecting" // it looks for the event that ends the instances
	Parked    State = "parked"    // it delivers nothing until Resume
)

// Metrics is a snapshot of a recorder in which, for every sink,
//
//	Submitted + Recovered = SendFailures + Pending + Appended + DLQLanded + Skipped + Lost
//
// holds at every instant, exactly where [Caps].Dense is set.
type Metrics struct {
	// Submitted counts the calls of Submit since the queue was opened, loss
	// records included; SendFailures those that ended with an error.
	Submitted, SendFailures uint64
	// Refused are those of SendFailures for which the queue had no room.
	Refused uint64
	Sinks   []SinkMetrics
}

// SinkMetrics is the part of a snapshot about one sink.
type SinkMetrics struct {
	Name     string
	Required bool
	State    State
	// Parked is why the sink is parked; empty if it is not.
	Parked string
	// LastError is the last thing that went wrong, cut to 512 bytes, and LastErrorAt
	// when. It stays when all goes well again.
	LastError   string
	LastErrorAt time.Time
	// LastOutcome is that of the delivery which went wrong last; OK if what went
	// wrong since was not the sink. Unlike LastError it has no text of the sink.
	LastOutcome abi.Outcome
	// PendingBytes is about what the pending events take, in IDs and records: their
	// number times the mean of those that the sink was handed.
	PendingBytes uint64
	// Oldest is when the oldest event in the drainer's hands was accepted; zero
	// if it has none.
	Oldest time.Time

	// Recovered are the events that were in the queue when it was opened and
	// that this sink had not acknowledged.
	Recovered uint64
	// Pending are the events accepted that have no final outcome yet.
	Pending uint64
	// Appended are the events that the sink stored, DLQLanded those that became
	// dead letters: the two final outcomes.
	Appended, DLQLanded uint64
	// Skipped are the events that an optional sink missed because it fell behind,
	// and those accepted since the queue was opened that were settled, or let go,
	// before this drainer was made.
	Skipped uint64
	// Lost is the number of positions that the cursor has passed, less the
	// outcomes counted one by one: always 0. A positive number is a loss, a
	// negative one an event counted twice.
	Lost int64

	// AppendFailures counts attempts to append one event that did not store it,
	// or may not have: a batch of n with an unknown outcome counts n.
	AppendFailures uint64
	// DrainerPanics counts outcomes made by the host, a Go panic of the sink
	// included; Restarts the deliveries to a fresh instance after one.
	DrainerPanics, Restarts uint64
	// UniqueRaceRetries counts the lost races for a sequence number that the
	// sink reported.
	UniqueRaceRetries uint64
	// Batches counts deliveries; Retries those answered RETRY, in whole or in
	// part; Busies those answered BUSY.
	Batches, Retries, Busies uint64
	// Replayed and ReplayRefused count the dead letters that a replay had the sink
	// store, or that were refused again. They have no part in the equation.
	Replayed, ReplayRefused uint64

	handedEvents, handedBytes uint64 // by the queue
}

// maxErrorText bounds texts that come from a sink, in bytes.
const maxErrorText = 512

func bounded(s string) string {
	if len(s) > maxErrorText {
		return strings.ToValidUTF8(s[:maxErrorText], "") // a character may have been cut
	}
	return s
}

// Metrics returns a snapshot. Pending and Lost belong to one instant.
func (d *Drainer) Metrics() SinkMetrics {
	m, settled := d.snapshot()
	m.pend(d.q.Watermarks().Accepted, settled)
	return m
}

// pend sets what follows from how far the queue and the sink have come.
func (m *SinkMetrics) pend(accepted, settled Seq) {
	m.Pending = uint64(accepted - settled)
	if m.handedEvents > 0 {
		m.PendingBytes = uint64(float64(m.Pending) * float64(m.handedBytes) / float64(m.handedEvents))
	}
}

// snapshot returns the drainer's numbers with the position they belong to.
// Taken before the queue's Watermarks, it makes Pending what was unsettled then
// or has come since: both sides of the equation grow alike.
func (d *Drainer) snapshot() (SinkMetrics, Seq) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.m
	m.Lost = int64(d.settled-d.start) - int64(m.Appended+m.DLQLanded+d.lagged)
	m.Skipped += d.lagged
	switch {
	case d.hand.done < len(d.hand.events):
		m.Oldest = d.hand.meta[d.hand.done].at
	case len(d.slot.events) > 0:
		m.Oldest = d.slot.meta[0].at
	default:
		m.Oldest = d.sealing
	}
	return m, d.settled
}

// wrong notes what went wrong.
func (m *SinkMetrics) wrong(text string) {
	m.LastError, m.LastErrorAt = bounded(text), time.Now()
}

// update changes the numbers of the drainer.
func (d *Drainer) update(change func(*SinkMetrics)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.m)
}
