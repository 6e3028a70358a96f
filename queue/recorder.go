package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// RecorderOptions is what a recorder works with.
type RecorderOptions struct {
	// Queue is the recorder's from now on: Close closes it. Nobody else may have
	// consumers of the sinks' names.
	Queue Queue
	// Sinks may be none: then events gather in the queue.
	Sinks       []SinkOptions
	Sealer      Sealer
	DeadLetters DeadLetters
	// Check says whether an event may be recorded. Needed: an event that calls an
	// allowed action a refusal must not reach the ledger, whoever made it.
	Check func(abi.Event) error
	// Block has Submit wait for room where the queue can (Blocker); otherwise it
	// answers ErrFull.
	Block bool
	Log   *slog.Logger // nil drops what it is told
}

// Recorder takes events and has every sink give each of them exactly one final
// outcome. Its methods may be called concurrently.
type Recorder struct {
	o        RecorderOptions
	blocker  Blocker // nil: answer ErrFull
	log      *slog.Logger
	drainers []*Drainer
	done     []chan struct{} // closed when the drainer's goroutine is at its end
	stop     context.CancelFunc
	closing  atomic.Bool
	refused  atomic.Uint64 // events that Check did not pass
	records  sync.Pool     // of *[]byte
	warn     throttle

	once   sync.Once // Close
	report Report
	err    error
}

// NewRecorder opens a cursor for every sink and begins to deliver. ctx bounds the
// opening only. The sinks are the recorder's from then on; after an error they
// are still the caller's, and so is the queue.
func NewRecorder(ctx context.Context, o RecorderOptions) (*Recorder, error) {
	switch {
	case o.Queue == nil || o.Check == nil:
		return nil, errors.New("make recorder: Queue and Check are needed")
	case o.Log == nil:
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{o: o, log: o.Log}
	if o.Block {
		r.blocker, _ = o.Queue.(Blocker)
		if r.blocker == nil {
			return nil, errors.New("make recorder: this queue can't wait for room; choose reject instead of block")
		}
	}
	for _, s := range o.Sinks {
		d, err := NewDrainer(ctx, o.Queue, DrainerOptions{SinkOptions: s, Sealer: o.Sealer, DeadLetters: o.DeadLetters, Log: o.Log})
		if err != nil {
			errs := []error{fmt.Errorf("make recorder: %w", err)}
			for _, d := range r.drainers {
				errs = append(errs, d.Close())
			}
			return nil, errors.Join(errs...)
		}
		r.drainers = append(r.drainers, d)
		r.done = append(r.done, make(chan struct{}))
	}
	// Their life is the recorder's, not that of the call which made it: a
	// shutdown signal must not cut them off before Close has drained them.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	for i, d := range r.drainers {
		go r.run(running, d, r.done[i]) // joined by Close
	}
	return r, nil
}

func (r *Recorder) run(ctx context.Context, d *Drainer, done chan<- struct{}) {
	defer close(done)
	err := d.Run(ctx)
	r.closing.Store(true) // it ends with its queue, if not by Close
	if m := d.Metrics(); m.Pending > 0 {
		r.log.LogAttrs(ctx, slog.LevelWarn, "drainer ended before its events", slog.String("sink", d.o.Name),
			slog.Uint64("pending", m.Pending), slog.Any("error", err))
	}
}

// SourceGo is the source of what is submitted by a call of Submit.
const SourceGo = "go"

// From returns an intake whose refusals are counted for a source, a word of few.
func (r *Recorder) From(source string) Intake { return Intake{r, source} }

// Intake is a recorder as one source sees it. Make one with [Recorder.From].
type Intake struct {
	r      *Recorder
	source string
}

// Submit is [Recorder.Submit].
func (i Intake) Submit(ctx context.Context, e abi.Event) (Receipt, error) {
	return i.r.submitFrom(ctx, e, i.source)
}

// Refuse counts n events of the source that were not submitted because one
// before them was refused with ErrFull.
func (i Intake) Refuse(n int) {
	if q, ok := i.r.o.Queue.(Refuser); ok && n > 0 {
		q.Refuse(i.source, uint64(n))
	}
}

// Submit hands an event to the queue, which copies what it needs. It does no I/O;
// with Block it waits for room until ctx is done, else it does not wait. An error
// means that nothing was queued: that of Check, ErrFull, ErrTooLarge, ErrBadID,
// ErrClosed, ErrFailed or, after a wait, ctx's.
func (r *Recorder) Submit(ctx context.Context, e abi.Event) (Receipt, error) {
	return r.submitFrom(ctx, e, SourceGo)
}

func (r *Recorder) submitFrom(ctx context.Context, e abi.Event, source string) (Receipt, error) {
	rc, err := r.submit(ctx, e, source)
	if err != nil {
		if errors.Is(err, ErrClosed) {
			r.closing.Store(true)
		}
		if missed, ok := r.warn.due(time.Now()); ok {
			r.log.LogAttrs(ctx, slog.LevelWarn, "event not recorded", slog.String("id", bounded(e.ID)),
				slog.Any("error", err), slog.Uint64("and_not_shown", missed))
		}
	}
	return rc, err
}

func (r *Recorder) submit(ctx context.Context, e abi.Event, source string) (Receipt, error) {
	err := r.o.Check(e)
	if err == nil && (len(e.AgentID) > abi.MaxAgentIDLen || len(e.EventType) > abi.MaxEventTypeLen || len(e.Timestamp) > abi.MaxEventTypeLen) {
		err = errors.New("agent id, event type or timestamp is too long") // a record has 16 bits for each length
	}
	if err != nil {
		r.refused.Add(1)
		return Receipt{}, fmt.Errorf("record event: %w", err)
	}
	buf, _ := r.records.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer r.records.Put(buf)
	*buf = abi.AppendRecord((*buf)[:0], &e)
	ev := Event{ID: e.ID, Payload: *buf, Source: source}
	var rc Receipt
	if r.blocker != nil {
		rc, err = r.blocker.SubmitBlocking(ctx, ev)
	} else {
		rc, err = r.o.Queue.Submit(ev)
	}
	if err != nil {
		return rc, fmt.Errorf("record event: %w", err)
	}
	return rc, nil
}

// IsOpen says whether events are taken: false once Close was called, or the queue
// was found closed.
func (r *Recorder) IsOpen() bool { return !r.closing.Load() }

// Resume lets the parked sink of that name deliver again, with a whole restart
// budget.
func (r *Recorder) Resume(name string) error {
	for _, d := range r.drainers {
		if d.o.Name == name {
			if !d.Resume() {
				return fmt.Errorf("resume sink %q: %w", name, ErrNotParked)
			}
			return nil
		}
	}
	return fmt.Errorf("resume sink %q: %w", name, ErrNoSink)
}

// Metrics is a snapshot. Its sinks are in the order of the options.
func (r *Recorder) Metrics() Metrics {
	var m Metrics
	settled := make([]Seq, len(r.drainers))
	for i, d := range r.drainers {
		var s SinkMetrics
		s, settled[i] = d.snapshot()
		m.Sinks = append(m.Sinks, s)
	}
	refused := r.refused.Load()
	w := r.o.Queue.Watermarks()
	m.Submitted, m.SendFailures, m.Refused = w.Submitted+refused, w.SendFailures+refused, w.Refused.Count
	for i := range m.Sinks {
		m.Sinks[i].pend(w.Accepted, settled[i])
	}
	return m
}

// throttle lets one warning a second through, for what is refused is refused in
// numbers.
type throttle struct {
	mu     sync.Mutex
	next   time.Time // guarded by mu
	missed uint64    // guarded by mu; since the last one that got through
}

// due says whether to warn now, and how many warnings were held back before.
func (t *throttle) due(now time.Time) (missed uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.missed++
		return 0, false
	}
	missed, t.missed, t.next = t.missed, 0, now.Add(time.Second)
	return missed, true
}
