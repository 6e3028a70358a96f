package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// How much longer than its context Close may take: cutGrace for deliveries to
// notice that they are cut short, endGrace for everything, the queue's last write
// and the sinks' last commit included.
const (
	cutGrace = time.Second
	endGrace = 4 * time.Second
)

// Report says what became of events, as far as it is known. Its numbers are those
// of the required sinks, or of all where none is required; where they differ, of
// the one that is worst off.
type Report struct {
	// Submitted are the events accepted since the queue was opened.
	Submitted uint64
	// Appended and DeadLettered are their final outcomes, with those of the events
	// recovered from a run before.
	Appended, DeadLettered uint64
	// Remained are the events that have none.
	Remained uint64
	// Parked names the sinks that are parked, required or not.
	Parked []string
	// Sinks has a line for each, in the order of the options.
	Sinks []SinkReport
}

// SinkReport is the part of a report about one sink.
type SinkReport struct {
	Name                             string
	Required                         bool
	Appended, DeadLettered, Remained uint64
	Parked                           string // why; empty if it is not
}

// DrainPending waits until everything that was accepted before the call has its
// final outcome from every required sink, or from every sink if none is required.
// It returns an error that wraps ctx's, [ErrParked] or [ErrClosed] if that can't
// be waited for; the report is true in any case. It closes nothing: events
// submitted meanwhile are taken, and not waited for.
func (r *Recorder) DrainPending(ctx context.Context) (Report, error) {
	w := r.o.Queue.Watermarks()
	var errs []error
	for _, d := range r.deciding() {
		if err := r.awaitSettled(ctx, d, &w.Accepted); err != nil {
			errs = append(errs, fmt.Errorf("drain sink %q: %w", d.o.Name, err))
		}
	}
	if len(r.drainers) == 0 && w.Accepted > w.Opened {
		<-ctx.Done()
		errs = append(errs, fmt.Errorf("drain: there is no sink: %w", ctx.Err()))
	}
	rep := r.reportAt(w.Accepted)
	if len(errs) > 0 {
		errs = append([]error{fmt.Errorf("%d events have no final outcome yet", rep.Remained)}, errs...)
	}
	return rep, errors.Join(errs...)
}

// lookAgain is how often a wait looks whether what it waits for can still come.
const lookAgain = 100 * time.Millisecond

// awaitSettled waits until the sink has given every event up to target its final
// outcome. What the queue could not write is in no queue any more, its receipts
// have failed, and nobody may submit again: target is then put back to what there
// is.
func (r *Recorder) awaitSettled(ctx context.Context, d *Drainer, target *Seq) error {
	for {
		look, cancel := context.WithTimeout(ctx, lookAgain)
		err := d.await(look, *target)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		*target = min(*target, r.o.Queue.Watermarks().Accepted)
	}
}

// deciding are the drainers whose sinks decide about success.
func (r *Recorder) deciding() []*Drainer {
	var required []*Drainer
	for _, d := range r.drainers {
		if d.o.Required {
			required = append(required, d)
		}
	}
	if len(required) == 0 {
		return r.drainers
	}
	return required
}

// reportAt reports on the events up to target.
func (r *Recorder) reportAt(target Seq) Report {
	decides := make(map[string]bool)
	for _, d := range r.deciding() {
		decides[d.o.Name] = true
	}
	var rep Report
	first := true
	for _, d := range r.drainers {
		m, settled := d.snapshot()
		s := SinkReport{Name: m.Name, Required: m.Required, Appended: m.Appended, DeadLettered: m.DLQLanded, Parked: m.Parked}
		if settled < target {
			s.Remained = uint64(target - settled)
		}
		rep.Sinks = append(rep.Sinks, s)
		if m.Parked != "" {
			rep.Parked = append(rep.Parked, m.Name)
		}
		if decides[m.Name] {
			if first || s.Appended < rep.Appended {
				rep.Appended = s.Appended
			}
			rep.DeadLettered = max(rep.DeadLettered, s.DeadLettered)
			rep.Remained = max(rep.Remained, s.Remained)
			first = false
		}
	}
	w := r.o.Queue.Watermarks()
	rep.Submitted = w.Submitted - w.SendFailures
	if len(r.drainers) == 0 {
		rep.Remained = uint64(target - w.Opened)
	}
	return rep
}

// Close stops accepting, delivers what is left until ctx is done, then cuts the
// deliveries short, waits for the drainers, and closes the sinks. Nobody waits
// for a parked sink. A *[RemainingError] says how many events have no final
// outcome and whether they are kept; other errors are about what could not be
// closed. Further calls return the same.
//
// It returns at the latest endGrace (4 s) after ctx is done. A sink that does not
// come back from Deliver can't be stopped in Go: it is named in the error, left
// behind with its goroutine, and not closed, because nothing may be freed under a
// call that runs. Its goroutine ends when the sink comes back.
func (r *Recorder) Close(ctx context.Context) (Report, error) {
	r.once.Do(func() { r.report, r.err = r.close(ctx) })
	return r.report, r.err
}

func (r *Recorder) close(ctx context.Context) (Report, error) {
	r.closing.Store(true)
	cut, cancelCut := extended(ctx, cutGrace)
	defer cancelCut()
	end, cancelEnd := extended(ctx, endGrace)
	defer cancelEnd()

	// The queue refuses events from here on, and ends when the drainers have
	// acknowledged everything, or when they are gone.
	waiting, give := context.WithCancel(end)
	defer give()
	closed := make(chan error, 1)
	go func() { closed <- r.o.Queue.Close(waiting) }() // joined below, within end
	cause := errors.New("there is no sink")
	if len(r.drainers) > 0 {
		cause = nil
	}
	for _, d := range r.deciding() {
		if err := d.awaitEnd(ctx); err != nil && cause == nil {
			cause = fmt.Errorf("sink %q: %w", d.o.Name, err)
		}
	}
	for _, d := range r.drainers {
		_ = d.awaitEnd(ctx) // the report tells
	}
	r.stop()
	var errs []error
	var ended []*Drainer
	for i, d := range r.drainers {
		if _, ok := within(cut, r.done[i]); ok {
			ended = append(ended, d)
		} else {
			errs = append(errs, fmt.Errorf("close sink %q: it has not come back from Deliver and is left behind", d.o.Name))
		}
	}
	// The queue and the sinks come to their ends beside each other, so that one
	// that hangs takes no time from the others.
	give()
	ends := make([]chan error, len(ended))
	for i, d := range ended {
		ends[i] = make(chan error, 1)
		go func() { ends[i] <- closeSink(end, d.o.Sink) }()
	}
	kept, known := false, false
	if err, ok := within(end, closed); !ok {
		errs = append(errs, errors.New("close queue: it did not come to an end in time"))
	} else if left := new(RemainingError); errors.As(err, &left) {
		kept, known = left.Kept, true
	} else if err != nil {
		errs = append(errs, err)
	}
	for i, d := range ended {
		err, ok := within(end, ends[i])
		if !ok {
			err = errors.New("it has not come back from Close and is left behind")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("close sink %q: %w", d.o.Name, err))
		}
	}
	rep := r.reportAt(r.o.Queue.Watermarks().Accepted)
	switch {
	case rep.Remained > 0 && known:
		errs = append([]error{&RemainingError{Events: rep.Remained, Kept: kept, Cause: cause}}, errs...)
	case rep.Remained > 0:
		errs = append([]error{fmt.Errorf("%d events remain; what of them is kept, the next start shows", rep.Remained), cause}, errs...)
	}
	r.log.LogAttrs(ctx, slog.LevelInfo, "recorder closed", slog.Uint64("submitted", rep.Submitted),
		slog.Uint64("appended", rep.Appended), slog.Uint64("dead_lettered", rep.DeadLettered), slog.Uint64("remained", rep.Remained))
	return rep, errors.Join(errs...)
}

// closeSink closes a sink, whose panic is an error like any other.
func closeSink(ctx context.Context, s Sink) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v", p)
		}
	}()
	return s.Close(ctx)
}

// within waits for what comes from ch until ctx is done.
func within[T any](ctx context.Context, ch <-chan T) (v T, ok bool) {
	select {
	case v = <-ch:
		return v, true
	case <-ctx.Done():
	}
	select { // both may have been ready
	case v = <-ch:
		return v, true
	default:
		return v, false
	}
}

// extended returns a context that is done a while after ctx is.
func extended(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(by, cancel)
		context.AfterFunc(late, func() { t.Stop() })
	})
	return late, func() { done(); cancel() }
}
