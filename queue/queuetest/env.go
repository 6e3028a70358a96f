package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/audit-host/audit-host/queue"
)

// env is what a case works with. Its methods fail the case.
type env struct {
	t *testing.T
	s *Site
	q queue.Queue // the one open, or nil
}

// open opens the site's queue and remembers it.
func (e *env) open(o Options) queue.Queue {
	e.t.Helper()
	q, err := e.s.Open(o)
	if err != nil {
		e.t.Fatalf("open: %v", err)
	}
	e.q = q
	return q
}

// cleanup closes what is open without waiting for anybody.
func (e *env) cleanup() {
	if e.q != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = e.q.Close(ctx) // the case has judged before
	}
	if e.s.Handles != nil {
		if n := e.s.Handles(); n != 0 {
			e.t.Errorf("%d handles are open at the end", n)
		}
	}
}

// close closes the queue, which must have nothing left.
func (e *env) close() {
	e.t.Helper()
	if err := e.q.Close(e.t.Context()); err != nil {
		e.t.Fatalf("close: %v", err)
	}
	e.q = nil
}

// closeNow closes the queue with whatever is left.
func (e *env) closeNow() {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	cancel()
	var left *queue.RemainingError
	if err := e.q.Close(ctx); err != nil && !errors.As(err, &left) {
		e.t.Fatalf("close: %v", err)
	}
	e.q = nil
}

func (e *env) crash() {
	e.s.Crash(e.q)
	e.q = nil
}

func event(id string) queue.Event {
	return queue.Event{ID: id, Payload: fmt.Appendf(nil, `{"id":%q,"pad":"%0150d"}`, id, len(id))}
}

func ids(prefix string, from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("%s%05d", prefix, i))
	}
	return out
}

// submit submits events of those IDs and returns the last receipt.
func (e *env) submit(ids ...string) queue.Receipt {
	e.t.Helper()
	var r queue.Receipt
	for _, id := range ids {
		ev := event(id)
		var err error
		if r, err = e.q.Submit(ev); err != nil {
			e.t.Fatalf("submit %s: %v", id, err)
		}
		clear(ev.Payload) // the queue must have its own copy
	}
	return r
}

// unsure submits those while syncs fail and returns the last receipt. From the
// second on the failure may be known by then.
func (e *env) unsure(ids ...string) queue.Receipt {
	e.t.Helper()
	r := e.submit(ids[0])
	for _, id := range ids[1:] {
		next, err := e.q.Submit(event(id))
		if err != nil {
			e.expectErr("submit during a failed sync", err, queue.ErrFailed)
			break
		}
		r = next
	}
	return r
}

// durable submits and waits until all of it is durable.
func (e *env) durable(ids ...string) {
	e.t.Helper()
	e.wait(e.submit(ids...), queue.Durable)
}

func (e *env) wait(r queue.Receipt, l queue.Level) {
	e.t.Helper()
	if err := r.Wait(e.t.Context(), l); err != nil {
		e.t.Fatalf("wait for %v: %v", l, err)
	}
}

func (e *env) consumer(name string, o queue.ConsumerOptions) queue.Consumer {
	e.t.Helper()
	c, err := e.q.Consumer(e.t.Context(), name, o)
	if err != nil {
		e.t.Fatalf("open consumer %s: %v", name, err)
	}
	return c
}

func (e *env) required(name string) queue.Consumer {
	e.t.Helper()
	return e.consumer(name, queue.ConsumerOptions{Required: true})
}

func (e *env) closeConsumer(c queue.Consumer) {
	e.t.Helper()
	if err := c.Close(); err != nil {
		e.t.Fatalf("close consumer: %v", err)
	}
}

// take reads exactly n events, in as many batches as it needs.
func (e *env) take(c queue.Consumer, n int) []queue.Entry {
	e.t.Helper()
	var got []queue.Entry
	for len(got) < n {
		b, err := c.Next(e.t.Context(), n-len(got), 0)
		if err != nil {
			e.t.Fatalf("next after %d of %d events: %v", len(got), n, err)
		}
		e.check(b)
		got = append(got, b.Events...)
	}
	if e.q != nil {
		if w := e.q.Watermarks(); len(got) > 0 && got[len(got)-1].Seq > w.Durable {
			e.t.Fatalf("event %d was delivered, durable is %d", got[len(got)-1].Seq, w.Durable)
		}
	}
	return got
}

// check checks one batch in itself.
func (e *env) check(b queue.Batch) {
	e.t.Helper()
	if len(b.Events) == 0 {
		e.t.Fatal("next returned an empty batch")
	}
	if b.First != b.Events[0].Seq {
		e.t.Fatalf("batch says first %d, its first event is %d", b.First, b.Events[0].Seq)
	}
	for i, x := range b.Events {
		if i > 0 && x.Seq <= b.Events[i-1].Seq {
			e.t.Fatalf("seq %d follows %d", x.Seq, b.Events[i-1].Seq)
		}
	}
}

func (e *env) ack(c queue.Consumer, upTo queue.Seq) {
	e.t.Helper()
	if err := c.Ack(e.t.Context(), upTo); err != nil {
		e.t.Fatalf("ack %d: %v", upTo, err)
	}
}

// expect compares events with IDs, in order, payloads included.
func (e *env) expect(got []queue.Entry, want []string) {
	e.t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i].ID != want[i] {
			e.t.Fatalf("event %d (seq %d) is %q, want %q", i, got[i].Seq, got[i].ID, want[i])
		}
		if !bytes.Equal(got[i].Payload, event(want[i]).Payload) {
			e.t.Fatalf("event %q has a payload that was never submitted: %q", want[i], got[i].Payload)
		}
	}
	if len(got) != len(want) {
		e.t.Fatalf("%d events, want %d", len(got), len(want))
	}
}

// balanced checks the equation of the watermarks.
func (e *env) balanced() {
	e.t.Helper()
	if w := e.q.Watermarks(); w.Submitted-w.SendFailures != uint64(w.Accepted-w.Opened) {
		e.t.Fatalf("submitted %d - failed %d is not accepted %d - opened %d", w.Submitted, w.SendFailures, w.Accepted, w.Opened)
	}
}

// expectErr checks that err is the wanted one.
func (e *env) expectErr(what string, err, want error) {
	e.t.Helper()
	if !errors.Is(err, want) {
		e.t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

// rest reads until the consumer says that it is at the end of a closed queue or
// until nothing comes any more, and returns the error of the last Next, nil if
// it just waited. Everything is acknowledged when ack is set.
func (e *env) rest(c queue.Consumer, ack bool) ([]queue.Entry, error) {
	e.t.Helper()
	var got []queue.Entry
	durable := e.q.Watermarks().Durable
	for {
		if n := len(got); n > 0 && got[n-1].Seq >= durable {
			return got, nil
		}
		ctx, cancel := context.WithTimeout(e.t.Context(), quiet)
		b, err := c.Next(ctx, 0, 0)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		e.check(b)
		got = append(got, b.Events...)
		if ack {
			e.ack(c, b.Last())
		}
	}
}
