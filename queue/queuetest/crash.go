package queuetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// Rule: an event that was durable is there after a crash; one that was accepted
// only may be lost, never out of order and never in part.
func caseLevels(e *env) {
	e.open(Options{})
	e.required("sink")
	sure, unsure := ids("sure", 1, 50), ids("unsure", 1, 50)
	e.durable(sure...)
	release := func() {}
	if e.s.Stall != nil {
		release = e.s.Stall()
	}
	e.submit(unsure...)
	e.crash()
	release()
	e.open(Options{})
	got, err := e.rest(e.required("sink"), false)
	if err != nil {
		e.t.Fatalf("read after the crash: %v", err)
	}
	if len(got) < 50 {
		e.t.Fatalf("%d events after the crash, 50 were durable", len(got))
	}
	e.expect(got, append(sure, unsure...)[:len(got)])
}

// Rule: what was not acknowledged comes again after a crash; what was, does not
// (AckDurable), or may.
func caseRedelivery(e *env) {
	q := e.open(Options{})
	ackDurable := q.Caps().AckDurable
	want := ids("e", 1, 20)
	e.durable(want...)
	c := e.required("sink")
	got := e.take(c, 20)
	e.ack(c, got[9].Seq)
	for round := range 3 {
		if e.s.PowerLoss != nil && round > 0 {
			e.s.PowerLoss(e.q, uint64(round))
			e.q = nil
		} else {
			e.crash()
		}
		e.open(Options{})
		again, err := e.rest(e.required("sink"), false)
		if err != nil {
			e.t.Fatalf("round %d: read after the crash: %v", round, err)
		}
		if len(again) < 10 || ackDurable && len(again) > 10 {
			e.t.Fatalf("round %d: %d events come again, 10 were not acknowledged", round, len(again))
		}
		e.expect(again, want[20-len(again):])
		if again[len(again)-1].Seq != got[19].Seq {
			e.t.Fatalf("round %d: the last event is %d now, was %d", round, again[len(again)-1].Seq, got[19].Seq)
		}
	}
}

// Rule: while syncs fail nothing is taken, and no receipt of an unsynced event
// ever succeeds; reading goes on. Once the disk is sound again the queue mends
// itself, numbers are dense, and what was durable before and after is there
// exactly, also after a power cut: a failed event may be there after a crash,
// under its own ID, but never in the place of another.
func caseFailedSync(e *env) {
	q := e.open(Options{})
	c := e.required("sink")
	ctx := e.t.Context()
	sure := ids("sure", 1, 10)
	e.durable(sure...)
	e.balanced()
	for round := range 3 {
		heal := e.s.FailSync()
		r := e.unsure("unsure1", "unsure2")
		e.expectErr("wait for durable", r.Wait(ctx, queue.Durable), queue.ErrFailed)
		e.expectErr("wait for committed", r.Wait(ctx, queue.Committed), queue.ErrFailed)
		e.balanced()
		for range 3 {
			_, err := q.Submit(event("late"))
			e.expectErr("submit after a failed sync", err, queue.ErrFailed)
			_, err = queue.SubmitWait(ctx, q, event("late"), queue.Durable)
			e.expectErr("waiting submit after a failed sync", err, queue.ErrFailed)
			time.Sleep(time.Minute) // of the bubble: it tries again meanwhile
		}
		w := q.Watermarks()
		if w.Accepted != w.Durable || int(w.Durable) != len(sure) || !errors.Is(w.Failure, queue.ErrFailed) {
			e.t.Errorf("round %d: after a failed sync: %+v, %d events are durable", round, w, len(sure))
		}
		e.balanced()
		if _, ok := r.Seq(); ok {
			e.t.Error("the receipt knows a seq of an event that never became durable")
		}
		heal()
		time.Sleep(time.Minute)
		if err := q.Watermarks().Failure; err != nil {
			e.t.Fatalf("round %d: a minute after the disk is sound: %v", round, err)
		}
		more := ids(fmt.Sprint("again", round, "-"), 1, 4)
		e.durable(more...)
		sure = append(sure, more...)
		e.expectErr("wait for durable once more", r.Wait(ctx, queue.Durable), queue.ErrFailed)
		e.balanced()
	}
	got := e.take(c, len(sure))
	e.expect(got, sure)
	if q.Caps().Dense && int(got[len(got)-1].Seq) != len(sure) {
		e.t.Errorf("the last of %d events has seq %d", len(sure), got[len(got)-1].Seq)
	}
	e.ack(c, got[3].Seq)

	// Once more, and the process ends before it is mended.
	heal := e.s.FailSync()
	lost := ids("lost", 1, 2)
	r := e.unsure(lost...)
	e.expectErr("wait for durable", r.Wait(ctx, queue.Durable), queue.ErrFailed)
	if e.s.PowerLoss != nil {
		e.s.PowerLoss(e.q, 1)
		e.q = nil
	} else {
		e.crash()
	}
	heal()
	e.open(Options{})
	c = e.required("sink")
	e.durable("new")
	got, err := e.rest(c, false)
	if err != nil {
		e.t.Fatalf("read after reopening: %v", err)
	}
	extra := len(got) - (len(sure) - 4) - 1
	if extra < 0 || extra > len(lost) {
		e.t.Fatalf("%d events after reopening", len(got))
	}
	e.expect(got, slices.Concat(sure[4:], lost[:extra], []string{"new"}))
}

const (
	childProducers = 4
	killRounds     = 20
)

// Child is what the process of case C18 does until it is killed: producers that
// write the ID of every event to out once it is durable, and a consumer that
// acknowledges. prefix makes the IDs of this child its own.
func Child(q queue.Queue, out io.Writer, prefix string) error {
	ctx := context.Background()
	c, err := q.Consumer(ctx, "other", queue.ConsumerOptions{Required: true})
	if err != nil {
		return err
	}
	errs := make(chan error)
	var mu sync.Mutex
	for p := range childProducers {
		go func() {
			for i := 1; ; i++ {
				id := fmt.Sprintf("%s-%d-%06d", prefix, p, i)
				if _, err := queue.SubmitWait(ctx, q, event(id), queue.Durable); err != nil {
					errs <- err
					return
				}
				mu.Lock()
				_, err := fmt.Fprintln(out, id)
				mu.Unlock()
				if err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	go func() {
		for {
			b, err := c.Next(ctx, 64, 0)
			if err == nil {
				err = c.Ack(ctx, b.Last())
			}
			if err != nil {
				errs <- err
				return
			}
		}
	}()
	return <-errs // the process ends here, if nobody kills it before
}

// Rule: SIGKILL at any moment loses no event that was reported durable, and
// invents none.
func caseKill(e *env) {
	rng := rand.New(rand.NewPCG(18, 18))
	e.open(Options{})
	e.closeConsumer(e.required("sink")) // from now on everything is kept for it
	e.closeNow()
	for round := range killRounds {
		prefix := fmt.Sprintf("r%02d", round)
		cmd := e.s.Child(prefix)
		out, err := cmd.StdoutPipe()
		if err != nil {
			e.t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			e.t.Fatal(err)
		}
		sure := map[string]bool{}
		enough := 1 + rng.IntN(400)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			sure[lines.Text()] = true
			if len(sure) == enough {
				if err := cmd.Process.Kill(); err != nil {
					e.t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		if len(sure) < enough {
			e.t.Fatalf("round %d: the child ended by itself after %d events: %s", round, len(sure), stderr.String())
		}
		e.open(Options{})
		c := e.required("sink")
		got, err := e.rest(c, true)
		if err != nil {
			e.t.Fatalf("round %d: read: %v", round, err)
		}
		last := map[string]int{}
		for _, x := range got {
			cut := strings.LastIndexByte(x.ID, '-')
			if cut < 0 || !strings.HasPrefix(x.ID, prefix+"-") {
				e.t.Fatalf("round %d: event %q was never submitted, or comes again", round, x.ID)
			}
			n, err := strconv.Atoi(x.ID[cut+1:])
			if err != nil || n != last[x.ID[:cut]]+1 {
				e.t.Fatalf("round %d: event %q comes after number %d of its producer", round, x.ID, last[x.ID[:cut]])
			}
			last[x.ID[:cut]] = n
			if string(x.Payload) != string(event(x.ID).Payload) {
				e.t.Fatalf("round %d: event %q has another payload", round, x.ID)
			}
			delete(sure, x.ID)
		}
		for id := range sure {
			e.t.Errorf("round %d: event %s was durable and is gone", round, id)
		}
		e.closeConsumer(e.required("other"))
		e.closeNow()
	}
}

// powerRounds is how many power cuts C19 makes.
func powerRounds() int {
	if testing.Short() {
		return 200
	}
	return 1000
}

// Rule: a power cut at any moment, keeping any part of what was not synced,
// loses no durable event and no durable ack, and what it keeps of the others is
// a prefix in order.
func casePowerLoss(e *env) {
	var log, unsure []string // what must be there in order, and what may follow
	acked := 0               // how many of log the sink has acknowledged
	for round := range powerRounds() {
		rng := rand.New(rand.NewPCG(19, uint64(round)))
		e.open(Options{})
		c := e.required("sink")
		got, err := e.rest(c, false)
		if err != nil {
			e.t.Fatalf("round %d: read: %v", round, err)
		}
		kept := acked + len(got) - len(log)
		if kept < 0 || kept > len(unsure) {
			e.t.Fatalf("round %d: %d events, want %d to %d", round, len(got), len(log)-acked, len(log)-acked+len(unsure))
		}
		log = append(log, unsure[:kept]...)
		unsure = nil
		e.expect(got, log[acked:])
		seqOf := func(i int) queue.Seq { return queue.Seq(i) } // the i-th event, from 1
		if len(got) > 0 && got[len(got)-1].Seq != seqOf(len(log)) {
			e.t.Fatalf("round %d: the last event is %d, want %d", round, got[len(got)-1].Seq, len(log))
		}
		for i := range 1 + rng.IntN(6) {
			if rng.IntN(4) == 0 && acked < len(log) {
				to := acked + 1 + rng.IntN(len(log)-acked)
				got = append(got, e.take(c, max(0, to-acked-len(got)))...)
				e.expect(got, log[acked:][:len(got)])
				e.ack(c, seqOf(to))
				acked, got = to, got[to-acked:]
				continue
			}
			batch := ids(fmt.Sprintf("r%d-%d-", round, i), 1, 1+rng.IntN(12))
			r := e.submit(batch...)
			unsure = append(unsure, batch...)
			switch rng.IntN(3) {
			case 0:
				e.wait(r, queue.Durable)
				log, unsure = append(log, unsure...), nil
			case 1:
				synctest.Wait()
			}
		}
		e.s.PowerLoss(e.q, uint64(round))
		e.q = nil
	}
	e.open(Options{})
}

// Rule: stored bytes that changed are never delivered as if they were right, and
// never cut off in silence: the backend refuses, with the place, or it delivers
// exactly what was acknowledged.
func caseDamage(e *env) {
	e.open(Options{})
	c := e.required("sink")
	want := ids("e", 1, 12)
	for _, id := range want { // batches of one, and one of several
		e.durable(id)
	}
	more := ids("f", 1, 5)
	e.durable(more...)
	want = append(want, more...)
	e.ack(c, e.take(c, 4)[3].Seq)
	e.crash()
	good := e.s.Files()
	opened, refused := 0, 0
	try := func(what string, files map[string][]byte) {
		e.s.SetFiles(files)
		q, err := e.s.Open(Options{})
		if err != nil {
			refused++
			return
		}
		e.q = q
		c, err := q.Consumer(e.t.Context(), "sink", queue.ConsumerOptions{Required: true})
		if err != nil {
			refused++
			e.closeNow()
			return
		}
		got, err := e.rest(c, false)
		if len(got) > 0 {
			at := int(got[0].Seq) - 1
			if at > 4 || at+len(got) > len(want) {
				e.t.Fatalf("%s: delivered %d to %d", what, got[0].Seq, at+len(got))
			}
			e.expect(got, want[at:at+len(got)])
		}
		switch {
		case err != nil:
			refused++
		case len(got) == 0 || int(got[len(got)-1].Seq) != len(want):
			e.t.Fatalf("%s: %d events and no error: acknowledged data was cut off in silence", what, len(got))
		default:
			opened++
		}
		e.s.Crash(e.q)
		e.q = nil
	}
	rng := rand.New(rand.NewPCG(20, 20))
	for name, data := range good {
		for i := range data {
			if data[i] == 0 && i > 0 && data[i-1] == 0 && i%61 != 0 {
				continue // in long runs of zeros, some
			}
			bad := copyFiles(good)
			bad[name][i] ^= 1 << rng.IntN(8)
			try(fmt.Sprintf("%s: byte %d flipped", name, i), bad)
			if e.t.Failed() {
				return
			}
		}
		step := max(1, len(data)/2000)
		for n := 0; n < len(data); n += step {
			bad := copyFiles(good)
			bad[name] = bad[name][:n]
			try(fmt.Sprintf("%s: cut to %d of %d bytes", name, n, len(data)), bad)
		}
		bad := copyFiles(good)
		delete(bad, name)
		try(name+": removed", bad)
	}
	if refused == 0 || opened == 0 {
		e.t.Errorf("%d damaged copies refused, %d opened with all data: this proves nothing", refused, opened)
	}
	e.t.Logf("%d damaged copies refused, %d opened with all data", refused, opened)
	e.s.SetFiles(good)
}

func copyFiles(files map[string][]byte) map[string][]byte {
	out := make(map[string][]byte, len(files))
	for name, data := range files {
		out[name] = append([]byte(nil), data...)
	}
	return out
}

// Rule: a backend whose store can lose an event from the middle notices.
func caseGap(e *env) {
	e.open(Options{})
	e.durable(ids("e", 1, 20)...)
	e.s.Gap()
	got, err := e.rest(e.required("sink"), false)
	if err == nil || errors.Is(err, context.Canceled) {
		e.t.Fatalf("%d events delivered around a gap, error %v", len(got), err)
	}
	e.expect(got, ids("e", 1, len(got)))
}
