package queue_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// openBench opens a queue on the real disk that keeps everything.
func openBench(b *testing.B, o queue.DiskOptions) *queue.Disk {
	b.Helper()
	if o.Dir == "" {
		o.Dir = b.TempDir()
	}
	o.MaxBytes = 32 << 30
	q, err := queue.OpenDisk(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	return q
}

func closeBench(b *testing.B, q *queue.Disk) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var left *queue.RemainingError
	if err := q.Close(ctx); err != nil && !errors.As(err, &left) {
		b.Error(err)
	}
}

// BenchmarkDiskAppend waits for every 256 events to be durable.
func BenchmarkDiskAppend(b *testing.B) {
	q := openBench(b, queue.DiskOptions{})
	defer closeBench(b, q)
	ev := queue.Event{ID: benchID, Payload: payload400}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r, err := q.Submit(ev)
		if err != nil {
			b.Fatal(err)
		}
		if n++; n%256 == 0 {
			if err := r.Wait(b.Context(), queue.Durable); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkDiskFlood submits as fast as there is room, and waits at the end.
func BenchmarkDiskFlood(b *testing.B) {
	q := openBench(b, queue.DiskOptions{})
	defer closeBench(b, q)
	ev := queue.Event{ID: benchID, Payload: payload400}
	b.ReportAllocs()
	n := 0
	var last queue.Receipt
	for b.Loop() {
		r, err := q.SubmitBlocking(b.Context(), ev)
		if err != nil {
			b.Fatal(err)
		}
		last, n = r, n+1
	}
	if err := last.Wait(b.Context(), queue.Durable); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// benchAcks has producers that wait for each of their events to be durable.
func benchAcks(b *testing.B, producers int) {
	q := openBench(b, queue.DiskOptions{})
	defer closeBench(b, q)
	ev := queue.Event{ID: benchID, Payload: payload400}
	var left atomic.Int64
	times := make([][]time.Duration, producers)
	b.ReportAllocs()
	for b.Loop() {
		// One iteration is a fixed amount of work, shared by all producers.
		left.Store(4096)
		var wg sync.WaitGroup
		for p := range producers {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					start := time.Now()
					r, err := q.Submit(ev)
					if err == nil {
						err = r.Wait(context.Background(), queue.Durable)
					}
					if err != nil {
						b.Error(err)
						return
					}
					times[p] = append(times[p], time.Since(start))
				}
			})
		}
		wg.Wait()
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "acks/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
}

func BenchmarkDiskAcks8(b *testing.B)   { benchAcks(b, 8) }
func BenchmarkDiskAcks256(b *testing.B) { benchAcks(b, 256) }

// BenchmarkDiskSubmit is the hand-over alone.
func BenchmarkDiskSubmit(b *testing.B) {
	q := openBench(b, queue.DiskOptions{})
	defer closeBench(b, q)
	submitTimed(b, q)
}

// BenchmarkDiskRead reads 200,000 events from the files, all checked.
func BenchmarkDiskRead(b *testing.B) {
	const events = 200_000
	dir := b.TempDir()
	q := openBench(b, queue.DiskOptions{Dir: dir})
	for range events {
		if _, err := q.SubmitBlocking(b.Context(), queue.Event{ID: benchID, Payload: payload400}); err != nil {
			b.Fatal(err)
		}
	}
	closeBench(b, q)
	q = openBench(b, queue.DiskOptions{Dir: dir})
	defer closeBench(b, q)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		c, err := q.Consumer(b.Context(), "sink", queue.ConsumerOptions{From: 1})
		if err != nil {
			b.Fatal(err)
		}
		for got := 0; got < events; {
			batch, err := c.Next(b.Context(), 256, 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			got += len(batch.Events)
			n += len(batch.Events)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkDiskThrough is what a sink sees: events pass from Submit to an
// acknowledgement of every 256.
func BenchmarkDiskThrough(b *testing.B) {
	q := openBench(b, queue.DiskOptions{})
	stop := consume(b, q)
	ev := queue.Event{ID: benchID, Payload: payload400}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := q.SubmitBlocking(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
		n++
	}
	stop()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}
