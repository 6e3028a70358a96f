package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/tidwall/wal"
	"go.etcd.io/bbolt"

	"github.com/audit-host/audit-host/queue"
)

// jsonLines appends lines to a file and syncs every 256 of them: the least that
// is durable, and protects nothing.
func jsonLines(ctx context.Context, b *bench, dir string) (_ []value, err error) {
	f, err := os.Create(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, n, elapsed := bufio.NewWriterSize(f, 1<<20), 0, stopwatch()
	sync := func() error { return errors.Join(w.Flush(), f.Sync()) }
	err = lines(b.minted, func(line []byte) error {
		_, _ = w.Write(line) // Flush repeats the error
		_ = w.WriteByte('\n')
		if n++; n%256 == 0 {
			return sync()
		}
		return ctx.Err()
	})
	if err = errors.Join(err, sync()); err != nil {
		return nil, err
	}
	return []value{perSecond(n, elapsed(), "lines")}, nil
}

// durable is a log whose put returns when the event is on disk. It is called by
// many at once.
type durable struct {
	put   func(id string, payload []byte) error
	close func() error
}

// acknowledged has producers that wait for each event, which is how clients of
// a queue behave that must not lose what they were told is kept.
func acknowledged(open func(ctx context.Context, dir string) (durable, error), producers int, last time.Duration) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, _ *bench, dir string) (_ []value, err error) {
		d, err := open(ctx, dir)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, d.close()) }()
		payload, elapsed := randomBytes(eventSize), stopwatch()
		times, errs := make([][]time.Duration, producers), make([]error, producers)
		var wg sync.WaitGroup
		for i := range producers {
			wg.Go(func() {
				id := uuid.NewString()
				for elapsed() < last && ctx.Err() == nil {
					began := time.Now()
					if errs[i] = d.put(id, payload); errs[i] != nil {
						return
					}
					times[i] = append(times[i], time.Since(began))
				}
			})
		}
		wg.Wait()
		took := elapsed()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		l := loaded{times: slices.Concat(times...)}
		slices.Sort(l.times)
		return []value{perSecond(len(l.times), took, "events"), {".p50", l.quantile(0.5), "us"}, {".p99", l.quantile(0.99), "us"}}, nil
	}
}

// ourLog is the disk queue.
func ourLog(ctx context.Context, dir string) (durable, error) {
	q, err := queue.OpenDisk(ctx, queue.DiskOptions{Dir: filepath.Join(dir, "queue")})
	if err != nil {
		return durable{}, err
	}
	return durable{
		put: func(id string, payload []byte) error {
			r, err := q.Submit(queue.Event{ID: id, Payload: payload})
			if err != nil {
				return err
			}
			return r.Wait(ctx, queue.Durable)
		},
		close: func() error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // nobody takes the events
			var left *queue.RemainingError
			if err := q.Close(ctx); !errors.As(err, &left) {
				return err
			}
			return nil
		},
	}, nil
}

// boltLog is bbolt, which collects concurrent calls of Batch in one transaction.
func boltLog(_ context.Context, dir string) (durable, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt.db"), 0o600, nil)
	if err != nil {
		return durable{}, err
	}
	db.MaxBatchDelay = time.Millisecond // the default of 10 makes it slower here
	name := []byte("events")
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(name); return err }); err != nil {
		return durable{}, err
	}
	return durable{
		put: func(_ string, payload []byte) error {
			return db.Batch(func(tx *bbolt.Tx) error {
				b := tx.Bucket(name)
				n, err := b.NextSequence()
				if err != nil {
					return err
				}
				return b.Put(binary.BigEndian.AppendUint64(nil, n), payload)
			})
		},
		close: db.Close,
	}, nil
}

// tidwallLog is tidwall/wal, which syncs every write. It has no group commit of
// its own: the events that wait for a lock are written as one batch here.
func tidwallLog(_ context.Context, dir string) (durable, error) {
	l, err := wal.Open(filepath.Join(dir, "wal"), nil)
	if err != nil {
		return durable{}, err
	}
	next := uint64(1)
	g := &group{write: func(list [][]byte) error {
		var batch wal.Batch
		for _, p := range list {
			batch.Write(next, p)
			next++
		}
		return l.WriteBatch(&batch)
	}}
	return durable{put: func(_ string, payload []byte) error { return g.put(payload) }, close: l.Close}, nil
}

// raftLog is hashicorp/raft-wal, with the same group commit.
func raftLog(_ context.Context, dir string) (durable, error) {
	path := filepath.Join(dir, "raft")
	if err := os.Mkdir(path, 0o700); err != nil {
		return durable{}, err
	}
	l, err := raftwal.Open(path)
	if err != nil {
		return durable{}, err
	}
	next := uint64(1)
	g := &group{write: func(list [][]byte) error {
		logs := make([]*raft.Log, len(list))
		for i, p := range list {
			logs[i] = &raft.Log{Index: next, Data: p}
			next++
		}
		return l.StoreLogs(logs)
	}}
	return durable{put: func(_ string, payload []byte) error { return g.put(payload) }, close: l.Close}, nil
}

// group is the simplest group commit: who finds nobody writing writes for all
// that wait.
type group struct {
	write func(list [][]byte) error // called by one at a time

	mu      sync.Mutex
	writing bool
	waiting []*waiter
}

type waiter struct {
	payload []byte
	done    chan error // nil error: written; it may be told to write instead
	lead    chan struct{}
}

func (g *group) put(payload []byte) error {
	w := &waiter{payload, make(chan error, 1), make(chan struct{}, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	if g.writing {
		g.mu.Unlock()
		select {
		case err := <-w.done:
			return err
		case <-w.lead:
		}
		g.mu.Lock()
	}
	g.writing = true
	mine := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	list := make([][]byte, len(mine))
	for i, w := range mine {
		list[i] = w.payload
	}
	err := g.write(list)
	g.mu.Lock()
	if g.writing = len(g.waiting) > 0; g.writing {
		g.waiting[0].lead <- struct{}{}
	}
	g.mu.Unlock()
	for _, w := range mine {
		w.done <- err
	}
	return <-w.done
}

// submitted measures what a caller pays for Accepted, with a consumer running.
func submitted(ctx context.Context, _ *bench, _ string) (_ []value, err error) {
	q := queue.NewMemory(queue.MemoryOptions{})
	c, err := q.Consumer(ctx, "sink", queue.ConsumerOptions{Required: true})
	if err != nil {
		return nil, err
	}
	var consumer sync.WaitGroup
	var failed atomic.Pointer[error]
	consumer.Go(func() {
		for {
			b, err := c.Next(ctx, 256, 1<<20)
			if errors.Is(err, queue.ErrClosed) {
				return
			}
			if err == nil {
				err = c.Ack(ctx, b.Last())
			}
			if err != nil {
				failed.Store(&err)
				return
			}
		}
	})
	const events = 500_000
	e := queue.Event{ID: uuid.NewString(), Payload: randomBytes(eventSize)}
	times, full, elapsed := make([]time.Duration, 0, events), 0, stopwatch()
	for len(times) < events && err == nil {
		began := time.Now()
		if _, err = q.Submit(e); errors.Is(err, queue.ErrFull) {
			full++
			_, err = q.SubmitBlocking(ctx, e)
			continue
		}
		times = append(times, time.Since(began))
	}
	took := elapsed()
	err = errors.Join(err, q.Close(ctx))
	consumer.Wait()
	if p := failed.Load(); p != nil {
		err = errors.Join(err, *p)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(times)
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	if took == 0 {
		return nil, fmt.Errorf("no time has passed")
	}
	return []value{{".p50", float64(times[events/2].Nanoseconds()), "ns"}, {".mean", float64(sum.Nanoseconds()) / events, "ns"},
		{".p99", float64(times[events*99/100].Nanoseconds()), "ns"}}, nil
}

type opener = func(ctx context.Context, dir string) (durable, error)

// syncs measures the disk itself.
func syncs(ctx context.Context, _ *bench, dir string) (_ []value, err error) {
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block, l := randomBytes(4096), loaded{}
	for i := 0; i < 500 && ctx.Err() == nil; i++ {
		began := time.Now()
		if _, err := f.WriteAt(block, int64(i)*4096); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		l.times = append(l.times, time.Since(began))
	}
	slices.Sort(l.times)
	return []value{{".p50", l.quantile(0.5), "us"}, {".p99", l.quantile(0.99), "us"}}, ctx.Err()
}
