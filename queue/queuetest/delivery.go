package queuetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// quiet is how long nothing has to come before a case believes that nothing is
// there. Inside a bubble it passes only when everybody is idle.
const quiet = time.Minute

// Rule: events of one producer are delivered in the order of its Submits, and
// every consumer sees the same total order, numbered densely if Caps says so.
func caseOrder(e *env) {
	q := e.open(Options{})
	const producers, each = 4, 200
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for _, id := range ids(fmt.Sprint("p", p, "-"), 1, each) {
				if _, err := q.Submit(event(id)); err != nil {
					e.t.Errorf("submit %s: %v", id, err)
				}
			}
		})
	}
	a, b := e.required("a"), e.consumer("b", queue.ConsumerOptions{})
	first := e.take(a, producers*each)
	wg.Wait()
	second := e.take(b, producers*each)
	next := map[string]int{}
	for i, x := range first {
		if x.Seq != second[i].Seq || x.ID != second[i].ID {
			e.t.Fatalf("position %d: consumer a has %d %s, consumer b %d %s", i, x.Seq, x.ID, second[i].Seq, second[i].ID)
		}
		if i > 0 && q.Caps().Dense && x.Seq != first[i-1].Seq+1 {
			e.t.Fatalf("seq %d follows %d in a dense queue", x.Seq, first[i-1].Seq)
		}
		p := x.ID[:3]
		if next[p]++; x.ID != fmt.Sprintf("%s%05d", p, next[p]) {
			e.t.Fatalf("producer %s: event %s comes as its number %d", p, x.ID, next[p])
		}
	}
	e.ack(a, first[len(first)-1].Seq)
	e.closeConsumer(a)
	e.closeConsumer(b)
	e.close()
}

// Rule: without a crash every accepted event is delivered exactly once to every
// consumer, whatever the pace, empty turns and cancelled Nexts included.
func caseExactSet(e *env) {
	q := e.open(Options{})
	const producers, each = 8, 400
	var want []string
	for p := range producers {
		want = append(want, ids(fmt.Sprint("p", p, "-"), 1, each)...)
	}
	var producing, consuming sync.WaitGroup
	drain := func(name string, slow bool) {
		c := e.required(name)
		consuming.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(len(name))))
			got := map[string]int{}
			for n := 0; n < len(want); {
				limit := 256
				if slow {
					limit = 1 + rng.IntN(7)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(3))*time.Millisecond)
				b, err := c.Next(ctx, limit, 0)
				cancel()
				if errors.Is(err, context.DeadlineExceeded) {
					continue // an empty turn
				}
				if err != nil {
					e.t.Errorf("%s: next: %v", name, err)
					return
				}
				for _, x := range b.Events {
					got[x.ID]++
				}
				n += len(b.Events)
				if slow {
					time.Sleep(time.Millisecond) // the bubble's clock
				}
				if err := c.Ack(context.Background(), b.Last()); err != nil {
					e.t.Errorf("%s: ack: %v", name, err)
					return
				}
			}
			for _, id := range want {
				if got[id] != 1 {
					e.t.Errorf("%s: event %s was delivered %d times", name, id, got[id])
				}
			}
			if len(got) != len(want) {
				e.t.Errorf("%s: %d different events, want %d", name, len(got), len(want))
			}
		})
	}
	drain("slow", true)
	drain("fast", false)
	for p := range producers {
		producing.Go(func() {
			for i, id := range ids(fmt.Sprint("p", p, "-"), 1, each) {
				level := queue.Accepted
				if i%50 == 0 {
					level = queue.Level(1 + (i/50)%3)
				}
				if _, err := queue.SubmitWait(context.Background(), q, event(id), level); err != nil {
					e.t.Errorf("submit %s: %v", id, err)
				}
			}
		})
	}
	producing.Wait()
	consuming.Wait()
	w := q.Watermarks()
	if w.Committed != w.Accepted || w.Durable != w.Accepted || w.Events != 0 || !w.Oldest.IsZero() {
		e.t.Errorf("after everything was acknowledged: %+v", w)
	}
	e.close()
}

// Rule: Submit returns while the sink does nothing, and while a sync hangs. If
// it did not, the bubble would end in a deadlock.
func caseSubmitNeverBlocks(e *env) {
	e.open(Options{})
	c := e.required("stuck")
	e.submit(ids("a", 1, 500)...)
	e.take(c, 1) // and never again
	e.submit(ids("b", 1, 500)...)
	if e.s.Stall != nil {
		release := e.s.Stall()
		e.submit(ids("c", 1, 250)...)
		synctest.Wait() // the committer, if any, hangs now
		e.submit(ids("d", 1, 250)...)
		release()
	}
	if got, _ := e.rest(c, true); len(got) == 0 {
		e.t.Fatal("nothing was delivered behind the first event")
	}
}

// Rule: a consumer never sees what a power cut could take back.
func caseDurableFirst(e *env) {
	q := e.open(Options{})
	c := e.required("sink")
	e.durable("first")
	e.expect(e.take(c, 1), []string{"first"}) // take compares with the watermark
	if e.s.Stall == nil {
		r := e.submit("second")
		e.expect(e.take(c, 1), []string{"second"})
		if seq, ok := r.Seq(); !ok || seq != q.Watermarks().Durable {
			e.t.Errorf("receipt says seq %d, %v; durable is %d", seq, ok, q.Watermarks().Durable)
		}
		return
	}
	release := e.s.Stall()
	r := e.submit("second")
	var early []queue.Entry
	var wg sync.WaitGroup
	wg.Go(func() { early = e.take(c, 1) })
	synctest.Wait()
	w := q.Watermarks()
	if early != nil || w.Durable != 1 || w.Accepted != 2 {
		e.t.Errorf("while the sync hangs: delivered %d events, watermarks %+v", len(early), w)
	}
	if _, ok := r.Seq(); ok {
		e.t.Error("the receipt knows a seq before the event is durable")
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Second)
	defer cancel()
	e.expectErr("wait while the sync hangs", r.Wait(ctx, queue.Durable), context.DeadlineExceeded)
	release()
	wg.Wait()
	e.expect(early, []string{"second"})
	e.wait(r, queue.Durable)
}

// Rule: Ack covers everything up to its position. The same one again is fine; a
// lower one, or one that was not handed out, is ErrBadAck and changes nothing.
func caseAck(e *env) {
	q := e.open(Options{})
	c := e.required("sink")
	r := e.submit(ids("e", 1, 10)...)
	got := e.take(c, 6)
	e.ack(c, got[3].Seq)
	if w := q.Watermarks(); w.Committed != got[3].Seq {
		e.t.Errorf("committed %d, want %d", w.Committed, got[3].Seq)
	}
	e.ack(c, got[3].Seq)
	ctx := e.t.Context()
	e.expectErr("ack backwards", c.Ack(ctx, got[2].Seq), queue.ErrBadAck)
	e.expectErr("ack beyond delivered", c.Ack(ctx, got[5].Seq+1), queue.ErrBadAck)
	if w := q.Watermarks(); w.Committed != got[3].Seq {
		e.t.Errorf("a refused ack moved committed to %d", w.Committed)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	e.expectErr("wait for committed too early", r.Wait(short, queue.Committed), context.DeadlineExceeded)
	more := e.take(c, 4) // goes on, although two are not acknowledged
	e.expect(slices.Concat(got, more), ids("e", 1, 10))
	e.ack(c, more[3].Seq)
	e.wait(r, queue.Committed)
	e.close()
}

// Rule: consumers have cursors of their own; Committed and deletion follow the
// slowest required one; an optional one holds nothing up and is told what it
// missed.
func caseIndependent(e *env) {
	q := e.open(Options{Small: true})
	slow, fast := e.required("slow"), e.required("fast")
	lazy := e.consumer("lazy", queue.ConsumerOptions{})
	want := ids("e", 1, 60)
	e.submit(want...)
	got := e.take(fast, 60)
	e.expect(got, want)
	e.ack(fast, got[59].Seq)
	if w := q.Watermarks(); w.Committed >= got[0].Seq {
		e.t.Errorf("committed %d, the slow consumer has acknowledged nothing", w.Committed)
	}
	e.expect(e.take(slow, 60), want)
	e.ack(slow, got[29].Seq)
	if w := q.Watermarks(); w.Committed != got[29].Seq {
		e.t.Errorf("committed %d, the slow consumer acknowledged %d", w.Committed, got[29].Seq)
	}
	e.ack(slow, got[59].Seq)

	// Nobody waits for the optional one.
	last := got[59].Seq
	all := want
	for round := 0; round < 100_000; round++ {
		id := fmt.Sprintf("f%05d", round)
		if _, err := queue.SubmitWait(e.t.Context(), q, event(id), queue.Durable); err != nil {
			e.t.Fatalf("submit %s: %v", id, err)
		}
		all = append(all, id)
		for _, c := range []queue.Consumer{slow, fast} {
			last = e.take(c, 1)[0].Seq
			e.ack(c, last)
		}
		if w := q.Watermarks(); round%64 == 0 && w.Bytes*10 > w.LimitBytes*7 || round > 20_000 {
			break
		}
	}
	for i := range 3 * len(all) {
		id := fmt.Sprintf("g%05d", i)
		if _, err := queue.SubmitWait(e.t.Context(), q, event(id), queue.Durable); err != nil {
			e.t.Fatalf("an optional consumer holds up the queue: submit %s: %v", id, err)
		}
		all = append(all, id)
		for _, c := range []queue.Consumer{slow, fast} {
			last = e.take(c, 1)[0].Seq
			e.ack(c, last)
		}
	}
	_, err := lazy.Next(e.t.Context(), 10, 0)
	var lag queue.ErrLagged
	if !errors.As(err, &lag) || lag.From != got[0].Seq || lag.To < lag.From || lag.To > last {
		e.t.Fatalf("next of the consumer that fell behind: %v, want ErrLagged from %d", err, got[0].Seq)
	}
	seen, err := e.rest(lazy, true)
	if err != nil {
		e.t.Fatalf("next after ErrLagged: %v", err)
	}
	if len(seen) > 0 && seen[0].Seq != lag.To+1 {
		e.t.Fatalf("after ErrLagged up to %d comes %d", lag.To, seen[0].Seq)
	}
	e.expect(seen, all[len(all)-len(seen):])
	e.close()
}

// Rule: From wins over the stored cursor, forward and back; where there is
// nothing, the opening is refused.
func caseFrom(e *env) {
	q := e.open(Options{})
	e.required("holder") // keeps everything
	want := ids("e", 1, 20)
	e.durable(want...)
	ctx := e.t.Context()
	c := e.consumer("sink", queue.ConsumerOptions{Required: true, From: 11})
	e.expect(e.take(c, 2), want[10:12])
	e.ack(c, 12)
	e.closeConsumer(c)
	c = e.consumer("sink", queue.ConsumerOptions{Required: true, From: 5})
	e.expect(e.take(c, 16), want[4:])
	e.expectErr("ack below from", c.Ack(ctx, 3), queue.ErrBadAck)
	e.ack(c, 8)
	e.closeConsumer(c)
	c = e.required("sink")
	e.expect(e.take(c, 12), want[8:])
	e.closeConsumer(c)
	c = e.consumer("sink", queue.ConsumerOptions{Required: true, From: 21})
	e.submit("new")
	e.expect(e.take(c, 1), []string{"new"})
	e.closeConsumer(c)
	_, err := q.Consumer(ctx, "sink", queue.ConsumerOptions{From: 23})
	e.expectErr("from beyond the end", err, queue.ErrBehind)
	if !e.s.Persistent {
		return
	}
	e.closeNow()
	e.open(Options{})
	c = e.consumer("sink", queue.ConsumerOptions{Required: true, From: 19})
	e.expect(e.take(c, 3), append(want[18:], "new"))
}

// Rule: without Dedupe an ID submitted twice is delivered twice, under two
// numbers; with it, once. The ledger decides in the end.
func caseDuplicate(e *env) {
	q := e.open(Options{})
	c := e.required("sink")
	e.submit("same", "other", "same", "end")
	want := []string{"same", "other", "same", "end"}
	if q.Caps().Dedupe {
		want = []string{"same", "other", "end"}
	}
	got := e.take(c, len(want))
	e.expect(got, want)
	e.ack(c, got[len(got)-1].Seq)
	e.close()
}

// Rule: a sink that panics loses nothing: whoever takes the name over gets the
// same batch, and those behind it.
func casePanic(e *env) {
	e.open(Options{})
	want := ids("e", 1, 10)
	e.submit(want...)
	var inHand []queue.Entry
	func() {
		defer func() {
			if recover() == nil {
				e.t.Error("the sink did not panic")
			}
		}()
		c := e.required("sink")
		defer e.closeConsumer(c)
		inHand = e.take(c, 4)
		panic("sink")
	}()
	c := e.required("sink")
	got := e.take(c, 10)
	e.expect(got, want)
	e.expect(inHand, want[:4]) // what the dead sink held is unharmed too
	if got[0].Seq != inHand[0].Seq {
		e.t.Errorf("the batch comes again as seq %d, was %d", got[0].Seq, inHand[0].Seq)
	}
	e.ack(c, got[9].Seq)
	e.close()
}
