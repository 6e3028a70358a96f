package queue_test

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// Over a queue on disk what remained at Close is kept, and is delivered by the
// next recorder, which knows how much there was.
func TestRecorderOverDisk(t *testing.T) {
	dir := t.TempDir()
	over := func(t *testing.T, broken bool) *rig {
		q, err := queue.OpenDisk(t.Context(), queue.DiskOptions{Dir: dir, MaxBytes: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return newRig(t, func(g *rig, o *queue.RecorderOptions) {
			o.Queue, o.Sinks[0].MaxRestarts, o.Log = q, 0, slog.New(slog.DiscardHandler)
			if broken {
				g.sink.answer = script(answer(ok), answer(trap("broken")))
			}
		})
	}
	appended := uint64(0)
	bubble(t, func(t *testing.T) {
		g := over(t, true)
		g.together("e00001") // stored
		g.together(names(2, 100)...)
		rep, err := g.r.Close(t.Context())
		var left *queue.RemainingError
		if !errors.As(err, &left) || !left.Kept || left.Events != rep.Remained || rep.Appended+rep.Remained != 100 || rep.Appended == 0 || rep.Remained == 0 {
			t.Errorf("%+v, %v", rep, err)
		}
		appended = rep.Appended
		g.conserved()
	})
	bubble(t, func(t *testing.T) {
		g := over(t, false)
		g.conserved()
		g.submit(names(101, 150)...)
		g.close()
		same(t, "rows", g.sink.stored(), names(int(appended)+1, 150))
		if m := g.r.Metrics(); m.Sinks[0].Recovered != 100-appended || m.Submitted != 50 || m.Sinks[0].Appended != 150-appended {
			t.Errorf("%+v", m)
		}
		synctest.Wait()
	})
}

// Events that the disk did not take are in no queue: nobody waits for them, also
// when no further event ever comes.
func TestDrainPendingAfterAFailedWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _ := memSite()
		q := mustOpen(t, s, queue.DiskOptions{})
		g := newRig(t, func(_ *rig, o *queue.RecorderOptions) { o.Queue = q })
		g.submit(names(1, 3)...)
		synctest.Wait()
		heal := s.now.failSync()
		g.submit("lost")
		begun := time.Now()
		rep := g.drain()
		if took := time.Since(begun); rep.Appended != 3 || rep.Remained != 0 || took > time.Second {
			t.Errorf("%+v after %v", rep, took)
		}
		heal()
		time.Sleep(time.Minute)
		g.close()
		same(t, "rows", g.sink.stored(), names(1, 3))
	})
}

// What the recorder itself costs, with a sink that does nothing.
func BenchmarkRecorder(b *testing.B) {
	r, err := queue.NewRecorder(b.Context(), queue.RecorderOptions{
		Queue: queue.NewMemory(queue.MemoryOptions{}), Block: true,
		Sinks:  []queue.SinkOptions{{Name: "main", Sink: quiet{}, Required: true, BatchEvents: 1024}},
		Sealer: sealer{}, DeadLetters: &letters{}, Check: func(abi.Event) error { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	e := event(benchID)
	e.Payload = payload400
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Submit(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := r.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
