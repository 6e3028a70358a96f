package queue_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/queue"
)

var payload400 = bytes.Repeat([]byte("x"), 400)

const benchID = "01890a5d-ac96-774b-bcce-b302099a8057"

// consume acknowledges everything until the queue is closed.
func consume(b *testing.B, q queue.Queue) (stop func()) {
	c, err := q.Consumer(b.Context(), "sink", queue.ConsumerOptions{Required: true})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			batch, err := c.Next(context.Background(), 256, 1<<20)
			if errors.Is(err, queue.ErrClosed) {
				return
			}
			if err == nil {
				err = c.Ack(context.Background(), batch.Last())
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	return func() {
		if err := q.Close(context.Background()); err != nil {
			b.Error(err)
		}
		wg.Wait()
	}
}

// submitTimed submits as fast as it can, waits for room where there is none, and
// reports the median and the 99th percentile beside the mean.
func submitTimed(b *testing.B, q queue.Queue) {
	ctx := context.Background()
	ev := queue.Event{ID: benchID, Payload: payload400}
	times := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		t := time.Now()
		_, err := q.Submit(ev)
		if len(times) < cap(times) {
			times = append(times, time.Since(t))
		}
		if errors.Is(err, queue.ErrFull) {
			_, err = queue.SubmitWait(ctx, q, ev, queue.Accepted)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2]), "p50-ns")
	b.ReportMetric(float64(times[len(times)*99/100]), "p99-ns")
}

func BenchmarkMemorySubmit(b *testing.B) {
	q := queue.NewMemory(queue.MemoryOptions{})
	stop := consume(b, q)
	submitTimed(b, q)
	stop()
}
