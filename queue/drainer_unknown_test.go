package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// poisoned traps on every batch that has one of these events, before it stores
// anything.
func poisoned(ids ...string) func(context.Context, int, *abi.Batch, func(...int)) abi.Result {
	bad := make(map[string]bool)
	for _, id := range ids {
		bad[id] = true
	}
	return func(_ context.Context, _ int, b *abi.Batch, store func(...int)) abi.Result {
		for i := range b.Events {
			if bad[b.Events[i].ID] {
				return trap("poison " + b.Events[i].ID)
			}
		}
		store()
		return ok
	}
}

// without returns ids without some.
func without(ids []string, some ...string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(some, id) })
}

// Wherever the guilty event stands among n, it is found with log2(n) + 2 restarts
// and few deliveries, on a budget of two incidents, and nothing else suffers.
func TestBisectionFindsTheGuilty(t *testing.T) {
	for n, step := range map[int]int{1: 1, 8: 1, 16: 1, 64: 1, 256: 5, 1024: 31} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			log2 := uint64(bits.Len(uint(n)) - 1)
			all := names(1, n)
			for at := 0; at < n; at = min(at+step, max(at+1, n-1)) {
				bubble(t, func(t *testing.T) {
					guilty := all[at]
					g, release := held(t, poisoned(guilty), func(o *queue.RecorderOptions) {
						o.Sinks[0].BatchEvents, o.Sinks[0].MaxRestarts = n, 2
					})
					g.together(all...)
					begin := time.Now()
					release()
					g.close()
					same(t, "rows", g.sink.stored(), without(all, guilty))
					same(t, "dead letters", g.dlq.ids(), []string{guilty})
					m := g.main()
					if m.Restarts > log2+2 || m.DrainerPanics > log2+2 || m.Batches-1 > 2*log2+6 {
						t.Errorf("event %d: %d restarts, %d deliveries", at, m.Restarts, m.Batches-1)
					}
					if took := time.Since(begin); took > time.Second {
						t.Errorf("event %d: took %v", at, took)
					}
					if l := g.dlq.all()[0]; l.Outcome != abi.Trap || l.Reason != "poison "+guilty || l.Stderr != "panic: poison "+guilty ||
						l.Plugin != "d1ge57" || l.Attempts < 2 || string(l.Event.Payload) != string(event(guilty).Payload) || !sealed(&l.Event) {
						t.Errorf("%+v", l)
					}
				})
			}
		})
	}
}

func TestBisectionFindsExactlyTheGuiltyOnes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		all := names(1, 1024)
		guilty := []string{all[0], all[1], all[511], all[512], all[700], all[1023]}
		g, release := held(t, poisoned(guilty...), func(o *queue.RecorderOptions) {
			o.Sinks[0].BatchEvents, o.Sinks[0].MaxRestarts = 1024, 1+len(guilty)
		})
		g.together(all...)
		release()
		g.close()
		same(t, "rows", g.sink.stored(), without(all, guilty...))
		same(t, "dead letters", g.dlq.ids(), guilty)
		if m := g.main(); m.Batches-1 > uint64(len(guilty))*26 || m.Parked != "" {
			t.Errorf("%d deliveries; %+v", m.Batches-1, m)
		}
	})
}

// The events of a batch that was begun are not begun again once they are settled,
// and what was settled during a bisection is acknowledged at once.
func TestBisectionSettlesAsItGoes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		all := names(1, 64)
		g, release := held(t, poisoned(all[40], all[50]), func(o *queue.RecorderOptions) { o.Sinks[0].MaxRestarts = 2 })
		g.together(all...)
		release()
		// The second guilty one is beyond the budget.
		if _, err := g.r.DrainPending(t.Context()); !errors.Is(err, queue.ErrParked) {
			t.Errorf("drain: %v", err)
		}
		// 0, and all in front of the second one.
		if w := g.q.Watermarks(); w.Committed != 51 {
			t.Errorf("committed up to %d, want 51", w.Committed)
		}
		g.closeNow()
	})
}

func TestStateWhileBisecting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		all := names(1, 8)
		var g *rig
		seen := make(map[queue.State]bool)
		poison := poisoned(all[3])
		g, release := held(t, func(ctx context.Context, n int, b *abi.Batch, store func(...int)) abi.Result {
			seen[g.main().State] = true
			return poison(ctx, n, b, store)
		}, nil)
		g.together(all...)
		release()
		g.drain()
		if !seen[queue.Running] || !seen[queue.Bisecting] || len(seen) != 2 {
			t.Errorf("seen %v", seen)
		}
		synctest.Wait()
		if s := g.main().State; s != queue.Running {
			t.Errorf("afterwards %s", s)
		}
		g.close()
	})
}

// The first restart is at once, and the next ones take twice as long each time,
// whether the sink traps at every other call or at each.
func TestRestartsBackOff(t *testing.T) {
	for name, traps := range map[string]func(n int) bool{
		"every other call": func(n int) bool { return n%2 == 1 },
		"each call":        func(int) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var pauses []time.Duration
				var trapped time.Time // the call before; zero if it stored
				g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
					o.Sinks[0].BatchEvents, o.Sinks[0].MaxRestarts, o.Sinks[0].RestartWindow = 1, 20, time.Hour
					g.sink.answer = func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
						if !trapped.IsZero() {
							pauses = append(pauses, time.Since(trapped))
						}
						if trapped = (time.Time{}); traps(n) {
							trapped = time.Now()
							return trap("so it goes")
						}
						store()
						return ok
					}
				})
				g.submit(names(1, 20)...)
				<-time.After(time.Hour / 2) // of the bubble
				g.closeNow()
				if len(pauses) < 16 {
					t.Fatalf("%d restarts", len(pauses))
				}
				for i, got := range pauses {
					nominal := min(time.Millisecond<<i/2, 5*time.Second)
					if i == 0 {
						nominal = 0
					}
					if got > nominal || got < nominal*3/4-1 {
						t.Errorf("pause %d: %v, want about %v", i, got, nominal)
					}
				}
			})
		})
	}
}

// One guilty event among four, after nothing happened for long: a restart is at
// once unless the one before it did no better, and then it takes the least pause.
func TestRestartsOfOneIncident(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var trapped time.Time
		var pauses []time.Duration
		poison := poisoned("e00003")
		g, release := held(t, func(ctx context.Context, n int, b *abi.Batch, store func(...int)) abi.Result {
			if !trapped.IsZero() {
				pauses = append(pauses, time.Since(trapped))
			}
			r := poison(ctx, n, b, store)
			if trapped = (time.Time{}); r.Outcome == abi.Trap {
				trapped = time.Now()
			}
			return r
		}, func(o *queue.RecorderOptions) { o.Sinks[0].MaxRestarts = 2 })
		g.together(names(1, 4)...)
		release()
		g.close()
		// All four, again, 1 which is stored; 3, again.
		if want := []time.Duration{0, time.Millisecond, 0, time.Millisecond}; !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
		same(t, "rows", g.sink.stored(), []string{"e00001", "e00002", "e00004"})
	})
}

// Incidents that are further apart than the window do not add up.
func TestBudgetIsPerWindow(t *testing.T) {
	for gap, parks := range map[time.Duration]bool{time.Second: true, time.Minute: false} {
		t.Run(fmt.Sprint(gap), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
					o.Sinks[0].MaxRestarts, o.Sinks[0].RestartWindow = 3, time.Minute
					g.sink.answer = func(_ context.Context, n int, _ *abi.Batch, store func(...int)) abi.Result {
						if n%2 == 1 {
							return trap("every first")
						}
						store()
						return ok
					}
				})
				for _, id := range names(1, 10) {
					if _, err := g.r.Submit(t.Context(), event(id)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(gap) // of the bubble
				}
				if parked := g.main().Parked != ""; parked != parks {
					t.Errorf("parked %v: %+v", parked, g.main())
				}
				g.closeNow()
			})
		})
	}
}

func TestBadConfigParksAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, _ *queue.RecorderOptions) {
			g.sink.answer = script(answer(abi.Result{Outcome: abi.BadConfig, Detail: "no file named"}))
		})
		g.submit("one")
		synctest.Wait()
		m := g.main()
		if m.State != queue.Parked || !strings.Contains(m.Parked, "no file named") || m.Batches != 1 || m.DrainerPanics != 0 {
			t.Errorf("%+v", m)
		}
		if err := g.r.Resume("main"); err != nil {
			t.Error(err)
		}
		g.drain()
		if m := g.main(); m.Parked != "" || m.State != queue.Running || m.Appended != 1 {
			t.Errorf("%+v", m)
		}
		g.close()
	})
}

func TestResumeNamesWhatIsWrong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, nil)
		if err := g.r.Resume("main"); err == nil || !strings.Contains(err.Error(), "not parked") {
			t.Error(err)
		}
		if err := g.r.Resume("mian"); err == nil || !strings.Contains(err.Error(), "no such sink") {
			t.Error(err)
		}
		g.close()
	})
}

// A sink that was parked keeps its place, takes what came meanwhile, and has a
// whole budget again.
func TestResumedSinkLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].MaxRestarts, o.Sinks[0].BatchEvents = 1, 10
			g.sink.answer = func(context.Context, int, *abi.Batch, func(...int)) abi.Result { return trap("broken") }
		})
		before := uint64(0)
		for round := range 3 {
			g.submit(names(round*50+1, round*50+50)...)
			synctest.Wait()
			time.Sleep(time.Second) // of the bubble: the second attempt is made meanwhile
			if m := g.main(); m.State != queue.Parked || m.DLQLanded != 0 {
				t.Errorf("round %d: %+v", round, m)
			}
			if panics := g.main().DrainerPanics - before; panics < 2 {
				t.Errorf("round %d: parked after %d attempts, with a whole budget", round, panics)
			}
			before = g.main().DrainerPanics
			if err := g.r.Resume("main"); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		g.sink.mend()
		if err := g.r.Resume("main"); err != nil {
			t.Error(err)
		}
		g.close()
		same(t, "rows", g.sink.stored(), names(1, 150))
	})
}

// What an event did before its sink was parked is not held against it: the sink
// may be another one now.
func TestResumeForgivesTheEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Sinks[0].MaxRestarts = 1
			g.sink.answer = script(answer(trap("1")), answer(trap("2")), answer(trap("3")))
		})
		g.submit("one")
		if _, err := g.r.DrainPending(t.Context()); !errors.Is(err, queue.ErrParked) {
			t.Errorf("drain: %v", err)
		}
		if err := g.r.Resume("main"); err != nil {
			t.Error(err)
		}
		g.close()
		same(t, "rows", g.sink.stored(), []string{"one"})
		if got, want := describe(g.sink.deliveries()), "1.1:one 1.2:one 2.1:one 2.2:one"; got != want {
			t.Errorf("deliveries %s, want %s", got, want)
		}
	})
}

// A sink that hangs, waits or is parked delays no other.
func TestSinksDoNotDelayEachOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hang := make(chan struct{})
		parked, waiting, hanging := &sink{}, &sink{}, &sink{}
		parked.answer = poisoned("e00001")
		waiting.answer = func(context.Context, int, *abi.Batch, func(...int)) abi.Result {
			return abi.Result{Outcome: abi.Busy, RetryAfter: time.Minute}
		}
		hanging.answer = func(_ context.Context, _ int, _ *abi.Batch, store func(...int)) abi.Result {
			<-hang
			store()
			return ok
		}
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) {
			o.Sinks = append(o.Sinks, queue.SinkOptions{Name: "parked", Sink: parked},
				queue.SinkOptions{Name: "waiting", Sink: waiting}, queue.SinkOptions{Name: "hanging", Sink: hanging})
		})
		g.submit(names(1, 1000)...)
		begin := time.Now()
		rep := g.drain()
		same(t, "rows", g.sink.stored(), names(1, 1000))
		if time.Since(begin) != 0 || rep.Remained != 0 {
			t.Errorf("after %v: %+v", time.Since(begin), rep)
		}
		synctest.Wait()
		if rep := g.drain(); !slices.Equal(rep.Parked, []string{"parked"}) {
			t.Errorf("%+v", rep)
		}
		m := g.r.Metrics()
		for i, want := range []queue.State{queue.Running, queue.Parked, queue.Waiting, queue.Running} {
			if s := m.Sinks[i]; s.State != want || i > 0 && s.Pending != 1000 {
				t.Errorf("%+v", s)
			}
		}
		conserved(t, m)
		close(hang)
		g.closeNow()
	})
}
