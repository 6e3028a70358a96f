package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// core is what the backends have in common, and the only place where it is
// decided: whether an event is taken, who is woken, what is counted, where a
// consumer stands, and when an event has reached a level. mu guards every field,
// and those of the backend that say so; it is never held across I/O or a call of
// the user's code.
type core struct {
	mu       sync.Mutex
	store    store // set once
	maxEvent int   // the largest payload; set once

	next    Seq // number of the next event accepted
	durable Seq // last event that may be handed out
	head    Seq // oldest event kept; next if there is none
	opened  Seq // the last event when the queue was opened

	cursors map[string]*cursor
	open    []*consumer // those that have a cursor
	ops     int         // file operations under way: nothing is closed before they end

	closing bool  // Submit refuses
	sealed  bool  // nothing will be appended any more, not even a loss record
	closed  bool  // nothing will reach Committed for those who wait
	failure error // why nothing can be written; wraps ErrFailed

	committed marks
	room      broadcast // space may have been freed, or there will never be any
	progress  broadcast // a cursor, an operation or a loss record has come further

	submitted uint64 // calls of Submit, loss records included
	failures  uint64 // those that failed

	losses
	lossRecord func(Refusals) (Event, bool)
}

// store is where a backend keeps events and cursors. core.mu is held when its
// methods are called, and when they return.
type store interface {
	// put keeps a copy of the event as number core.next: nil, ErrFull, or
	// ErrTooLarge if there never will be room. For room it frees, if it must, what
	// only optional consumers still want. With force it has room in any case.
	put(ev Event, force bool) (Receipt, error)
	// roomy says whether an eighth of the queue is free.
	roomy() bool
	// free lets go of events up to the given one. It need not free all of them.
	free(upTo Seq)
	// keep makes a cursor's position durable, where cursors are. It may give the
	// lock up meanwhile (core.operation).
	keep(c *cursor, at Seq, required bool) error
	// drop removes for good what keep wrote. It may give the lock up meanwhile.
	drop(*cursor) error
	// reader reads for a consumer.
	reader(*consumer) reader
}

// setup is called once, before all else.
func (k *core) setup(s store, maxEvent int, lossRecord func(Refusals) (Event, bool)) {
	k.store, k.maxEvent, k.lossRecord = s, maxEvent, lossRecord
	k.cursors = make(map[string]*cursor)
}

// Submit implements Queue.
func (k *core) Submit(ev Event) (Receipt, error) {
	r, _, err := k.submit(ev, true)
	return r, err
}

// SubmitBlocking implements Blocker.
func (k *core) SubmitBlocking(ctx context.Context, ev Event) (Receipt, error) {
	for {
		r, room, err := k.submit(ev, false)
		if room == nil {
			return r, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			k.mu.Lock()
			k.refuse(ev.Source)
			k.mu.Unlock()
			return Receipt{}, fmt.Errorf("wait for room: %w: %w", ErrFull, ctx.Err())
		}
	}
}

// submit takes the event if there is room. If not, it counts it as refused, or
// returns what to wait for.
func (k *core) submit(ev Event, count bool) (Receipt, <-chan struct{}, error) {
	err := checkEvent(ev, k.maxEvent)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && k.unrecorded.Count > 0 {
		k.tellLoss() // before the event, which came later
	}
	var r Receipt
	switch {
	case err != nil:
	case k.closing:
		err = ErrClosed
	case k.failure != nil:
		err = k.failure
	default:
		r, err = k.admit(ev, false)
	}
	switch {
	case err == nil:
	case !errors.Is(err, ErrFull):
		k.fail()
	case count:
		k.refuse(ev.Source)
	default:
		return r, k.room.wait(), nil
	}
	return r, nil, err
}

// admit gives the event the next position.
func (k *core) admit(ev Event, force bool) (Receipt, error) {
	r, err := k.store.put(ev, force)
	if err == nil {
		k.next++
		k.submitted++
	}
	return r, err
}

// accepted is the number of the last event taken.
func (k *core) accepted() Seq { return k.next - 1 }

// fail counts an event that was not taken.
func (k *core) fail() {
	k.submitted++
	k.failures++
}

// madeRoom is called after anything that may have made room.
func (k *core) madeRoom() {
	k.room.fire()
	k.tellLoss()
}

// operation runs f, which reads or writes files, without the lock. The files
// stay open until it is done. core.mu is held at entry and at exit.
func (k *core) operation(f func()) {
	k.ops++
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.ops--
		k.progress.fire()
	}()
	f()
}

// await waits, without the lock, until progress was made or ctx is done. core.mu
// is held at entry and at exit.
func (k *core) await(ctx context.Context) error {
	changed := k.progress.wait()
	k.mu.Unlock()
	defer k.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain is what every Close begins with: nothing more is taken, the last loss
// record goes in, and the open required consumers are waited for. cause says why
// they were not waited for any longer. first is false where Close was called
// before.
func (k *core) drain(ctx context.Context) (cause error, first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closing {
		return nil, false
	}
	k.closing = true
	k.room.fire()
	for k.pendingLoss() && k.failure == nil && k.await(ctx) == nil {
	}
	k.recordLoss()
	k.sealed = true
	k.pokeAll()
	for !k.drained() && cause == nil {
		cause = k.await(ctx)
	}
	k.closed = true
	k.committed.wakeAll()
	return cause, true
}

// drained says whether every open required consumer has everything.
func (k *core) drained() bool {
	for _, con := range k.open {
		if con.c.required && con.c.acked < k.accepted() {
			return false
		}
	}
	return true
}

// remaining is what Close returns of events that are not committed.
func (k *core) remaining(kept bool, cause error) error {
	if left := k.accepted() - k.committedSeq(); left > 0 {
		return &RemainingError{Events: uint64(left), Kept: kept, Cause: cause}
	}
	return nil
}

// awaitCommitted waits until Committed has reached seq.
func (k *core) awaitCommitted(ctx context.Context, seq Seq) error {
	for {
		k.mu.Lock()
		reached, closed := k.committed.at >= seq, k.closed
		if reached || closed {
			k.mu.Unlock()
			if reached {
				return nil
			}
			return ErrClosed
		}
		w := k.committed.add(seq)
		k.mu.Unlock()
		select {
		case <-w.ch:
		case <-ctx.Done():
			k.mu.Lock()
			k.committed.drop(w)
			k.mu.Unlock()
			return ctx.Err()
		}
	}
}

// watermarks is the part of Watermarks that does not depend on the store.
func (k *core) watermarks() Watermarks {
	w := Watermarks{
		Submitted: k.submitted, SendFailures: k.failures, Opened: k.opened,
		Accepted: k.accepted(), Durable: k.durable, Committed: k.committedSeq(),
		Refused: k.refused.clone(), Unrecorded: k.unrecorded.clone(), Failure: k.failure,
	}
	w.Events = int64(w.Accepted - w.Committed)
	return w
}
