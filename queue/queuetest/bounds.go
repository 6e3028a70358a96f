package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// lossEvent is the loss record of the suite: its payload is the count.
func lossEvent(n *int) func(queue.Refusals) (queue.Event, bool) {
	return func(r queue.Refusals) (queue.Event, bool) {
		*n++
		payload, parts := strconv.FormatUint(r.Count, 10), uint64(0)
		for _, s := range r.Sources {
			parts += s.Count
			if s.First.Before(r.First) || s.Last.After(r.Last) || s.Count == 0 {
				payload = "bad times of " + s.Source
			}
		}
		if r.First.IsZero() || r.Last.Before(r.First) || parts != r.Count {
			payload = "bad times or parts"
		}
		return queue.Event{ID: fmt.Sprint("loss-", *n), Payload: []byte(payload)}, true
	}
}

// Rule: at its bound the queue refuses with ErrFull and counts; after an ack
// there is room; the loss record then stands in the queue and has the number of
// refused events; who waits for room is not counted; nothing accepted is lost.
func caseFull(e *env) {
	records := 0
	q := e.open(Options{Small: true, LossRecord: lossEvent(&records)})
	c := e.required("sink")
	var want []string
	refused := uint64(0)
	full := false
	for i := 0; !full; i++ {
		if i == 200_000 {
			e.t.Fatal("a small queue takes 200,000 events")
		}
		id := fmt.Sprintf("e%06d", i)
		_, err := q.Submit(event(id))
		switch {
		case err == nil:
			want = append(want, id)
		case errors.Is(err, queue.ErrFull):
			refused++
			// The memory in front of a disk may be the bound: let it get empty.
			synctest.Wait()
			if _, err = q.Submit(event(id)); err == nil {
				want = append(want, id)
			} else {
				e.expectErr("submit at the bound", err, queue.ErrFull)
				refused++
				full = true
			}
		default:
			e.t.Fatalf("submit %s: %v", id, err)
		}
	}
	for i := range 10 {
		ev := event("refused")
		ev.Source = fmt.Sprint("source", i)
		_, err := q.Submit(ev)
		e.expectErr("submit at the bound", err, queue.ErrFull)
		refused++
	}
	if r, ok := q.(queue.Refuser); ok {
		r.Refuse("source0", 3)
		r.Refuse("source0", 0)
		refused += 3
	}
	w := q.Watermarks()
	if n := len(w.Refused.Sources); n != 8 || w.Refused.Sources[1].Source != "source0" || w.Refused.Sources[7].Source != "other" || w.Refused.Sources[7].Count != 4 {
		e.t.Errorf("sources %+v, want 8 of them, the last one for all others", w.Refused.Sources)
	}
	if n := w.Unrecorded.Count; n < 13 || n > refused {
		e.t.Errorf("%d refusals are in no record, want at least the last 13 of %d", n, refused)
	}
	if w.Refused.Count != refused || w.Refused.First.IsZero() || w.Refused.Last.Before(w.Refused.First) {
		e.t.Errorf("refusals %+v, want %d", w.Refused, refused)
	}
	if w.LimitBytes > 0 && w.Bytes > w.LimitBytes {
		e.t.Errorf("%d bytes in use, the limit is %d", w.Bytes, w.LimitBytes)
	}

	// Waiting for room, in vain and with success.
	if _, ok := q.(queue.Blocker); ok {
		ctx, cancel := context.WithTimeout(e.t.Context(), time.Second)
		_, err := queue.SubmitWait(ctx, q, event("late"), queue.Accepted)
		cancel()
		e.expectErr("wait for room in vain", err, context.DeadlineExceeded)
		e.expectErr("wait for room in vain", err, queue.ErrFull) // it is counted as refused, and the caller counts by this
		refused++
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := queue.SubmitWait(e.t.Context(), q, event("patient"), queue.Durable); err != nil {
				e.t.Errorf("wait for room: %v", err)
			}
		})
		synctest.Wait()
		defer wg.Wait()
		want = append(want, "patient")
	}
	got, counted := map[string]int{}, uint64(0)
	note := func(x queue.Entry) {
		if !strings.HasPrefix(x.ID, "loss-") {
			got[x.ID]++
			return
		}
		n, err := strconv.ParseUint(string(x.Payload), 10, 64)
		if err != nil {
			e.t.Errorf("loss record: %v", err)
		}
		counted += n
	}
	seen, err := e.rest(c, true)
	for _, x := range seen {
		note(x)
	}
	if err != nil {
		e.t.Fatalf("read everything: %v", err)
	}
	synctest.Wait()
	e.durable("after")
	want = append(want, "after")
	seen, err = e.rest(c, true)
	for _, x := range seen {
		note(x)
	}
	if err != nil {
		e.t.Fatalf("read the rest: %v", err)
	}
	if counted != refused {
		e.t.Errorf("the loss records in the queue count %d refused events, want %d", counted, refused)
	}
	for _, id := range want {
		if got[id] != 1 {
			e.t.Errorf("event %s was delivered %d times", id, got[id])
		}
	}
	if len(got) != len(want) {
		e.t.Errorf("%d different events, want %d", len(got), len(want))
	}
}

// Rule: who waits for room is woken by whatever makes some: here the required
// consumer, while the optional one is behind and frees nothing.
func caseWaitForRoom(e *env) {
	q := e.open(Options{Small: true})
	if _, ok := q.(queue.Blocker); !ok {
		return // it never waits
	}
	c := e.required("sink")
	lazy := e.consumer("lazy", queue.ConsumerOptions{})
	e.fill()
	done := make(chan error, 1)
	go func() {
		_, err := queue.SubmitWait(e.t.Context(), q, event("patient"), queue.Accepted)
		done <- err
	}()
	synctest.Wait()
	if _, err := e.rest(c, true); err != nil {
		e.t.Fatalf("read everything: %v", err)
	}
	if err := <-done; err != nil {
		e.t.Errorf("wait for room: %v", err)
	}
	_, err := lazy.Next(e.t.Context(), 1, 0)
	var lag queue.ErrLagged
	if !errors.As(err, &lag) {
		e.t.Errorf("next of the consumer that fell behind: %v, want ErrLagged", err)
	}
}

// fill submits until the queue is full, whatever of it is in memory.
func (e *env) fill() {
	e.t.Helper()
	for i := 0; ; i++ {
		_, err := e.q.Submit(event(fmt.Sprintf("e%06d", i)))
		if err == nil {
			continue
		}
		e.expectErr("submit at the bound", err, queue.ErrFull)
		synctest.Wait() // what is in front of a disk gets there
		if _, err = e.q.Submit(event("bound")); err != nil {
			return
		}
	}
}

// Rule: the cursor of a consumer that is gone holds back everything, visibly,
// until it is forgotten; then nothing is held back, also after another opening.
func caseForget(e *env) {
	q := e.open(Options{Small: true})
	k, ok := q.(queue.CursorKeeper)
	if !ok {
		return // none outlives its consumer
	}
	c, gone := e.required("sink"), e.required("gone")
	e.expectErr("forget an open consumer", k.Forget(e.t.Context(), "gone"), queue.ErrBusy)
	e.closeConsumer(gone)
	e.fill()
	if _, err := e.rest(c, true); err != nil {
		e.t.Fatalf("read everything: %v", err)
	}
	_, err := q.Submit(event("refused"))
	e.expectErr("submit while nobody takes what is kept", err, queue.ErrFull)
	w := q.Watermarks()
	want := []queue.CursorInfo{{Name: "gone", Required: true, Pending: uint64(w.Accepted)}, {Name: "sink", Required: true, Open: true, Acked: w.Accepted}}
	if got := k.Cursors(); !slices.Equal(got, want) || w.Committed != 0 {
		e.t.Errorf("cursors %+v, committed %d; want %+v and 0", got, w.Committed, want)
	}
	for range 2 { // there is nothing to do the second time
		if err := k.Forget(e.t.Context(), "gone"); err != nil {
			e.t.Fatalf("forget: %v", err)
		}
	}
	if got := q.Watermarks().Committed; got != w.Accepted {
		e.t.Errorf("committed %d, the only consumer left has acknowledged %d", got, w.Accepted)
	}
	synctest.Wait()
	e.durable("after")
	e.ack(c, e.take(c, 1)[0].Seq)
	e.close()
	e.expectErr("forget after close", k.Forget(e.t.Context(), "sink"), queue.ErrClosed)
	if e.s.Persistent {
		q := e.open(Options{Small: true})
		if got := q.(queue.CursorKeeper).Cursors(); len(got) != 1 || got[0].Name != "sink" || got[0].Open {
			e.t.Errorf("cursors after another opening: %+v, want that of sink alone", got)
		}
	}
}

// Rule: a name has one consumer at a time; a queue that lives in one process
// refuses a second opening.
func caseOneOwner(e *env) {
	q := e.open(Options{})
	c := e.required("sink")
	_, err := q.Consumer(e.t.Context(), "sink", queue.ConsumerOptions{Required: true})
	e.expectErr("second consumer of one name", err, queue.ErrBusy)
	e.submit("one")
	got := e.take(c, 1)
	e.closeConsumer(c)
	d := e.required("sink")
	_, err = c.Next(e.t.Context(), 1, 0)
	e.expectErr("next of a closed consumer", err, queue.ErrClosed)
	e.expectErr("ack of a closed consumer", c.Ack(e.t.Context(), got[0].Seq), queue.ErrClosed)
	e.closeConsumer(c) // must not take the name from d
	_, err = q.Consumer(e.t.Context(), "sink", queue.ConsumerOptions{Required: true})
	e.expectErr("second consumer after a second close of the first", err, queue.ErrBusy)
	e.ack(d, e.take(d, 1)[0].Seq)
	if !e.s.Persistent || q.Caps().MultiProcess {
		return
	}
	_, err = e.s.Open(Options{})
	e.expectErr("second opening", err, queue.ErrBusy)
	e.submit("two")
	e.expect(e.take(d, 1), []string{"two"})
}

// Rule: what a dead drainer had in hand comes again to the next one, in order
// and from the first that was not acknowledged. A Next that waits ends when its
// consumer is closed.
func caseTakeover(e *env) {
	e.open(Options{})
	want := ids("e", 1, 30)
	e.submit(want...)
	a := e.required("sink")
	got := e.take(a, 10)
	e.ack(a, got[2].Seq)
	e.take(a, 20) // in flight
	var wg sync.WaitGroup
	var nextErr error
	wg.Go(func() { _, nextErr = a.Next(e.t.Context(), 1, 0) })
	synctest.Wait()
	e.closeConsumer(a)
	b := e.required("sink")
	wg.Wait()
	e.expectErr("next of a consumer closed meanwhile", nextErr, queue.ErrClosed)
	e.expectErr("ack by the dead drainer", a.Ack(e.t.Context(), got[9].Seq), queue.ErrClosed)
	again := e.take(b, 27)
	e.expect(again, want[3:])
	wg.Go(func() {
		x := e.take(b, 1)
		e.expect(x, []string{"new"})
		e.ack(b, x[0].Seq)
	})
	synctest.Wait()
	e.submit("new") // must wake b, not a
	wg.Wait()
	e.close()
}

// Rule: Close takes no more, flushes, lets the sinks finish, and with a dead one
// ends at the deadline and says how much remains.
func caseClose(e *env) {
	q := e.open(Options{})
	want := ids("e", 1, 100)
	c := e.required("sink")
	e.submit(want...)
	var got []queue.Entry
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			b, err := c.Next(context.Background(), 7, 0)
			if errors.Is(err, queue.ErrClosed) {
				return
			}
			if err != nil {
				e.t.Errorf("next while closing: %v", err)
				return
			}
			got = append(got, b.Events...)
			time.Sleep(time.Millisecond)
			e.ack(c, b.Last())
		}
	})
	e.close()
	wg.Wait()
	e.expect(got, want)
	_, err := q.Submit(event("late"))
	e.expectErr("submit after close", err, queue.ErrClosed)
	_, err = q.Consumer(e.t.Context(), "other", queue.ConsumerOptions{})
	e.expectErr("consumer after close", err, queue.ErrClosed)
	if err := q.Close(e.t.Context()); err != nil {
		e.t.Errorf("second close: %v", err)
	}

	q = e.open(Options{})
	c = e.required("sink")
	r := e.submit(ids("f", 1, 20)...)
	e.ack(c, e.take(c, 5)[4].Seq)
	ctx, cancel := context.WithTimeout(e.t.Context(), 5*time.Second)
	defer cancel()
	start := time.Now()
	err = q.Close(ctx)
	e.q = nil
	var left *queue.RemainingError
	if !errors.As(err, &left) || left.Events != 15 || left.Kept != e.s.Persistent || !errors.Is(err, context.DeadlineExceeded) {
		e.t.Errorf("close with a dead sink: %v (%+v), want 15 remaining, kept %v", err, left, e.s.Persistent)
	}
	if d := time.Since(start); d != 5*time.Second {
		e.t.Errorf("close with a dead sink took %v, its deadline was 5s", d)
	}
	e.expectErr("wait for committed after close", r.Wait(e.t.Context(), queue.Committed), queue.ErrClosed)
	if e.s.Persistent {
		e.open(Options{})
		e.expect(e.take(e.required("sink"), 15), ids("f", 6, 20))
	}
}

// Rule: payloads up to Caps.MaxEvent are taken, the empty one too; larger ones
// and bad IDs are refused and leave nothing behind.
func caseSizes(e *env) {
	q := e.open(Options{})
	c := e.required("sink")
	limit := q.Caps().MaxEvent
	big := make([]byte, limit+1)
	for i := range big {
		big[i] = byte(i * 7)
	}
	longest := strings.Repeat("i", queue.MaxID)
	for _, x := range []struct {
		what string
		ev   queue.Event
		want error
	}{
		{"one byte too many", queue.Event{ID: "a", Payload: big}, queue.ErrTooLarge},
		{"empty id", queue.Event{Payload: []byte("x")}, queue.ErrBadID},
		{"id too long", queue.Event{ID: longest + "i"}, queue.ErrBadID},
		{"largest", queue.Event{ID: longest, Payload: big[:limit]}, nil},
		{"empty payload", queue.Event{ID: "empty"}, nil},
		{"id of any bytes", queue.Event{ID: "\x00\xff\n", Payload: []byte{0}}, nil},
	} {
		_, err := q.Submit(x.ev)
		e.expectErr(x.what, err, x.want)
	}
	got := e.take(c, 3)
	if got[0].ID != longest || string(got[0].Payload) != string(big[:limit]) {
		e.t.Errorf("the largest event came back different: id of %d bytes, payload of %d", len(got[0].ID), len(got[0].Payload))
	}
	if got[1].ID != "empty" || len(got[1].Payload) != 0 {
		e.t.Errorf("the empty event came back as %q with %d bytes", got[1].ID, len(got[1].Payload))
	}
	if got[2].ID != "\x00\xff\n" || string(got[2].Payload) != "\x00" {
		e.t.Errorf("the odd id came back as %q", got[2].ID)
	}
	e.ack(c, got[2].Seq)

	// Limits of Next: the first event comes whatever its size, the next only if
	// it fits.
	e.submit("x1", "x2", "x3")
	synctest.Wait()
	size := len(event("x1").ID) + len(event("x1").Payload)
	for i, limit := range []int{1, 2*size - 1, 2 * size} {
		b, err := c.Next(e.t.Context(), 2, limit)
		if err != nil || len(b.Events) != 1 {
			e.t.Fatalf("next %d with %d bytes: %d events, %v; want one", i, limit, len(b.Events), err)
		}
	}
}

// Rule: opening, waiting, giving up and closing leave no goroutine and no handle.
// For the goroutines the end of the bubble is the judge.
func caseLeaks(e *env) {
	for round := range 10 {
		q := e.open(Options{})
		var wg sync.WaitGroup
		for i := range 5 {
			c := e.consumer(fmt.Sprint("sink", i), queue.ConsumerOptions{Required: i < 2})
			wg.Go(func() {
				for {
					if _, err := c.Next(e.t.Context(), 1, 0); err != nil {
						e.expectErr("next", err, queue.ErrClosed)
						return
					}
				}
			})
		}
		for i := range 50 {
			r := e.submit(fmt.Sprintf("r%d-%d", round, i))
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(e.t.Context(), time.Duration(i)*time.Millisecond)
				defer cancel()
				if err := r.Wait(ctx, queue.Committed); err == nil {
					e.t.Error("nobody acknowledged, and a receipt says committed")
				}
			})
		}
		ctx, cancel := context.WithTimeout(e.t.Context(), 100*time.Millisecond)
		err := q.Close(ctx)
		cancel()
		if err == nil {
			e.t.Error("close says that nothing remained")
		}
		e.q = nil
		wg.Wait()
		synctest.Wait()
		if e.s.Handles != nil && e.s.Handles() != 0 {
			e.t.Fatalf("round %d: %d handles are open after close", round, e.s.Handles())
		}
	}
}
