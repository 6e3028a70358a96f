package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// ErrParked is wrapped by the error of a wait that can't end because the sink
// delivers nothing until it is resumed.
var ErrParked = errors.New("the sink is parked")

// ErrNotParked is wrapped by the error of resuming a sink that delivers.
var ErrNotParked = errors.New("it is not parked")

// DrainerOptions is what a drainer works with. Sealer and DeadLetters are needed.
type DrainerOptions struct {
	SinkOptions
	Sealer      Sealer
	DeadLetters DeadLetters
	Log         *slog.Logger // nil drops what it is told
}

// Drainer takes what the queue hands out to one sink and gives each event
// exactly one final outcome: appended, or a dead letter.
//
// The way of an event is: handed out by the queue; decoded and sealed, while the
// events before it are being delivered; delivered; if the sink will never take
// it, stored as a dead letter; counted; acknowledged. A crash at any point before
// the acknowledgement hands the event out again, and both the sink and the dead
// letters recognise its ID; a crash after it finds the outcome stored. So nothing
// is lost, and nothing lands twice.
//
// Not guaranteed: that an event is delivered once, and that no other event is
// stored before one for which the sink itself asked to be retried.
type Drainer struct {
	o     DrainerOptions
	q     Queue
	queue [16]byte
	c     Consumer
	log   *slog.Logger
	start Seq // settled when the drainer was made

	// Owned by the goroutine of Run.
	nextID   uint64 // of batches
	budget   budget
	stale    bool  // the last outcome was unknown: the next delivery meets a fresh instance
	unknowns int   // unknown outcomes in a row
	waits    int   // RETRY and BUSY in a row
	incident bool  // the batch in hand has had an unknown outcome
	jobs     []job // a stack: the next one is last
	order    []int // backing of the jobs' indices
	batch    abi.Batch
	gathered []abi.Event
	spare    hand
	ackAgain <-chan time.Time // set while an acknowledgement is owed
	ackFails int

	mu      sync.Mutex // guards what follows; never held across I/O or a callback
	m       SinkMetrics
	settled Seq       // every event up to here has its final outcome, and is counted in m
	lagged  uint64    // events missed since
	hand    hand      // the batch being delivered
	slot    hand      // what is sealed and comes next
	failure error     // what Next answered, after the events in slot; cleared when dealt with
	sealing time.Time // At of the oldest event being sealed
	tuning  Tuning    // what of o is in force
	tunes   uint64    // how often it was set
	replays []*replay // that wait for Run, the first one first
	begun   bool
	ended   bool
	changed broadcast // something of this has changed
}

// NewDrainer opens the sink's cursor; from then on the queue keeps events for
// it. Run does the work. Close gives the cursor free if Run is never called.
func NewDrainer(ctx context.Context, q Queue, o DrainerOptions) (*Drainer, error) {
	bad := func(what string) (*Drainer, error) {
		return nil, fmt.Errorf("make drainer of sink %q: %s", o.Name, what)
	}
	switch {
	case o.Sink == nil || o.Sealer == nil || o.DeadLetters == nil:
		return bad("Sink, Sealer and DeadLetters are needed")
	}
	tuning, err := Tuning{o.Plugin, o.BatchEvents, o.BatchBytes, o.MaxRestarts, o.RestartWindow}.checked()
	if err != nil {
		return bad(err.Error())
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := q.Consumer(ctx, o.Name, ConsumerOptions{Required: o.Required, From: o.From})
	if err != nil {
		return nil, fmt.Errorf("make drainer of sink %q: %w", o.Name, err)
	}
	d := &Drainer{
		o: o, q: q, c: c, queue: q.Caps().ID,
		log:   o.Log.With(slog.String("sink", o.Name)),
		start: c.Acked(),
		// Batch ids go on rising over restarts of the process, so that none
		// stands for two batches: a batch takes longer than a nanosecond.
		nextID: uint64(time.Now().UnixNano()),
		budget: budget{most: tuning.MaxRestarts, window: tuning.RestartWindow},
		tuning: tuning,
	}
	d.settled = d.start
	d.m = SinkMetrics{Name: o.Name, Required: o.Required, State: Stopped}
	if opened := q.Watermarks().Opened; d.start <= opened {
		d.m.Recovered = uint64(opened - d.start)
	} else {
		d.m.Skipped = uint64(d.start - opened)
	}
	return d, nil
}

// Close gives the cursor's name free. Run does so itself when it ends.
func (d *Drainer) Close() error { return d.c.Close() }

// Run delivers until the queue is closed and hands out nothing more, and then
// returns nil; or until ctx is done, and then returns its error. What has no final
// outcome then stays in the queue, and the cursor's name is free. It may be called
// once. The sink is not closed.
func (d *Drainer) Run(ctx context.Context) (err error) {
	d.mu.Lock()
	if d.begun {
		d.mu.Unlock()
		return fmt.Errorf("run drainer of sink %q: it ran already", d.o.Name)
	}
	d.begun = true
	d.m.State = Running
	d.mu.Unlock()

	fetching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { d.fetch(fetching) })
	defer func() {
		stop()
		wg.Wait()
		if cerr := d.c.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close cursor of sink %q: %w", d.o.Name, cerr))
		}
		d.mu.Lock()
		d.ended = true
		d.m.State = Stopped
		d.changed.fire()
		d.mu.Unlock()
	}()
	return d.run(ctx)
}

func (d *Drainer) run(ctx context.Context) error {
	for failures := 0; ; {
		err := d.take(ctx)
		var lag ErrLagged
		switch {
		case err == nil:
			failures = 0
			err = d.drain(ctx)
		case ctx.Err() != nil:
			err = ctx.Err()
		case errors.As(err, &lag):
			d.skip(lag)
			err = d.cleared(nil)
		case errors.Is(err, ErrClosed):
			return d.lastAck(ctx)
		case errors.Is(err, ErrDamaged):
			err = d.cleared(d.park(ctx, "the queue is damaged: "+err.Error()))
		default:
			d.trouble("read queue", err)
			err = d.cleared(d.wait(ctx, pause(0, waitLeast, growMost, failures)))
			failures++
		}
		if err != nil {
			return err
		}
	}
}

// take makes what is in the slot the batch in hand. It waits for something to be
// there, and returns the error of Next after the events before it.
// Replays come in between, one before each batch, so that neither holds up the
// other.
func (d *Drainer) take(ctx context.Context) error {
	for replayed := false; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.mu.Lock()
		if len(d.replays) > 0 && (!replayed || len(d.slot.events) == 0) {
			rp := d.replays[0]
			d.replays, rp.begun, replayed = d.replays[1:], true, true
			d.mu.Unlock()
			d.redeliver(ctx, rp)
			continue
		}
		if len(d.slot.events) > 0 {
			d.hand, d.slot, d.spare = d.slot, d.spare, hand{}
			d.changed.fire()
			d.mu.Unlock()
			return nil
		}
		failure, changed := d.failure, d.changed.wait()
		d.mu.Unlock()
		if failure != nil {
			return failure
		}
		select {
		case <-changed:
		case <-d.ackAgain:
			d.ack(ctx)
		case <-ctx.Done():
		}
	}
}

// cleared lets the fetcher go on after an error that was dealt with.
func (d *Drainer) cleared(err error) error {
	if err == nil {
		d.mu.Lock()
		d.failure = nil
		d.changed.fire()
		d.mu.Unlock()
	}
	return err
}

// skip counts the events that the queue no longer has for this sink. All before
// them are settled, and the queue has moved the cursor itself.
func (d *Drainer) skip(lag ErrLagged) {
	n := uint64(lag.To - lag.From + 1)
	d.mu.Lock()
	d.lagged += n
	d.settled = max(d.settled, lag.To)
	d.changed.fire()
	d.mu.Unlock()
	d.trouble("fell behind the queue's bound and missed events; speed the sink up, or make it required", lag,
		slog.Uint64("missed", n))
}

// park stops delivering until Resume. All that is in hand stays there, and all
// behind it in the queue.
func (d *Drainer) park(ctx context.Context, reason string) error {
	reason = bounded(reason)
	d.log.LogAttrs(ctx, slog.LevelError, "sink parked: its events are kept until it is resumed", slog.String("reason", reason))
	d.mu.Lock()
	d.m.Parked = reason
	d.m.wrong(reason)
	d.m.State = Parked
	d.changed.fire()
	for d.m.Parked != "" {
		changed := d.changed.wait()
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		d.mu.Lock()
	}
	d.m.State = Running
	d.mu.Unlock()
	d.log.LogAttrs(ctx, slog.LevelInfo, "sink resumed")
	d.budget.clear()
	d.waits = 0
	return nil
}

// Resume lets a parked sink deliver again, with a whole budget. It says whether
// the sink was parked.
func (d *Drainer) Resume() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.m.Parked != ""
	d.m.Parked = ""
	d.changed.fire()
	return was
}

// wait pauses, until Retune at most: what was waited for may be there with the
// sink's new plugin.
func (d *Drainer) wait(ctx context.Context, pause time.Duration) error {
	var before State
	d.update(func(m *SinkMetrics) { before, m.State = m.State, Waiting })
	defer d.update(func(m *SinkMetrics) { m.State = before })
	t := time.NewTimer(pause)
	defer t.Stop()
	d.mu.Lock()
	for was := d.tunes; was == d.tunes; {
		changed := d.changed.wait()
		d.mu.Unlock()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		d.mu.Lock()
	}
	d.mu.Unlock()
	d.waits = 0
	return nil
}

// trouble makes an error visible.
func (d *Drainer) trouble(what string, err error, attrs ...slog.Attr) {
	text := what + ": " + err.Error()
	d.update(func(m *SinkMetrics) { m.wrong(text); m.LastOutcome = abi.OK })
	d.log.LogAttrs(context.Background(), slog.LevelError, "sink in trouble",
		append(attrs, slog.String("what", what), slog.String("error", bounded(err.Error())))...)
}

// await waits until every event up to target has its final outcome. ErrParked,
// ErrClosed if Run has ended before, or ctx's error.
func (d *Drainer) await(ctx context.Context, target Seq) error {
	return d.awaitThat(ctx, func() (bool, error) {
		switch {
		case d.settled >= target:
			return true, nil
		case d.m.Parked != "":
			return true, fmt.Errorf("%w: %s", ErrParked, d.m.Parked)
		case d.ended:
			return true, ErrClosed
		}
		return false, nil
	})
}

// awaitEnd waits until Run has ended. ErrParked or ctx's error.
func (d *Drainer) awaitEnd(ctx context.Context) error {
	return d.awaitThat(ctx, func() (bool, error) {
		switch {
		case d.ended:
			return true, nil
		case d.m.Parked != "":
			return true, ErrParked
		}
		return false, nil
	})
}

// awaitThat waits until what holds, which is asked with the lock held.
func (d *Drainer) awaitThat(ctx context.Context, what func() (bool, error)) error {
	for {
		d.mu.Lock()
		done, err := what()
		changed := d.changed.wait()
		d.mu.Unlock()
		if done {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
