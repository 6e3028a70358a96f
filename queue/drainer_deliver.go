package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// job is a part of the batch in hand that is delivered in one call.
type job struct {
	at      []int  // indices of its events, ascending
	id      uint64 // of its abi.Batch; 0 before the first attempt
	attempt uint32
	// suspect: it has had an unknown outcome, alone or as a part of something
	// larger. The next one halves it.
	suspect bool
	// witness: it is the first half of a batch with unknown outcomes. If it is
	// stored, the fault lies in the other half, which is next on the stack.
	witness bool
	// accused: the other half was stored. It is halved without being delivered,
	// which spares a restart.
	accused bool
}

// errAnew is returned by a step after which the batch in hand is looked at
// afresh: the sink was parked and may be another one now.
var errAnew = errors.New("begin anew")

// drain gives every event of the batch in hand its final outcome.
func (d *Drainer) drain(ctx context.Context) error {
	d.incident = false
	if err := d.buryUnreadable(ctx); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	for {
		err := d.work(ctx)
		if err == nil {
			break
		}
		if err != errAnew {
			return err
		}
		d.incident = false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hand.reset()
	d.spare, d.hand = d.hand, hand{}
	d.m.State = Running
	return nil
}

// work delivers all of the hand that has no final outcome.
func (d *Drainer) work(ctx context.Context) error {
	d.order = d.order[:0]
	for i := range d.hand.meta {
		if m := &d.hand.meta[i]; m.fate == open {
			m.unknowns = 0
			d.order = append(d.order, i)
		}
	}
	d.jobs = d.jobs[:0]
	if len(d.order) > 0 {
		d.push(job{at: d.order})
	}
	for len(d.jobs) > 0 {
		j := d.jobs[len(d.jobs)-1]
		d.jobs = d.jobs[:len(d.jobs)-1]
		if len(j.at) > 1 && (j.accused || d.tooLarge(&j)) {
			d.halve(j)
			continue
		}
		if err := d.step(ctx, j); err != nil {
			return err
		}
		if err := d.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *Drainer) push(j job) { d.jobs = append(d.jobs, j) }

// halve puts the two parts of a job on the stack, the first one on top. The first
// is the smaller one: only a first half costs a restart to convict, and so a
// guilty event among n = 2^k is found with k + 2 restarts at most, wherever it
// stands.
func (d *Drainer) halve(j job) {
	n := max(1, (len(j.at)-1)/2)
	d.push(job{at: j.at[n:], suspect: j.suspect})
	d.push(job{at: j.at[:n], suspect: j.suspect, witness: j.suspect})
}

// step delivers a job and deals with the outcome. What is left of it goes back
// on the stack.
func (d *Drainer) step(ctx context.Context, j job) error {
	r, err := d.deliver(ctx, &j)
	if err != nil {
		return err
	}
	switch r.Outcome {
	case abi.OK:
		d.waits = 0
		d.mark(j.at, appended)
		if n := len(d.jobs); j.witness && n > 0 {
			d.jobs[n-1].accused = true
		}
		return nil
	case abi.Partial:
		return d.partial(ctx, j, &r)
	case abi.Retry, abi.Busy:
		d.push(j)
		return d.oblige(ctx, r.RetryAfter)
	case abi.Reject:
		d.waits = 0
		if len(j.at) > 1 {
			d.halve(j)
			return nil
		}
		return d.bury(ctx, j.at, func(int) (abi.Outcome, string, string) { return abi.Reject, r.Detail, r.Stderr })
	case abi.BadConfig:
		return d.parkAnew(ctx, "the plugin refuses its configuration: "+r.Detail)
	}
	return d.unknown(ctx, j, &r)
}

// partial deals with a verdict per event.
func (d *Drainer) partial(ctx context.Context, j job, r *abi.Result) error {
	var stored, again, never []int
	reasons := make(map[int]string)
	for k, i := range j.at {
		switch v := &r.Verdicts[k]; v.Code {
		case abi.OK:
			stored = append(stored, i)
		case abi.Retry:
			again = append(again, i)
		default:
			never = append(never, i)
			reasons[i] = v.Reason
		}
	}
	d.mark(stored, appended)
	if len(never) > 0 {
		err := d.bury(ctx, never, func(i int) (abi.Outcome, string, string) { return abi.Reject, reasons[i], r.Stderr })
		if err != nil {
			return err
		}
	}
	switch {
	case len(again) == 0:
		d.waits = 0
		return nil
	case len(again) == len(j.at):
		d.push(j) // the same events are the same batch
	default:
		d.waits = 0
		d.push(job{at: again})
	}
	// What is settled must not wait for what is not.
	if err := d.settle(ctx); err != nil {
		return err
	}
	return d.oblige(ctx, r.RetryAfter)
}

// oblige waits as the guest wished, and longer when it wishes so again and again.
// There is no end to its patience: nothing is lost by waiting.
func (d *Drainer) oblige(ctx context.Context, wish time.Duration) error {
	wish = min(wish, waitMost)
	err := d.wait(ctx, pause(wish, waitLeast, max(wish, growMost), d.waits))
	d.waits++
	return err
}

// unknown deals with an outcome that does not tell what was stored: once more,
// then in parts, until one event alone has had it twice.
func (d *Drainer) unknown(ctx context.Context, j job, r *abi.Result) error {
	d.log.LogAttrs(ctx, slog.LevelError, "delivery ended with an unknown outcome",
		slog.String("outcome", r.Outcome.String()), slog.String("detail", bounded(r.Detail)),
		slog.Uint64("batch", j.id), slog.Uint64("attempt", uint64(j.attempt)), slog.Int("events", len(j.at)))
	if !d.incident {
		if !d.spend() {
			return d.parkAnew(ctx, d.overspent(r))
		}
		d.incident = true
	}
	if len(j.at) > 1 {
		if j.suspect {
			d.halve(j)
		} else {
			j.suspect = true
			d.push(j)
		}
		return nil
	}
	i := j.at[0]
	m := &d.hand.meta[i]
	if m.unknowns++; m.unknowns < 2 {
		j.suspect = true
		d.push(j)
		return nil
	}
	// A sink that ends at everything would make a dead letter of everything: so
	// each of them is taken from the budget first.
	if !d.spend() {
		return d.parkAnew(ctx, d.overspent(r))
	}
	return d.bury(ctx, j.at, func(int) (abi.Outcome, string, string) { return r.Outcome, r.Detail, r.Stderr })
}

func (d *Drainer) overspent(r *abi.Result) string {
	return fmt.Sprintf("%d incidents within %v are allowed, and there is one more: %s: %s",
		d.budget.most, d.budget.window, r.Outcome, r.Detail)
}

// parkAnew parks, and has the batch in hand begun anew when the sink is resumed.
func (d *Drainer) parkAnew(ctx context.Context, reason string) error {
	if err := d.park(ctx, reason); err != nil {
		return err
	}
	return errAnew
}

// fresh comes before every delivery. After an unknown outcome it waits, the
// longer the more incidents there were of late. It does not after the first of
// them: one bad event must not hold up those behind it.
func (d *Drainer) fresh(ctx context.Context) error {
	if d.stale {
		n := d.budget.count(time.Now())
		if d.unknowns > 1 {
			n = max(n, 2) // the fresh instance did no better
		}
		if n > 1 {
			if err := d.wait(ctx, pause(restartLeast, restartLeast, growMost, n-2)); err != nil {
				return err
			}
		}
		d.stale = false
		d.update(func(m *SinkMetrics) { m.Restarts++ })
	}
	return ctx.Err()
}

// deliver makes one attempt at a job and counts it.
func (d *Drainer) deliver(ctx context.Context, j *job) (abi.Result, error) {
	if err := d.fresh(ctx); err != nil {
		return abi.Result{}, err
	}
	if j.id == 0 {
		d.nextID++
		j.id = d.nextID
	}
	if j.suspect {
		d.update(func(m *SinkMetrics) { m.State = Bisecting })
	}
	j.attempt++
	for _, i := range j.at {
		d.hand.meta[i].attempts++
	}
	d.batch = abi.Batch{ID: j.id, Attempt: j.attempt, Queue: d.queue, Events: d.gather(j.at)}
	r := d.call(ctx)
	if r.Outcome.HostMade() && ctx.Err() != nil {
		// Cut short, and so unknown: the events stay in the queue, and come again.
		return r, ctx.Err()
	}
	d.count(&r, len(j.at))
	return r, nil
}

// gather returns the events at these indices: a part of the hand where they stand
// together, as they nearly always do.
func (d *Drainer) gather(at []int) []abi.Event {
	first, last := at[0], at[len(at)-1]
	if last-first+1 == len(at) {
		return d.hand.events[first : last+1]
	}
	d.gathered = d.gathered[:0]
	for _, i := range at {
		d.gathered = append(d.gathered, d.hand.events[i])
	}
	return d.gathered
}

// call calls the sink, whose panic is an outcome like any other. After one that
// the host made the next delivery meets a fresh instance.
func (d *Drainer) call(ctx context.Context) (r abi.Result) {
	n := len(d.batch.Events)
	defer func() {
		if d.stale = r.Outcome.HostMade(); d.stale {
			d.unknowns++
		} else {
			d.unknowns = 0
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			stack := debug.Stack()
			r = abi.Result{
				Outcome: abi.HostPanic, Detail: bounded(fmt.Sprintf("sink panicked: %v", p)),
				Stderr: string(stack[:min(len(stack), 8<<10)]),
			}
		}
	}()
	return judged(d.o.Sink.Deliver(ctx, &d.batch), n)
}

// judged replaces a result that contradicts itself.
func judged(r abi.Result, n int) abi.Result {
	bad := func(format string, a ...any) abi.Result {
		return abi.Result{Outcome: abi.BadABI, Detail: fmt.Sprintf(format, a...), Stderr: r.Stderr, Races: r.Races}
	}
	switch {
	case r.Outcome > abi.BadABI, r.Outcome > abi.BadConfig && !r.Outcome.HostMade():
		return bad("%s is no outcome", r.Outcome)
	case r.Outcome != abi.Partial:
		if len(r.Verdicts) > 0 {
			return bad("%s with %d verdicts", r.Outcome, len(r.Verdicts))
		}
	case len(r.Verdicts) != n:
		return bad("PARTIAL with %d verdicts for %d events", len(r.Verdicts), n)
	}
	for i, v := range r.Verdicts {
		if v.Code != abi.OK && v.Code != abi.Retry && v.Code != abi.Reject {
			return bad("verdict %s for event %d; want OK, RETRY or REJECT", v.Code, i)
		}
	}
	return r
}

// count counts a delivery of n events.
func (d *Drainer) count(r *abi.Result, n int) {
	failed, retried := n, r.Outcome == abi.Retry
	switch r.Outcome {
	case abi.OK:
		failed = 0
	case abi.Partial:
		for _, v := range r.Verdicts {
			if v.Code == abi.OK {
				failed--
			}
			retried = retried || v.Code == abi.Retry
		}
	}
	d.update(func(m *SinkMetrics) {
		m.Batches++
		m.AppendFailures += uint64(failed)
		m.UniqueRaceRetries += r.Races
		if retried {
			m.Retries++
		}
		if r.Outcome == abi.Busy {
			m.Busies++
		}
		if r.Outcome.HostMade() {
			m.DrainerPanics++
		}
		if r.Outcome != abi.OK && r.Outcome != abi.Partial {
			m.wrong(r.Outcome.String() + ": " + r.Detail)
			m.LastOutcome = r.Outcome
		}
	})
	if r.Races > 0 {
		d.log.LogAttrs(context.Background(), slog.LevelWarn, "lost races for the next sequence number", slog.Uint64("races", r.Races))
	}
}
