package queue_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// moody answers by the event and the attempt: some events trap, some are refused,
// some retried, some make the whole batch wait; most are stored.
func moody(g *rig, seed byte) func(context.Context, int, *abi.Batch, func(...int)) abi.Result {
	return func(_ context.Context, n int, b *abi.Batch, store func(...int)) abi.Result {
		g.conserved()
		defer g.conserved()
		r := abi.Result{Outcome: abi.Partial}
		for i := range b.Events {
			h := fnv.New32a()
			fmt.Fprint(h, b.Events[i].ID, seed)
			v := abi.Verdict{}
			switch mood := h.Sum32() % 200; {
			case mood == 0:
				return trap("poison")
			case mood == 1 && n%2 == 0:
				panic("now and then")
			case mood == 2:
				return abi.Result{Outcome: abi.Reject}
			case mood == 3 && n%3 != 0:
				return abi.Result{Outcome: abi.Busy, RetryAfter: time.Millisecond}
			case mood < 8:
				v.Code = abi.Reject
			case mood < 12 && n%2 == 0:
				v.Code = abi.Retry
			default:
				store(i)
			}
			r.Verdicts = append(r.Verdicts, v)
		}
		return r
	}
}

// The equation holds at any instant, asked by everybody who takes part, while
// events come from four producers, meet traps, panics, refusals, retries and a
// failing store of dead letters, and the recorder is closed under them.
func TestConservationUnderTraffic(t *testing.T) {
	for seed := range byte(3) {
		bubble(t, func(t *testing.T) {
			second := &sink{}
			g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
				o.Queue = queue.NewMemory(queue.MemoryOptions{MaxEvents: 700})
				o.Sinks = append(o.Sinks, queue.SinkOptions{Name: "second", Sink: second, BatchEvents: 17})
				for i := range o.Sinks {
					o.Sinks[i].MaxRestarts = 1_000_000
				}
				o.Check = func(e abi.Event) error {
					if e.ID[len(e.ID)-1] == '7' {
						return errors.New("no event that ends in 7")
					}
					return nil
				}
				g.sink.answer, second.answer = moody(g, seed), moody(g, seed+100)
				g.dlq.put = func(n int, _ []abi.DeadLetter, store func()) error {
					g.conserved()
					if n%5 == 0 {
						return errors.New("disk full")
					}
					store()
					return nil
				}
			})
			var taken sync.Map
			var wg sync.WaitGroup
			for p := range 4 {
				wg.Go(func() {
					for i := range 500 {
						id := fmt.Sprintf("%d-%d", p, i)
						if _, err := g.r.Submit(t.Context(), event(id)); err == nil {
							taken.Store(id, true)
						}
						if i%50 == 0 {
							g.conserved()
							<-tick()
						}
					}
				})
			}
			stop := make(chan struct{})
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-tick():
						g.conserved()
					}
				}
			})
			for range 10 {
				<-tick()
			}
			if seed > 0 { // at once, while the producers are at work
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seed)*time.Hour)
				defer cancel()
				if rep, err := g.r.Close(ctx); err != nil {
					t.Errorf("%+v, %v", rep, err)
				}
			} else {
				synctest.Wait()
				g.drain()
			}
			close(stop)
			wg.Wait()
			g.close()
			m := g.r.Metrics()
			if m.Submitted != 2000 || m.SendFailures == 0 {
				t.Errorf("%+v", m)
			}
			for i, s := range []*sink{g.sink, second} {
				got := s.stored()
				for _, l := range g.dlq.all() {
					if l.Sink == m.Sinks[i].Name {
						got = append(got, l.Event.ID)
					}
				}
				var want []string
				taken.Range(func(id, _ any) bool { want = append(want, id.(string)); return true })
				slices.Sort(got)
				slices.Sort(want)
				if sm := m.Sinks[i]; sm.Skipped > 0 {
					if sm.Required {
						t.Errorf("%+v", sm)
					}
					continue // an optional one may have lagged; the equation knows
				}
				same(t, "final outcomes of "+m.Sinks[i].Name, got, want)
				if m.Sinks[i].DrainerPanics == 0 || m.Sinks[i].DLQLanded == 0 {
					t.Errorf("nothing went wrong: %+v", m.Sinks[i])
				}
			}
		})
	}
}

// Outside of a bubble a checker that never pauses races with the others.
func TestConservationAgainstARestlessReader(t *testing.T) {
	g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
		o.Block = true
		o.Queue = queue.NewMemory(queue.MemoryOptions{MaxEvents: 100})
		o.Sinks[0].BatchEvents = 8
		g.sink.answer = func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
			if n%3 == 0 {
				return abi.Result{Outcome: abi.Reject}
			}
			store()
			return ok
		}
	})
	var producers, reader sync.WaitGroup
	for p := range 4 {
		producers.Go(func() {
			for i := range 2000 {
				if _, err := g.r.Submit(t.Context(), event(fmt.Sprintf("%d-%d", p, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop, n := make(chan struct{}), 0
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				g.conserved()
				n++
			}
		}
	})
	producers.Wait()
	g.close()
	close(stop)
	reader.Wait()
	if m := g.main(); m.Appended+m.DLQLanded != 8000 || n < 100 {
		t.Errorf("%+v, asked %d times", m, n)
	}
}

// Lost is measured: a queue that loses an event, or hands one out twice, shows.
func TestLostShowsABug(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(b *queue.Batch)
		want  int64
	}{
		"an event is missing":          {func(b *queue.Batch) { b.Events = slices.Delete(b.Events, 1, 2) }, 1},
		"an event is handed out twice": {func(b *queue.Batch) { b.Events = slices.Insert(b.Events, 1, b.Events[1]) }, -1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g, release := held(t, script(), func(o *queue.RecorderOptions) {
					hook(o).next = func(do func() (queue.Batch, error)) (queue.Batch, error) {
						b, err := do()
						if len(b.Events) == 4 {
							c.spoil(&b)
						}
						return b, err
					}
					o.Sinks[0].BatchEvents = 4
				})
				g.submit("a")
				synctest.Wait()
				g.submit("b", "c", "d", "e", "f", "g", "h", "i")
				synctest.Wait()
				release()
				g.drain()
				m := g.main()
				if m.Lost != c.want {
					t.Errorf("lost %d, want %d", m.Lost, c.want)
				}
				if _, err := g.r.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What was in the queue before is recovered, counted once, and delivered.
func TestRecovered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			q := reopened{queue.NewMemory(queue.MemoryOptions{})}
			for _, id := range names(1, 7) {
				e := event(id)
				if _, err := q.Submit(queue.Event{ID: id, Payload: abi.AppendRecord(nil, &e)}); err != nil {
					t.Fatal(err)
				}
			}
			o.Queue = q
			o.Sinks[0].From = 3 // it has two of them
		})
		g.conserved()
		g.submit(names(8, 10)...)
		g.drain()
		m := g.r.Metrics()
		if s := m.Sinks[0]; s.Recovered != 5 || s.Appended != 8 || m.Submitted != 3 || s.Pending != 0 {
			t.Errorf("%+v", m)
		}
		same(t, "rows", g.sink.stored(), names(3, 10))
		g.close()
	})
}

// reopened is a queue that was closed with seven events in it.
type reopened struct{ *queue.Memory }

func (q reopened) Watermarks() queue.Watermarks {
	w := q.Memory.Watermarks()
	w.Opened, w.Submitted = 7, w.Submitted-7
	return w
}

func TestOldestIsThatOfTheFirstUnsettled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first := time.Now()
		gate := make(chan struct{}, 1)
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents = 1
			g.sink.answer = func(_ context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
				<-gate
				store()
				return ok
			}
		})
		if !g.main().Oldest.IsZero() {
			t.Errorf("oldest %v of none", g.main().Oldest)
		}
		for _, id := range names(1, 3) {
			g.together(id)
			time.Sleep(time.Minute) // of the bubble
		}
		for i := range 3 {
			synctest.Wait()
			if got, want := g.main().Oldest, first.Add(time.Duration(i)*time.Minute); !got.Equal(want) {
				t.Errorf("%d settled: oldest %v, want %v", i, got, want)
			}
			gate <- struct{}{}
		}
		g.close()
		if !g.main().Oldest.IsZero() {
			t.Errorf("oldest %v of none", g.main().Oldest)
		}
	})
}

func TestErrorTextsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		long := string(make([]byte, 100_000))
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].MaxRestarts = 0
			g.sink.answer = script(answer(trap(long)))
		})
		g.submit("one")
		synctest.Wait()
		if m := g.main(); len(m.Parked) == 0 || len(m.Parked) > 512 || len(m.LastError) > 512 {
			t.Errorf("%d and %d bytes", len(m.Parked), len(m.LastError))
		}
		if n := len(g.logs.String()); n > 10_000 {
			t.Errorf("%d bytes of log", n)
		}
		g.closeNow()
	})
}
