package queue

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// hand is a run of events in the order of the queue, with what the drainer knows
// about each of them. At most one batch of them is in the slot and one is being
// delivered; their memory is used in turn.
type hand struct {
	events []abi.Event
	meta   []meta
	bytes  int // IDs and records
	done   int // events at the front that are settled
}

// meta is what the drainer knows about one event.
type meta struct {
	at       time.Time
	fault    string // why the event could not be decoded; empty if it could
	raw      []byte // its record then
	attempts uint32 // deliveries
	unknowns uint8  // deliveries of this event alone whose outcome is unknown
	fate     fate
}

// fate is how an event ended.
type fate uint8

const (
	open     fate = iota // it has no final outcome yet
	appended             // the sink has it
	dead                 // it is stored as a dead letter
)

// add appends the events of o.
func (h *hand) add(o *hand) {
	h.events = append(h.events, o.events...)
	h.meta = append(h.meta, o.meta...)
	h.bytes += o.bytes
}

// reset empties the hand, keeps its memory, and lets go what it pointed to.
func (h *hand) reset() {
	clear(h.events)
	clear(h.meta)
	*h = hand{events: h.events[:0], meta: h.meta[:0]}
}

// fetch takes events from the queue and seals them while others are delivered.
// The slot holds one batch at most: what comes while the sink works gathers there
// and goes out together, and what comes while it idles goes out at once.
func (d *Drainer) fetch(ctx context.Context) {
	var h hand
	for {
		events, bytes := d.awaitRoom(ctx)
		if ctx.Err() != nil {
			return
		}
		b, err := d.c.Next(ctx, events, bytes)
		if err == nil {
			d.prepare(&h, b)
			err = d.fill(ctx, &h)
		}
		if err != nil && !d.fail(ctx, err) {
			return
		}
	}
}

// awaitRoom waits until the slot has room, and says how much.
func (d *Drainer) awaitRoom(ctx context.Context) (events, bytes int) {
	_ = d.awaitThat(ctx, func() (bool, error) {
		events, bytes = d.tuning.BatchEvents-len(d.slot.events), d.tuning.BatchBytes-d.slot.bytes
		return events > 0 && bytes > 0, nil
	}) // the caller asks ctx itself
	return events, bytes
}

// fill moves what is prepared to the slot. Where an event is larger than the room
// for it, the slot has to be empty first.
func (d *Drainer) fill(ctx context.Context, h *hand) error {
	return d.awaitThat(ctx, func() (bool, error) {
		if len(d.slot.events) > 0 && d.slot.bytes+h.bytes > d.tuning.BatchBytes {
			return false, nil
		}
		d.slot.add(h)
		h.reset()
		d.sealing = time.Time{}
		d.changed.fire()
		return true, nil
	})
}

// fail hands an error of Next to Run and waits until it was dealt with. false:
// there is nothing to come after it.
func (d *Drainer) fail(ctx context.Context, err error) bool {
	d.mu.Lock()
	d.failure = err
	d.changed.fire()
	d.mu.Unlock()
	if errors.Is(err, ErrClosed) {
		return false
	}
	return d.awaitThat(ctx, func() (bool, error) { return d.failure == nil, nil }) == nil
}

// prepare decodes and seals a batch.
func (d *Drainer) prepare(h *hand, b Batch) {
	if len(b.Events) == 0 {
		return
	}
	d.mu.Lock()
	d.sealing = b.Events[0].At
	d.mu.Unlock()
	for i := range b.Events {
		e := &b.Events[i]
		m := meta{at: e.At}
		ev, err := abi.DecodeRecord(e.ID, uint64(e.Seq), e.Payload)
		if err != nil {
			ev = abi.Event{ID: e.ID, Seq: uint64(e.Seq)}
			m.fault, m.raw = err.Error(), append([]byte{}, e.Payload...)
		}
		h.events = append(h.events, ev)
		h.meta = append(h.meta, m)
		h.bytes += len(e.ID) + len(e.Payload)
	}
	d.update(func(m *SinkMetrics) {
		m.handedEvents += uint64(len(h.events))
		m.handedBytes += uint64(h.bytes)
	})
	d.seal(h)
}

// Sizes of what is sealed at a time.
const (
	sealAlone    = 4  // events from which several processors seal
	sealTogether = 32 // events in one call of the sealer
)

// seal seals what was decoded, on all processors.
func (d *Drainer) seal(h *hand) {
	workers := runtime.GOMAXPROCS(0)
	if len(h.events) < sealAlone {
		workers = 1
	}
	each := min(sealTogether, (len(h.events)+workers-1)/workers)
	var next atomic.Int64
	work := func() {
		var run [sealTogether]*abi.Event
		for {
			last := int(next.Add(int64(each)))
			first := last - each
			if first >= len(h.events) {
				return
			}
			events := run[:0]
			for i := first; i < min(last, len(h.events)); i++ {
				if h.meta[i].fault == "" {
					events = append(events, &h.events[i])
				}
			}
			if len(events) > 0 {
				d.o.Sealer.Seal(events...)
			}
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}
