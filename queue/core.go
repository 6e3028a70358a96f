package queue

import (
	"context"
	"fmt"
	"sync"
)

// core is the bookkeeping that the backends share: numbers, cursors, refusals
// and who waits for what. mu guards every field, and those of the backend that
// say so; it is never held across I/O or a call of the user's code.
type core struct {
	mu sync.Mutex

	next    Seq // number of the next event accepted
	head    Seq // oldest event kept; next if there is none
	cursors map[string]*cursor
	open    []*cursor // those in use, for waking
	closing bool      // Submit refuses
	sealed  bool      // nothing will be appended any more, not even a loss record
	closed  bool      // Close has returned, or is about to

	committed marks
	room      broadcast // space was freed, or there will never be any
	progress  broadcast // an acknowledgement, or a consumer closed

	submitted uint64 // calls of Submit, loss records included
	failures  uint64 // those that failed
	opened    Seq    // the last event when the queue was opened

	refused    Refusals // since the queue was opened
	unrecorded Refusals // not yet in a loss record
	recording  bool     // a loss record is being made
	lossRecord func(Refusals) (Event, bool)
}

// cursor is how far one consumer has come. core.mu guards it.
type cursor struct {
	name      string
	required  bool
	acked     Seq           // done with everything up to here
	delivered Seq           // handed out up to here by the consumer that is open
	active    bool          // a consumer has it
	wake      chan struct{} // capacity 1, that consumer's own: there may be something new

	// Of a disk queue.
	store  *slotFile
	reader *diskConsumer // the consumer, if active
}

// poke wakes the consumer's Next, if it waits.
func (c *cursor) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// accepted is the number of the last event taken.
func (k *core) accepted() Seq { return k.next - 1 }

// pokeAll wakes every open consumer.
func (k *core) pokeAll() {
	for _, c := range k.open {
		c.poke()
	}
}

// committedSeq is the lowest acknowledgement among the required consumers. With
// none of them nothing counts as committed.
func (k *core) committedSeq() Seq {
	low, found := Seq(0), false
	for _, c := range k.cursors {
		if c.required && (!found || c.acked < low) {
			low, found = c.acked, true
		}
	}
	if !found {
		return k.head - 1
	}
	return low
}

// settle is called after anything that may have moved Committed.
func (k *core) settle() {
	k.committed.advance(k.committedSeq())
	k.progress.fire()
}

// reserve takes the cursor of that name for a new consumer, and says where it is
// to begin. last is the last event that could be delivered. Until activate the
// cursor holds back what either of its two states would.
func (k *core) reserve(name string, o ConsumerOptions, last Seq) (*cursor, Seq, error) {
	if name == "" || len(name) > MaxID {
		return nil, 0, fmt.Errorf("queue: open consumer: name of %d bytes, want 1 to %d", len(name), MaxID)
	}
	if k.closing {
		return nil, 0, ErrClosed
	}
	c := k.cursors[name]
	if c != nil && c.active {
		return nil, 0, fmt.Errorf("open consumer %q: %w", name, ErrBusy)
	}
	if o.From > last+1 {
		return nil, 0, fmt.Errorf("open consumer %q at %d: %w: the last event is %d; is this the queue that belongs to the ledger?",
			name, o.From, ErrBehind, last)
	}
	if o.From != 0 && o.From < k.head {
		return nil, 0, fmt.Errorf("open consumer %q at %d: %w", name, o.From, ErrLagged{From: o.From, To: k.head - 1})
	}
	if c == nil {
		c = &cursor{name: name, acked: k.head - 1}
		k.cursors[name] = c
	}
	at := c.acked
	if o.From != 0 {
		at = o.From - 1
	}
	c.acked = min(c.acked, at)
	c.required = c.required || o.Required
	c.active = true
	return c, at, nil
}

// activate completes what reserve began.
func (k *core) activate(c *cursor, at Seq, required bool) {
	c.acked, c.delivered, c.required = at, at, required
	c.wake = make(chan struct{}, 1)
	k.open = append(k.open, c)
	k.settle()
}

// detach takes the cursor from its consumer.
func (k *core) detach(c *cursor) {
	c.active = false
	for i, o := range k.open {
		if o == c {
			k.open = append(k.open[:i], k.open[i+1:]...)
			break
		}
	}
	c.poke()
	k.settle()
}

// skipLost moves a cursor that points below the oldest event kept to that event,
// and says what it missed.
func (k *core) skipLost(c *cursor) error {
	if c.delivered+1 >= k.head {
		return nil
	}
	lost := ErrLagged{From: c.delivered + 1, To: k.head - 1}
	c.delivered = lost.To
	c.acked = max(c.acked, lost.To)
	return lost
}

// checkAck says whether c may acknowledge upTo.
func (c *cursor) checkAck(upTo Seq) error {
	switch {
	case upTo < c.acked:
		return fmt.Errorf("%w: %d after %d by consumer %q", ErrBadAck, upTo, c.acked, c.name)
	case upTo > c.delivered:
		return fmt.Errorf("%w: %d by consumer %q, which was handed %d last", ErrBadAck, upTo, c.name, c.delivered)
	}
	return nil
}

// forget removes a cursor that no consumer has.
func (k *core) forget(name string) error {
	c := k.cursors[name]
	if c == nil {
		return nil
	}
	if c.active {
		return fmt.Errorf("forget consumer %q: %w", name, ErrBusy)
	}
	delete(k.cursors, name)
	k.settle()
	return nil
}

// fail counts an event that was not taken.
func (k *core) fail() {
	k.submitted++
	k.failures++
}

// recordLoss asks for the loss record and hands it to put, which appends without
// regard to the bounds and says whether it could. k.mu is held at entry and at
// exit, not during the call of the user's code. One record is made at a time.
func (k *core) recordLoss(put func(Event) bool) {
	if k.unrecorded.Count == 0 || k.recording || k.lossRecord == nil {
		return
	}
	due := k.unrecorded
	k.unrecorded, k.recording = Refusals{}, true
	written := false
	defer func() { // also when the user's code panics
		k.recording = false
		k.progress.fire()
		if !written {
			due.merge(k.unrecorded)
			k.unrecorded = due
		}
	}()
	ev, ok := func() (Event, bool) {
		k.mu.Unlock()
		defer k.mu.Lock()
		return k.lossRecord(due.clone())
	}()
	written = !ok || put(ev)
}

// seal ends appending: the last loss record goes in, then nothing does. A record
// that is being made is waited for.
func (k *core) seal(ctx context.Context, put func(Event) bool) {
	for {
		k.mu.Lock()
		if !k.recording {
			k.recordLoss(put)
			k.sealed = true
			k.pokeAll()
			k.mu.Unlock()
			return
		}
		changed := k.progress.wait()
		k.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			k.mu.Lock()
			k.sealed = true
			k.pokeAll()
			k.mu.Unlock()
			return
		}
	}
}

// drained says whether Close need not wait any longer: every open required
// consumer has everything.
func (k *core) drained() bool {
	for _, c := range k.open {
		if c.required && c.acked < k.accepted() {
			return false
		}
	}
	return true
}

// awaitDrained waits for drained.
func (k *core) awaitDrained(ctx context.Context) error {
	for {
		k.mu.Lock()
		done, changed := k.drained(), k.progress.wait()
		k.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitCommitted waits until committed has reached seq. broken, called with the
// lock held, says that this can't happen any more.
func (k *core) awaitCommitted(ctx context.Context, seq Seq, broken func() error) error {
	for {
		k.mu.Lock()
		if k.committed.at >= seq {
			k.mu.Unlock()
			return nil
		}
		if err := broken(); err != nil {
			k.mu.Unlock()
			return err
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

// awaitNext waits for a batch: take, called with the lock held, returns it, an
// empty one if there is nothing yet.
func (k *core) awaitNext(ctx context.Context, wake <-chan struct{}, take func() (Batch, error)) (Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		k.mu.Lock()
		b, err := take()
		k.mu.Unlock()
		if err != nil || len(b.Events) > 0 {
			return b, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		}
	}
}

// nextLimits replaces limits that were not given.
func nextLimits(maxEvents, maxBytes int) (int, int) {
	if maxEvents <= 0 {
		maxEvents = 256
	}
	if maxBytes <= 0 {
		maxBytes = 1 << 20
	}
	return maxEvents, maxBytes
}
