package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/codenotary/immudb/embedded/logger"
	"github.com/codenotary/immudb/embedded/store"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"
)

// Tamper-evident logs. Neither signs events: both are to be held against
// ingest_unsigned.

// tesseraLog adds events to a transparency log in files, in batches of the
// size given, and waits until each has its index, which is durable then.
func tesseraLog(batch uint, last time.Duration) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) (_ []value, err error) {
		// Its goroutines go on until then, and complain of the folder that is gone.
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		klog.LogToStderr(false)
		klog.SetOutput(io.Discard)
		secret, _, err := note.GenerateKey(rand.Reader, "bench")
		if err != nil {
			return nil, err
		}
		signer, err := note.NewSigner(secret)
		if err != nil {
			return nil, err
		}
		driver, err := posix.New(ctx, posix.Config{Path: filepath.Join(dir, "log")})
		if err != nil {
			return nil, err
		}
		log, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
			WithCheckpointSigner(signer).WithBatching(batch, 10*time.Millisecond).WithPushback(8*batch).WithCheckpointInterval(time.Second))
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, shutdown(ctx)) }()
		elapsed, n := stopwatch(), 0
		futures := make(chan tessera.IndexFuture, 4*batch)
		done := make(chan error, 1)
		go func() {
			var first error
			for f := range futures {
				if _, err := f(); err != nil && first == nil {
					first = err
				}
			}
			done <- first
		}()
		for err == nil {
			err = lines(b.minted, func(line []byte) error {
				if elapsed() > last {
					return errEnough
				}
				futures <- log.Add(ctx, tessera.NewEntry(append([]byte{}, line...)))
				n++
				return nil
			})
		}
		close(futures)
		if waited := <-done; !errors.Is(err, errEnough) || waited != nil {
			return nil, errors.Join(err, waited)
		}
		return []value{perSecond(n, elapsed(), "events")}, nil
	}
}

// immudbLog commits transactions of 256 events each to immudb's embedded store,
// which syncs them together.
func immudbLog(writers int, last time.Duration) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, _ *bench, dir string) (_ []value, err error) {
		const each = 256
		s, err := store.Open(filepath.Join(dir, "immudb"), store.DefaultOptions().WithMaxTxEntries(each).
			WithLogger(logger.NewMemoryLogger()))
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		elapsed := stopwatch()
		counts, errs := make([]int, writers), make([]error, writers)
		payload := randomBytes(eventSize)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for elapsed() < last && errs[w] == nil {
					tx, err := s.NewWriteOnlyTx(ctx)
					for i := 0; i < each && err == nil; i++ {
						key := binary.BigEndian.AppendUint64(fmt.Appendf(nil, "%d", w), uint64(counts[w]+i))
						err = tx.Set(key, nil, payload)
					}
					if err == nil {
						_, err = tx.AsyncCommit(ctx) // waits for the sync, not for the index
					}
					if errs[w] = err; err == nil {
						counts[w] += each
					}
				}
			})
		}
		wg.Wait()
		took, n := elapsed(), 0
		for _, c := range counts {
			n += c
		}
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		return []value{perSecond(n, took, "events")}, nil
	}
}
