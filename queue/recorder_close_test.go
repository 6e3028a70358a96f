package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// B22: Close says how many landed, how many became dead letters, how many remain.
func TestB22_CloseTellsTheTruth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents = 1
			g.sink.answer = func(ctx context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
				switch n {
				case 1, 2, 3:
					store()
					return ok
				case 4:
					return abi.Result{Outcome: abi.Reject}
				}
				<-ctx.Done() // cut short
				return abi.Result{Outcome: abi.Deadline}
			}
		})
		g.submit(names(1, 10)...)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		rep, err := g.r.Close(ctx)
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if rep.Submitted != 10 || rep.Appended != 3 || rep.DeadLettered != 1 || rep.Remained != 6 || len(rep.Sinks) != 1 || rep.Sinks[0].Remained != 6 {
			t.Errorf("%+v", rep)
		}
		var left *queue.RemainingError
		if !errors.As(err, &left) || left.Events != 6 || left.Kept || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `sink "main"`) {
			t.Errorf("%v", err)
		}
		if m := g.main(); m.DrainerPanics != 0 || m.Pending != 6 {
			t.Errorf("a delivery that was cut short is no panic: %+v", m)
		}
		if g.sink.closed != 1 {
			t.Errorf("the sink was closed %d times", g.sink.closed)
		}
		if !strings.Contains(g.logs.String(), "pending=6") {
			t.Errorf("no warning: %s", g.logs)
		}
		again, err2 := g.r.Close(t.Context())
		if fmt.Sprint(again, err2) != fmt.Sprint(rep, err) {
			t.Errorf("the second Close says %+v, %v", again, err2)
		}
		g.conserved()
	})
}

// A delivery that is done although it was to be cut short counts, and is
// acknowledged.
func TestCloseCountsADeliveryThatEndedInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, _ *queue.RecorderOptions) {
			g.sink.answer = func(ctx context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
				<-ctx.Done()
				store()
				return ok
			}
		})
		g.together("one")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		rep, err := g.r.Close(ctx)
		if w := g.q.Watermarks(); err != nil || rep.Appended != 1 || rep.Remained != 0 || w.Committed != 1 {
			t.Errorf("%+v, %v, committed up to %d", rep, err, w.Committed)
		}
		g.conserved()
	})
}

// Nobody waits for a parked sink, nor for one whose event can't be delivered now
// beyond the bound.
func TestCloseWithAParkedSink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].MaxRestarts = 0
			g.sink.answer = script(answer(trap("broken")))
		})
		g.submit(names(1, 3)...)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		rep, err := g.r.Close(ctx)
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v", took)
		}
		var left *queue.RemainingError
		if !errors.As(err, &left) || left.Events != 3 || !errors.Is(err, queue.ErrParked) || !slices.Equal(rep.Parked, []string{"main"}) || rep.Sinks[0].Parked == "" {
			t.Errorf("%+v, %v", rep, err)
		}
		g.conserved()
	})
}

// A sink that parks while others wait for it ends the wait.
func TestDrainPendingEndsWhenTheSinkParks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		go_ := make(chan struct{})
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].MaxRestarts = 0
			g.sink.answer = func(context.Context, int, *abi.Batch, func(...int)) abi.Result {
				<-go_
				return trap("broken")
			}
		})
		g.submit("one")
		ended := make(chan error)
		go func() {
			_, err := g.r.DrainPending(t.Context())
			ended <- err
		}()
		synctest.Wait()
		close(go_)
		if err := <-ended; !errors.Is(err, queue.ErrParked) || !strings.Contains(err.Error(), "broken") {
			t.Error(err)
		}
		g.closeNow()
		if _, err := g.r.DrainPending(t.Context()); err == nil {
			t.Error("after Close nothing remains, it says")
		}
	})
}

// B23: what is submitted after the call is not waited for.
func TestB23_DrainPendingWaitsForWhatWasBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		gate := make(chan struct{})
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents = 1
			g.sink.answer = func(_ context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
				<-gate
				store()
				return ok
			}
		})
		g.submit(names(1, 3)...)
		ended := make(chan queue.Report)
		go func() { ended <- g.drain() }()
		synctest.Wait()
		g.submit(names(4, 6)...)
		for range 3 {
			gate <- struct{}{}
		}
		if rep := <-ended; rep.Appended != 3 || rep.Remained != 0 || rep.Submitted != 6 {
			t.Errorf("%+v", rep)
		}
		close(gate)
		g.close()
	})
}

// Without a required sink all of them count, with the numbers of the worst one.
func TestOptionalSinksAloneDecide(t *testing.T) {
	bubble(t, func(t *testing.T) {
		picky := &sink{answer: func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
			if index(b, "e00002") >= 0 {
				return abi.Result{Outcome: abi.Reject}
			}
			store()
			return ok
		}}
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			o.Sinks[0].Required = false
			o.Sinks = append(o.Sinks, queue.SinkOptions{Name: "picky", Sink: picky})
		})
		g.submit(names(1, 3)...)
		if rep := g.drain(); rep.Appended != 2 || rep.DeadLettered != 1 || rep.Sinks[0].Appended != 3 {
			t.Errorf("%+v", rep)
		}
		g.closeNow()
	})
}

// A sink that ignores its context is left behind, named, and not closed: Close
// keeps its bound, and the other sink is closed in order.
func TestCloseLeavesBehindWhatHangs(t *testing.T) {
	for name, hangInClose := range map[string]bool{"in Deliver": false, "in Close": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				never := make(chan struct{})
				other := &sink{}
				g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
					if hangInClose {
						g.sink.onEnd = func(context.Context) error { <-never; return nil }
					} else {
						g.sink.answer = func(context.Context, int, *abi.Batch, func(...int)) abi.Result { <-never; return ok }
					}
					o.Sinks = append(o.Sinks, queue.SinkOptions{Name: "other", Sink: other})
				})
				g.submit("one")
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				rep, err := g.r.Close(ctx)
				want := 2 * time.Second // the context's second, and one for the delivery to notice
				if hangInClose {
					want = 4 * time.Second
				}
				if took := time.Since(begin); took > want+time.Second || took < want {
					t.Errorf("took %v", took)
				}
				if err == nil || !strings.Contains(err.Error(), `sink "main": it has not come back from `+strings.TrimPrefix(name, "in ")) {
					t.Error(err)
				}
				if other.closed != 1 || !hangInClose && g.sink.closed != 0 || other.stored() == nil {
					t.Errorf("closed %d and %d times", g.sink.closed, other.closed)
				}
				if !hangInClose && rep.Remained != 1 || hangInClose && rep.Remained != 0 {
					t.Errorf("%+v", rep)
				}
				g.conserved()
				close(never)
			})
		})
	}
}

// The same with a queue that hangs: what of the events is kept is not known then,
// and not claimed.
func TestCloseLeavesBehindAQueueThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		never := make(chan struct{})
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Queue = hanging{queue.NewMemory(queue.MemoryOptions{}), never}
			g.sink.answer = script(answer(abi.Result{Outcome: abi.BadConfig}))
		})
		g.submit("one")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := g.r.Close(ctx)
		var left *queue.RemainingError
		if err == nil || errors.As(err, &left) || !strings.Contains(err.Error(), "1 events remain") || !strings.Contains(err.Error(), "did not come to an end") {
			t.Error(err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if g.sink.closed != 1 {
			t.Errorf("the sink was closed %d times", g.sink.closed)
		}
		close(never)
	})
}

type hanging struct {
	*queue.Memory
	never chan struct{}
}

func (h hanging) Close(ctx context.Context) error {
	<-h.never
	return h.Memory.Close(ctx)
}

func TestErrorsOfSinksCloseAreReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bad := errors.New("checkpoint failed")
		panics := &sink{onEnd: func(context.Context) error { panic("oops") }}
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			g.sink.onEnd = func(context.Context) error { return bad }
			o.Sinks = append(o.Sinks, queue.SinkOptions{Name: "panics", Sink: panics})
		})
		g.submit("one")
		rep, err := g.r.Close(t.Context())
		if !errors.Is(err, bad) || !strings.Contains(err.Error(), `close sink "panics": it panicked: oops`) || rep.Appended != 1 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// B7: Submit never waits for a sink, and a refusal is counted, logged once a
// second with the number not shown, and returned.
func TestB07_SubmitNeverWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hang := make(chan struct{})
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Queue = queue.NewMemory(queue.MemoryOptions{MaxEvents: 10})
			g.sink.answer = func(_ context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
				<-hang
				store()
				return ok
			}
		})
		begin := time.Now()
		for i, id := range names(1, 25) {
			if _, err := g.r.Submit(t.Context(), event(id)); i >= 10 && !errors.Is(err, queue.ErrFull) || i < 10 && err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		if time.Since(begin) != 0 {
			t.Errorf("it took %v", time.Since(begin))
		}
		if m := g.r.Metrics(); m.Submitted != 25 || m.SendFailures != 15 || m.Refused != 15 || !g.r.IsOpen() {
			t.Errorf("%+v", m)
		}
		<-time.After(time.Second)
		if _, err := g.r.Submit(t.Context(), event("x")); !errors.Is(err, queue.ErrFull) {
			t.Error(err)
		}
		if l := g.logs.String(); strings.Count(l, "event not recorded") != 2 || !strings.Contains(l, "and_not_shown=14") {
			t.Errorf("logged: %s", l)
		}
		close(hang)
		g.close()
		same(t, "rows", g.sink.stored(), names(1, 10))
	})
}

func TestSubmitBlocks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hang := make(chan struct{})
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Block, o.Queue = true, queue.NewMemory(queue.MemoryOptions{MaxEvents: 5})
			g.sink.answer = func(_ context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
				<-hang
				store()
				return ok
			}
		})
		g.submit(names(1, 5)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.r.Submit(ctx, event("late")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { g.submit("e00006") })
		synctest.Wait()
		close(hang)
		wg.Wait()
		g.close()
		same(t, "rows", g.sink.stored(), names(1, 6))
		if m := g.r.Metrics(); m.Submitted != 7 || m.SendFailures != 1 {
			t.Errorf("%+v", m)
		}
	})
}

// What Check does not pass, and what no record can hold, reaches no queue and is
// counted.
func TestSubmitChecks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bad := errors.New("an allow is no refusal")
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			o.Check = func(e abi.Event) error {
				if e.ID == "allow" {
					return bad
				}
				return nil
			}
		})
		if _, err := g.r.Submit(t.Context(), event("allow")); !errors.Is(err, bad) {
			t.Error(err)
		}
		for what, change := range map[string]func(*abi.Event){
			"agent":     func(e *abi.Event) { e.AgentID = strings.Repeat("x", 70_000) },
			"type":      func(e *abi.Event) { e.EventType = strings.Repeat("x", 70_000) },
			"timestamp": func(e *abi.Event) { e.Timestamp = strings.Repeat("x", 70_000) },
			"id":        func(e *abi.Event) { e.ID = strings.Repeat("x", 129) },
			"no id":     func(e *abi.Event) { e.ID = "" },
			"payload":   func(e *abi.Event) { e.Payload = bytes.Repeat([]byte("x"), 2<<20) },
		} {
			e := event("x")
			change(&e)
			if _, err := g.r.Submit(t.Context(), e); err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		g.close()
		if m := g.r.Metrics(); m.Submitted != 7 || m.SendFailures != 7 || m.Refused != 0 || len(g.sink.stored()) != 0 {
			t.Errorf("%+v", m)
		}
	})
}

// B10: the recorder is open until its queue is closed, by whomever.
func TestB10_IsOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, nil)
		if !g.r.IsOpen() {
			t.Error("closed at once")
		}
		if err := g.q.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if g.r.IsOpen() {
			t.Error("open over a closed queue")
		}
		g.close()
	})
}

// plain is a queue that can't wait for room.
type plain struct{ queue.Queue }

func TestNewRecorderRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := queue.NewMemory(queue.MemoryOptions{})
		good := queue.RecorderOptions{
			Queue: q, Sealer: sealer{}, DeadLetters: &letters{}, Check: func(abi.Event) error { return nil },
			Sinks: []queue.SinkOptions{{Name: "a", Sink: &sink{}}, {Name: "b", Sink: &sink{}}},
		}
		for what, change := range map[string]func(*queue.RecorderOptions){
			"no queue":             func(o *queue.RecorderOptions) { o.Queue = nil },
			"no check":             func(o *queue.RecorderOptions) { o.Check = nil },
			"no sealer":            func(o *queue.RecorderOptions) { o.Sealer = nil },
			"two of one name":      func(o *queue.RecorderOptions) { o.Sinks = append(o.Sinks, o.Sinks[0]) },
			"block, but it cannot": func(o *queue.RecorderOptions) { o.Block, o.Queue = true, plain{q} },
		} {
			o := good
			o.Sinks = slices.Clone(good.Sinks)
			change(&o)
			if _, err := queue.NewRecorder(t.Context(), o); err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		// None of them has kept a cursor.
		ctx, cancel := context.WithCancel(t.Context())
		r, err := queue.NewRecorder(ctx, good)
		if err != nil {
			t.Fatal(err)
		}
		cancel() // the recorder outlives the call's context
		if _, err := r.Submit(t.Context(), event("x")); err != nil {
			t.Error(err)
		}
		if rep, err := r.Close(t.Context()); err != nil || rep.Appended != 1 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}
