package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// hooked is a queue whose consumers can be made to fail, before or after they do
// what they are asked.
type hooked struct {
	*queue.Memory
	next func(do func() (queue.Batch, error)) (queue.Batch, error)
	ack  func(upTo queue.Seq, do func() error) error
}

type hookedConsumer struct {
	queue.Consumer
	h *hooked
}

func (h *hooked) Consumer(ctx context.Context, name string, o queue.ConsumerOptions) (queue.Consumer, error) {
	c, err := h.Memory.Consumer(ctx, name, o)
	return hookedConsumer{c, h}, err
}

func (c hookedConsumer) Next(ctx context.Context, events, size int) (queue.Batch, error) {
	do := func() (queue.Batch, error) { return c.Consumer.Next(ctx, events, size) }
	if c.h.next == nil {
		return do()
	}
	return c.h.next(do)
}

func (c hookedConsumer) Ack(ctx context.Context, upTo queue.Seq) error {
	do := func() error { return c.Consumer.Ack(ctx, upTo) }
	if c.h.ack == nil {
		return do()
	}
	return c.h.ack(upTo, do)
}

func hook(o *queue.RecorderOptions) *hooked {
	h := &hooked{Memory: queue.NewMemory(queue.MemoryOptions{})}
	o.Queue = h
	return h
}

func TestUnreadableRecordBecomesADeadLetter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, release := held(t, script(), nil)
		good := abi.AppendRecord(nil, &abi.Event{AgentID: "a"})
		for _, e := range []queue.Event{{ID: "a", Payload: good}, {ID: "b", Payload: []byte("garbage")}, {ID: "c", Payload: good}, {ID: "d"}} {
			if _, err := g.q.Submit(e); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		release()
		g.close()
		same(t, "rows", g.sink.stored(), []string{"a", "c"})
		same(t, "dead letters", g.dlq.ids(), []string{"b", "d"})
		for i, raw := range [][]byte{[]byte("garbage"), {}} {
			l := g.dlq.all()[i]
			if !bytes.Equal(l.Raw, raw) || l.Raw == nil || l.Event.Seq == 0 || l.Attempts != 0 || l.Outcome != abi.Reject || !strings.Contains(l.Reason, "malformed") {
				t.Errorf("%+v", l)
			}
		}
		if m := g.main(); m.AppendFailures != 2 || m.DLQLanded != 2 {
			t.Errorf("%+v", m)
		}
	})
}

// What can't be stored as a dead letter stays in the queue until it can.
func TestDeadLetterStoreDown(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("disk full") },
		"panic": func() error { panic("disk full") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
					o.Sinks[0].BatchEvents = 1
					g.sink.answer = func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
						if b.Events[0].ID == "e00002" {
							return abi.Result{Outcome: abi.Reject}
						}
						store()
						return ok
					}
					g.dlq.put = func(n int, _ []abi.DeadLetter, store func()) error {
						if n <= 5 {
							return fail()
						}
						store()
						return nil
					}
				})
				g.submit(names(1, 3)...)
				synctest.Wait()
				m := g.main()
				if m.State != queue.Waiting || !strings.Contains(m.LastError, "disk full") || m.Appended != 1 || m.Pending != 2 || m.DLQLanded != 0 {
					t.Errorf("%+v", m)
				}
				if w := g.q.Watermarks(); w.Committed != 1 {
					t.Errorf("committed up to %d", w.Committed)
				}
				g.conserved()
				g.close()
				same(t, "rows", g.sink.stored(), []string{"e00001", "e00003"})
				same(t, "dead letters", g.dlq.ids(), []string{"e00002"})
				if len(g.sink.deliveries()) != 3 {
					t.Errorf("%d deliveries", len(g.sink.deliveries()))
				}
			})
		})
	}
}

// A dead-letter store that stays down does not keep Close.
func TestCloseWhileTheDeadLetterStoreIsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, _ *queue.RecorderOptions) {
			g.sink.answer = script(answer(abi.Result{Outcome: abi.Reject}))
			g.dlq.put = func(int, []abi.DeadLetter, func()) error { return errors.New("disk full") }
		})
		g.submit("one")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		rep, err := g.r.Close(ctx)
		var left *queue.RemainingError
		if !errors.As(err, &left) || left.Events != 1 || rep.Remained != 1 || time.Since(begin) != 5*time.Second {
			t.Errorf("%+v, %v after %v", rep, err, time.Since(begin))
		}
		g.conserved()
	})
}

func TestLaggingSinkCountsWhatItMissed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hang := make(chan struct{})
		wait := func(_ *abi.Batch, store func(...int)) abi.Result {
			<-hang
			store()
			return ok
		}
		slow := &sink{answer: script(wait, wait)}
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			o.Queue = queue.NewMemory(queue.MemoryOptions{MaxEvents: 10})
			o.Sinks = append(o.Sinks, queue.SinkOptions{Name: "slow", Sink: slow, BatchEvents: 4})
		})
		for _, id := range names(1, 40) {
			g.together(id)
		}
		// The slow one has 1 in delivery and 2 to 5 sealed; 31 to 40 are kept.
		hang <- struct{}{}
		synctest.Wait() // now it has 2 to 5 in delivery, and knows what it missed
		close(hang)
		g.close()
		same(t, "rows", slow.stored(), append(names(1, 5), names(31, 40)...))
		if s := g.r.Metrics().Sinks[1]; s.Skipped != 25 || s.Appended != 15 {
			t.Errorf("%+v", s)
		}
		// Its cursor was moved on under it: that 2 to 5 can't be acknowledged any
		// more is no trouble.
		if l := g.logs.String(); !strings.Contains(l, "missed=25") || strings.Contains(l, "acknowledge") {
			t.Errorf("logged: %s", l)
		}
	})
}

func TestQueueErrors(t *testing.T) {
	// failing makes a rig whose Next fails for the second and the third time.
	failing := func(t *testing.T, err error) *rig {
		n := 0
		return newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			hook(o).next = func(do func() (queue.Batch, error)) (queue.Batch, error) {
				if n++; n == 2 || n == 3 {
					return queue.Batch{}, err
				}
				return do()
			}
		})
	}
	t.Run("damage parks", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			g := failing(t, fmt.Errorf("segment 1, offset 17: %w", queue.ErrDamaged))
			g.together("a")
			for range 2 {
				m := g.main()
				if m.State != queue.Parked || !strings.Contains(m.Parked, "segment 1, offset 17") || m.Appended != 1 {
					t.Errorf("%+v", m)
				}
				if err := g.r.Resume("main"); err != nil {
					t.Error(err)
				}
				synctest.Wait()
			}
			g.submit("b")
			g.close()
			same(t, "rows", g.sink.stored(), []string{"a", "b"})
		})
	})
	t.Run("others are tried again", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			g := failing(t, errors.New("input/output error"))
			g.together("a")
			if m := g.main(); m.State != queue.Waiting || !strings.Contains(m.LastError, "input/output error") || m.LastErrorAt.IsZero() {
				t.Errorf("%+v", m)
			}
			g.submit("b")
			begin := time.Now()
			g.close()
			same(t, "rows", g.sink.stored(), []string{"a", "b"})
			if took := time.Since(begin); took < 20*time.Millisecond || took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("an empty batch is none", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			g := failing(t, nil)
			g.together("a", "b")
			g.close()
			same(t, "rows", g.sink.stored(), []string{"a", "b"})
		})
	})
}

// An acknowledgement that fails is made up for: by the next one, or alone.
func TestAckFails(t *testing.T) {
	for _, more := range []bool{false, true} {
		t.Run(fmt.Sprint("more events: ", more), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := 0
				g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
					hook(o).ack = func(_ queue.Seq, do func() error) error {
						if n++; n <= 2 {
							return queue.ErrFailed
						}
						return do()
					}
				})
				g.together("a")
				g.drain() // it has its final outcome
				if w := g.q.Watermarks(); w.Committed != 0 || !strings.Contains(g.main().LastError, "acknowledge") {
					t.Errorf("committed up to %d; %+v", w.Committed, g.main())
				}
				want := []string{"a"}
				if more {
					g.together("b", "c")
					want = append(want, "b", "c")
				}
				time.Sleep(time.Minute) // of the bubble
				if w := g.q.Watermarks(); w.Committed != queue.Seq(len(want)) {
					t.Errorf("committed up to %d", w.Committed)
				}
				g.close()
				same(t, "rows", g.sink.stored(), want)
				delivered := 0
				for _, c := range g.sink.deliveries() {
					delivered += len(c.ids)
				}
				if delivered != len(want) {
					t.Errorf("delivered again: %v", g.sink.deliveries())
				}
			})
		})
	}
	t.Run("for ever", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			q := &hooked{Memory: queue.NewMemory(queue.MemoryOptions{}), ack: func(queue.Seq, func() error) error { return queue.ErrFailed }}
			d := newDrainer(t, q, &sink{})
			ended := make(chan error)
			go func() { ended <- d.Run(t.Context()) }()
			rec := abi.AppendRecord(nil, &abi.Event{})
			if _, err := q.Submit(queue.Event{ID: "a", Payload: rec}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var left *queue.RemainingError
			if err := q.Close(ctx); !errors.As(err, &left) {
				t.Error(err)
			}
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "acknowledge up to event 1") {
				t.Errorf("Run returned %v", err)
			}
		})
	})
}

func newDrainer(t *testing.T, q queue.Queue, s *sink) *queue.Drainer {
	t.Helper()
	d, err := queue.NewDrainer(t.Context(), q, queue.DrainerOptions{
		SinkOptions: queue.SinkOptions{Name: "main", Sink: s, Required: true, MaxRestarts: 5}, Sealer: sealer{}, DeadLetters: &letters{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A drainer alone ends when its queue is closed and empty, gives its cursor free,
// and goes on where another stopped.
func TestB20_BareDrainer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := queue.NewMemory(queue.MemoryOptions{}), &sink{}
		submit := func(ids ...string) {
			t.Helper()
			for _, id := range ids {
				e := event(id)
				if _, err := q.Submit(queue.Event{ID: id, Payload: abi.AppendRecord(nil, &e)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		first := newDrainer(t, q, s)
		submit("a", "b") // nobody runs yet: they are kept
		if m := first.Metrics(); m.State != queue.Stopped || m.Pending != 2 {
			t.Errorf("%+v", m)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- first.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if err := first.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "ran already") {
			t.Errorf("the second Run returned %v", err)
		}
		second := newDrainer(t, q, s)
		go func() { ended <- second.Run(t.Context()) }()
		submit("c")
		if err := q.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
		same(t, "rows", s.stored(), []string{"a", "b", "c"})
		if m := second.Metrics(); m.Appended != 1 || m.Pending != 0 || m.Skipped != 2 || m.Lost != 0 {
			t.Errorf("%+v", m)
		}
	})
}

func TestNewDrainerRefuses(t *testing.T) {
	q := queue.NewMemory(queue.MemoryOptions{})
	good := queue.DrainerOptions{SinkOptions: queue.SinkOptions{Name: "main", Sink: &sink{}}, Sealer: sealer{}, DeadLetters: &letters{}}
	for what, change := range map[string]func(*queue.DrainerOptions){
		"no sink":         func(o *queue.DrainerOptions) { o.Sink = nil },
		"no sealer":       func(o *queue.DrainerOptions) { o.Sealer = nil },
		"no dead letters": func(o *queue.DrainerOptions) { o.DeadLetters = nil },
		"no name":         func(o *queue.DrainerOptions) { o.Name = "" },
		"negative":        func(o *queue.DrainerOptions) { o.MaxRestarts = -1 },
		"ahead":           func(o *queue.DrainerOptions) { o.From = 7 },
	} {
		o := good
		change(&o)
		if _, err := queue.NewDrainer(t.Context(), q, o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	d, err := queue.NewDrainer(t.Context(), q, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.NewDrainer(t.Context(), q, good); !errors.Is(err, queue.ErrBusy) {
		t.Errorf("the second one: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if d, err = queue.NewDrainer(t.Context(), q, good); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
