package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/audit-host/audit-host/abi"
)

// ErrNoSink is wrapped by the error of a call that names a sink which is not
// there.
var ErrNoSink = errors.New("there is no such sink")

// mostConvicted is how many events may end an instance in one call of the
// drainer before the rest of them is left alone: a sink that ends at everything
// must not be restarted for every letter there is.
const mostConvicted = 5

// ReplayFate is what became of a dead letter in a replay.
type ReplayFate uint8

// Fates of a replayed letter.
const (
	// ReplayNotNow: it is not known to be stored, and not refused either; it may
	// be replayed again. The zero value.
	ReplayNotNow ReplayFate = iota
	// ReplayStored: the sink has the event.
	ReplayStored
	// ReplayRefused: the sink, or the check of the recorder, refuses it still.
	ReplayRefused
)

// Replayed says what became of one letter.
type Replayed struct {
	Fate ReplayFate
	// Outcome, Reason and Stderr are those of the last delivery, for a letter
	// that was not stored.
	Outcome abi.Outcome
	Reason  string
	Stderr  string
	// Plugin is the digest of the plugin that was asked.
	Plugin string
	// Attempts counts the deliveries of this replay; 0: it was not delivered.
	Attempts uint32
}

// Replay delivers dead letters to the sink of that name once more, and to no
// other. The sink's drainer does it between two batches, so that the sink still
// has one caller; what is queued goes on in between. The letters are not changed,
// and must not be while Replay runs.
//
// There is a result for every letter, also with an error: what the results then
// call stored is stored. ErrParked, ErrClosed, ErrNoSink, or ctx's error when the
// wait for the drainer was given up; a delivery that had begun then ends in the
// background, and its letters are not known to be stored.
//
// A sink gets a replayed event with position 0 in the queue of id 0, because its
// own position may be that of another queue by now, and with an attempt above 1,
// because it may have stored the event before. It recognises it by its ID, so
// that replaying a letter any number of times, and being killed at any point of
// it, leaves one row.
//
// A replay neither spends the sink's restart budget nor parks it, and none of its
// outcomes counts in the equation of [Metrics]: the letter was counted when it
// became one.
func (r *Recorder) Replay(ctx context.Context, sink string, letters []abi.DeadLetter) ([]Replayed, error) {
	out := make([]Replayed, len(letters))
	i := slices.IndexFunc(r.drainers, func(d *Drainer) bool { return d.o.Name == sink })
	if i < 0 {
		return out, fmt.Errorf("replay to sink %q: %w", sink, ErrNoSink)
	}
	d := r.drainers[i]
	tuning := d.tuned()
	rp, bytes := &replay{}, 0
	for k := range letters {
		e, err := r.revive(&letters[k])
		if err != nil {
			out[k] = Replayed{Fate: ReplayRefused, Outcome: abi.Reject, Reason: err.Error(), Plugin: tuning.Plugin}
			d.update(func(m *SinkMetrics) { m.ReplayRefused++ })
			continue
		}
		size := len(e.ID) + len(e.Payload)
		if len(rp.events) == tuning.BatchEvents || len(rp.events) > 0 && bytes+size > tuning.BatchBytes {
			if err := d.replay(ctx, rp, out); err != nil {
				return out, err
			}
			rp, bytes = &replay{}, 0
		}
		rp.events, rp.at = append(rp.events, e), append(rp.at, k)
		rp.attempt = max(rp.attempt, letters[k].Attempts+1, 2)
		bytes += size
	}
	if len(rp.events) == 0 {
		return out, nil
	}
	return out, d.replay(ctx, rp, out)
}

// revive makes the event of a letter, or says why that can't be done.
func (r *Recorder) revive(l *abi.DeadLetter) (abi.Event, error) {
	e := l.Event
	if l.Raw != nil {
		var err error
		if e, err = abi.DecodeRecord(e.ID, e.Seq, l.Raw); err != nil {
			return e, err
		}
	}
	// The letters lie in a file that a person may have edited.
	if err := r.o.Check(e); err != nil {
		return e, fmt.Errorf("it may not be recorded: %w", err)
	}
	e.Seq = 0
	return e, nil
}

// replay is a part of a replay that the drainer does in one go: a batch at most.
type replay struct {
	events  []abi.Event
	at      []int // where the results belong
	attempt uint32

	// The drainer's until done is set.
	results   []Replayed
	convicted int
	over      bool // nothing more of it is delivered
	err       error

	begun, done bool // guarded by the drainer's mu
}

// replay hands a part to the goroutine of Run, waits for it, and fills in out.
func (d *Drainer) replay(ctx context.Context, rp *replay, out []Replayed) error {
	rp.results = make([]Replayed, len(rp.events))
	d.mu.Lock()
	d.replays = append(d.replays, rp)
	d.changed.fire()
	d.mu.Unlock()
	err := d.awaitThat(ctx, func() (bool, error) {
		switch {
		case rp.done:
			return true, rp.err
		case rp.begun:
			return false, nil
		case d.m.Parked != "":
			return true, fmt.Errorf("%w: %s", ErrParked, d.m.Parked)
		case d.ended:
			return true, ErrClosed
		}
		return false, nil
	})
	d.mu.Lock()
	d.replays = slices.DeleteFunc(d.replays, func(o *replay) bool { return o == rp })
	done := rp.done
	d.mu.Unlock()
	if done {
		for i, k := range rp.at {
			out[k] = rp.results[i]
		}
	}
	if err != nil {
		return fmt.Errorf("replay to sink %q: %w", d.o.Name, err)
	}
	return nil
}

// redeliver does a part of a replay; Run calls it between two batches.
//
// There is no commit point here: nothing is acknowledged and no letter changed.
// Whoever asked marks a letter as resolved when it has read that the sink stored
// it, and a crash before that leaves the letter to be replayed again.
func (d *Drainer) redeliver(ctx context.Context, rp *replay) {
	h := hand{events: rp.events, meta: make([]meta, len(rp.events))}
	d.seal(&h)
	for i, plugin := 0, d.tuned().Plugin; i < len(rp.results); i++ {
		rp.results[i].Plugin = plugin
	}
	err := d.try(ctx, rp, 0, len(rp.events))
	var stored, refused uint64
	for i := range rp.results {
		switch r := &rp.results[i]; {
		case r.Fate == ReplayStored:
			stored++
		case r.Fate == ReplayRefused:
			refused++
		case r.Attempts == 0 && r.Reason == "":
			r.Outcome, r.Reason = abi.Retry, "not delivered: the sink did not get on with those before"
		}
	}
	d.log.LogAttrs(ctx, slog.LevelInfo, "dead letters replayed", slog.Int("letters", len(rp.events)),
		slog.Uint64("stored", stored), slog.Uint64("refused", refused))
	d.mu.Lock()
	d.m.Replayed += stored
	d.m.ReplayRefused += refused
	rp.err, rp.done = err, true
	d.changed.fire()
	d.mu.Unlock()
}

// try delivers the events from first up to last, and in halves where they fail
// together. An error is ctx's.
func (d *Drainer) try(ctx context.Context, rp *replay, first, last int) error {
	if rp.over {
		return nil
	}
	r, err := d.tryOnce(ctx, rp, first, last)
	if err != nil {
		return err
	}
	all := func(f ReplayFate) {
		for i := first; i < last; i++ {
			rp.results[i].end(f, r.Outcome, r.Detail, r.Stderr)
		}
	}
	switch r.Outcome {
	case abi.OK:
		all(ReplayStored)
	case abi.Partial:
		for i := first; i < last; i++ {
			v := &r.Verdicts[i-first]
			fate := ReplayRefused
			switch v.Code {
			case abi.OK:
				fate = ReplayStored
			case abi.Retry:
				fate = ReplayNotNow
			}
			rp.results[i].end(fate, v.Code, v.Reason, r.Stderr)
		}
	case abi.Retry, abi.Busy, abi.BadConfig:
		// Nobody waits here, for behind a replay stand the events of the queue.
		all(ReplayNotNow)
		rp.over = true
	default:
		if last-first > 1 {
			mid := first + (last-first)/2
			if err := d.try(ctx, rp, first, mid); err != nil {
				return err
			}
			return d.try(ctx, rp, mid, last)
		}
		all(ReplayRefused)
		if r.Outcome.HostMade() {
			rp.convicted++
			rp.over = rp.convicted == mostConvicted
		}
	}
	return nil
}

// end notes how a delivery ended for one letter.
func (r *Replayed) end(f ReplayFate, o abi.Outcome, reason, stderr string) {
	r.Fate = f
	if f == ReplayStored {
		r.Outcome, r.Reason, r.Stderr = abi.OK, "", ""
		return
	}
	r.Outcome, r.Reason, r.Stderr = o, reason, stderr
}

// tryOnce makes one delivery of a replay.
func (d *Drainer) tryOnce(ctx context.Context, rp *replay, first, last int) (abi.Result, error) {
	if err := d.fresh(ctx); err != nil {
		return abi.Result{}, err
	}
	for i := first; i < last; i++ {
		rp.results[i].Attempts++
	}
	d.nextID++
	d.batch = abi.Batch{ID: d.nextID, Attempt: rp.attempt, Events: rp.events[first:last]}
	r := d.call(ctx)
	if r.Outcome.HostMade() && ctx.Err() != nil {
		return r, ctx.Err() // cut short
	}
	d.update(func(m *SinkMetrics) {
		m.Batches++
		m.UniqueRaceRetries += r.Races
		if r.Outcome.HostMade() {
			m.DrainerPanics++
		}
	})
	if r.Outcome.HostMade() {
		d.log.LogAttrs(ctx, slog.LevelError, "replay ended with an unknown outcome", slog.String("outcome", r.Outcome.String()),
			slog.String("detail", bounded(r.Detail)), slog.Uint64("batch", d.batch.ID), slog.Int("events", last-first))
	}
	return r, nil
}
