package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// cursor is how far the consumer of a name has come. core.mu guards it.
type cursor struct {
	name      string
	required  bool
	acked     Seq       // done with everything up to here
	delivered Seq       // handed out up to here by the consumer that is open
	active    bool      // a consumer has it, or it is being removed
	file      *slotFile // of a disk queue
}

// consumer is one opening of a cursor.
type consumer struct {
	k      *core
	c      *cursor
	wake   chan struct{} // capacity 1: there may be something new
	reader reader

	// Guarded by core.mu.
	closed bool // the cursor may be another consumer's by now
	busy   int  // operations on its files under way
}

// reader is the store's part of a consumer. core.mu is held when its methods are
// called, and when they return.
type reader interface {
	// read hands out what there is behind cursor.delivered, possibly nothing, and
	// moves that. It may give the lock up meanwhile: ErrClosed if the consumer was
	// closed then.
	read(maxEvents, maxBytes int) (Batch, error)
	// close is called once, when nothing is read.
	close() error
}

// poke wakes the consumer's Next, if it waits.
func (con *consumer) poke() { signal(con.wake) }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// pokeAll wakes every open consumer.
func (k *core) pokeAll() {
	for _, con := range k.open {
		con.poke()
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

// settle is called after anything that may have moved a cursor: it wakes who
// waits for Committed or for room, and frees what every consumer is done with.
func (k *core) settle() {
	low := k.committedSeq()
	k.committed.advance(low)
	for _, c := range k.cursors {
		low = min(low, c.acked)
	}
	k.store.free(low)
	k.progress.fire()
	k.madeRoom()
}

// Consumer implements Queue.
func (k *core) Consumer(ctx context.Context, name string, o ConsumerOptions) (Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c, at, err := k.reserve(name, o)
	if err != nil {
		return nil, err
	}
	err = k.store.keep(c, at, o.Required)
	if err == nil && k.closing {
		err = ErrClosed
	}
	if err != nil {
		c.active = false
		return nil, fmt.Errorf("open consumer %q: %w", name, err)
	}
	c.acked, c.delivered, c.required = at, at, o.Required
	con := &consumer{k: k, c: c, wake: make(chan struct{}, 1)}
	con.reader = k.store.reader(con)
	k.open = append(k.open, con)
	k.settle()
	return con, nil
}

// reserve takes the cursor of that name for a new consumer, and says where it is
// to begin. Until that is durable the cursor holds back what either of its two
// states would.
func (k *core) reserve(name string, o ConsumerOptions) (*cursor, Seq, error) {
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
	if o.From > k.durable+1 {
		return nil, 0, fmt.Errorf("open consumer %q at %d: %w: the last event is %d; is this the queue that belongs to the ledger?",
			name, o.From, ErrBehind, k.durable)
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

// Next implements Consumer.
func (con *consumer) Next(ctx context.Context, maxEvents, maxBytes int) (Batch, error) {
	maxEvents, maxBytes = nextLimits(maxEvents, maxBytes)
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		b, err := con.collect(maxEvents, maxBytes)
		if err != nil || len(b.Events) > 0 {
			return b, err
		}
		select {
		case <-con.wake:
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

// collect returns what is there and fits, possibly nothing.
func (con *consumer) collect(maxEvents, maxBytes int) (Batch, error) {
	k, c := con.k, con.c
	k.mu.Lock()
	defer k.mu.Unlock()
	if con.closed {
		return Batch{}, ErrClosed
	}
	if err := k.skipLost(c); err != nil {
		return Batch{}, err
	}
	b, err := con.reader.read(maxEvents, maxBytes)
	if err == nil && len(b.Events) == 0 && k.sealed && c.delivered >= k.accepted() {
		err = ErrClosed
	}
	return b, err
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

// Ack implements Consumer.
func (con *consumer) Ack(ctx context.Context, upTo Seq) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k, c := con.k, con.c
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case con.closed:
		return ErrClosed
	case upTo < c.acked:
		return fmt.Errorf("%w: %d after %d by consumer %q", ErrBadAck, upTo, c.acked, c.name)
	case upTo > c.delivered:
		return fmt.Errorf("%w: %d by consumer %q, which was handed %d last", ErrBadAck, upTo, c.name, c.delivered)
	case upTo == c.acked:
		return nil
	}
	con.busy++
	err := k.store.keep(c, upTo, c.required)
	con.busy--
	if err != nil {
		err = fmt.Errorf("acknowledge %d by consumer %q: %w: %w", upTo, c.name, ErrFailed, err)
	} else {
		// Not before: what nobody wants any more is freed for it, and must not be
		// wanted again after a crash.
		c.acked = upTo
		k.settle()
	}
	if con.closed {
		err = errors.Join(err, con.finish())
	}
	return err
}

// Acked implements Consumer.
func (con *consumer) Acked() Seq {
	con.k.mu.Lock()
	defer con.k.mu.Unlock()
	return con.c.acked
}

// Close implements Consumer. The name is free once no other call is reading or
// writing a file.
func (con *consumer) Close() error {
	con.k.mu.Lock()
	defer con.k.mu.Unlock()
	return con.shut()
}

// shut is Close. core.mu is held.
func (con *consumer) shut() error {
	if con.closed {
		return nil
	}
	con.closed = true
	con.poke()
	return con.finish()
}

// finish gives the name free, if no operation is under way that will. core.mu is
// held.
func (con *consumer) finish() error {
	if con.busy > 0 {
		return nil
	}
	k := con.k
	con.c.active = false
	k.open = slices.DeleteFunc(k.open, func(o *consumer) bool { return o == con })
	k.progress.fire()
	return con.reader.close()
}

// CursorKeeper is a queue whose cursors outlive their consumers.
type CursorKeeper interface {
	// Cursors are all that the queue keeps, in the order of their names.
	Cursors() []CursorInfo
	// Forget removes the cursor of a consumer that will not come back, for good:
	// nothing is held back for it any more. ErrBusy if it is open; nil if there is
	// none of that name.
	Forget(ctx context.Context, name string) error
}

// CursorInfo is how far the consumer of a name has come.
type CursorInfo struct {
	Name     string
	Required bool
	Open     bool   // somebody has the consumer
	Acked    Seq    // it is done with everything up to here
	Pending  uint64 // events kept that it has not acknowledged
}

// Cursors implements CursorKeeper.
func (k *core) Cursors() []CursorInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.info()
}

// info is Cursors. core.mu is held, or nobody else has the queue.
func (k *core) info() []CursorInfo {
	var all []CursorInfo
	for _, c := range k.cursors {
		all = append(all, CursorInfo{
			Name: c.name, Required: c.required, Open: c.active, Acked: c.acked,
			Pending: uint64(k.accepted() - max(c.acked, k.head-1)),
		})
	}
	slices.SortFunc(all, func(a, b CursorInfo) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Forget implements CursorKeeper.
func (k *core) Forget(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.cursors[name]
	switch {
	case k.closed:
		return ErrClosed
	case c == nil:
		return nil
	case c.active:
		return fmt.Errorf("forget consumer %q: %w", name, ErrBusy)
	}
	c.active = true // nobody else may have it meanwhile
	err := k.store.drop(c)
	c.active = false
	if err != nil {
		return fmt.Errorf("forget consumer %q: %w", name, err)
	}
	delete(k.cursors, name)
	k.settle()
	return nil
}
