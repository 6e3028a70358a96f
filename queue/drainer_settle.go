package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// mark gives events their final outcome.
func (d *Drainer) mark(at []int, f fate) {
	for _, i := range at {
		d.hand.meta[i].fate = f
	}
}

// buryUnreadable makes dead letters of the events that could not be decoded.
func (d *Drainer) buryUnreadable(ctx context.Context) error {
	var at []int
	for i := range d.hand.meta {
		if d.hand.meta[i].fault != "" {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return nil
	}
	d.update(func(m *SinkMetrics) { m.AppendFailures += uint64(len(at)) })
	return d.bury(ctx, at, func(i int) (abi.Outcome, string, string) {
		return abi.Reject, d.hand.meta[i].fault, ""
	})
}

// bury stores events as dead letters. It does not return before they are durable,
// except when ctx is done: an event whose letter can't be written is not lost,
// but waits.
//
// Commit point. A crash before Put has stored the letters leaves the events
// unacknowledged: they are delivered again, and end here again. A crash after it
// does too, and Put knows sink and ID. A letter is thus written before the queue
// may forget the event, and once.
func (d *Drainer) bury(ctx context.Context, at []int, why func(i int) (abi.Outcome, string, string)) error {
	letters := make([]abi.DeadLetter, len(at))
	now, plugin := time.Now().UTC(), d.tuned().Plugin
	for k, i := range at {
		m := &d.hand.meta[i]
		l := abi.DeadLetter{
			Event: d.hand.events[i], Raw: m.raw, Sink: d.o.Name, Plugin: plugin,
			Attempts: m.attempts, FailedAt: now,
		}
		l.Outcome, l.Reason, l.Stderr = why(i)
		letters[k] = l
	}
	for n := 0; ; n++ {
		err := d.put(ctx, letters)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.trouble("store dead letters; their events are kept until it works", err, slog.Int("letters", len(letters)))
		if err := d.wait(ctx, pause(0, waitLeast, growMost, n)); err != nil {
			return err
		}
	}
	d.mark(at, dead)
	d.log.LogAttrs(ctx, slog.LevelError, "events became dead letters", slog.Int("letters", len(letters)),
		slog.String("first", letters[0].Event.ID), slog.String("outcome", letters[0].Outcome.String()),
		slog.String("reason", bounded(letters[0].Reason)))
	return nil
}

// put calls the store, whose panic is an error like any other.
func (d *Drainer) put(ctx context.Context, letters []abi.DeadLetter) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the store panicked: %v", p)
		}
	}()
	return d.o.DeadLetters.Put(ctx, letters)
}

// settle counts the events at the front of the hand that have their final
// outcome, and acknowledges them.
//
// Commit point. Every event up to the position acknowledged is stored by the sink
// or as a dead letter. A crash before the acknowledgement is durable hands them
// out again: the sink knows their IDs, and so do the dead letters. A crash after
// it leaves nothing to do. They are counted first, so that whoever saw them
// committed finds them in the metrics.
func (d *Drainer) settle(ctx context.Context) error {
	h := &d.hand
	d.mu.Lock()
	from := h.done
	for ; h.done < len(h.meta) && h.meta[h.done].fate != open; h.done++ {
		if h.meta[h.done].fate == dead {
			d.m.DLQLanded++
		} else {
			d.m.Appended++
		}
		d.settled = Seq(h.events[h.done].Seq)
	}
	moved := h.done > from
	if moved {
		d.changed.fire()
	}
	d.mu.Unlock()
	if moved {
		d.ack(ctx)
	}
	return ctx.Err()
}

// ack acknowledges what is settled. Where that fails it is owed: the next one
// includes it, or it is tried again when there is nothing else to do. Delivering
// goes on meanwhile, for a queue that can't write can still be emptied. It is not
// cut short by ctx: it only says what is already true.
func (d *Drainer) ack(ctx context.Context) {
	err := d.c.Ack(context.WithoutCancel(ctx), d.settled)
	if errors.Is(err, ErrBadAck) && d.c.Acked() >= d.settled {
		err = nil // the queue has moved an optional consumer on meanwhile
	}
	if err == nil {
		d.ackAgain, d.ackFails = nil, 0
		return
	}
	d.trouble("acknowledge; what was delivered comes again at the next start, and is recognised", err)
	d.ackAgain = time.After(pause(0, waitLeast, growMost, d.ackFails))
	d.ackFails++
}

// lastAck tries once more what is owed.
func (d *Drainer) lastAck(ctx context.Context) error {
	if d.ackAgain == nil {
		return nil
	}
	if d.ack(ctx); d.ackAgain != nil {
		return fmt.Errorf("acknowledge up to event %d of sink %q: the queue can't write", d.settled, d.o.Name)
	}
	return nil
}
