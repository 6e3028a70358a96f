package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/statedir"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/internal/durable"
	"github.com/audit-host/audit-host/queue"
)

// TypeHeadAccepted is the event type of the record that a ledger was accepted
// which lacks the head that was remembered.
const TypeHeadAccepted = "audit.head_accepted"

// Acceptance is what accepting a ledger means.
type Acceptance struct {
	Was   Head // remembered; Sequence 0 if nothing readable was
	Now   Head // where the ledger ends; Sequence 0 if it is empty
	Clean bool // the ledger has the remembered head: there is nothing to accept

	// Position is how far the ledger has come in this queue, Cursor how far its
	// sink had come. The events in between come again, from Kept on: those before
	// are in no segment any more.
	Position, Cursor, Kept uint64
}

// Again is how many events are delivered again.
func (a Acceptance) Again() uint64 {
	if from := max(a.Position+1, a.Kept); a.Cursor >= from {
		return a.Cursor - from + 1
	}
	return 0
}

// Gone is how many of the events that the ledger lacks the queue has no more.
func (a Acceptance) Gone() uint64 {
	if a.Kept > a.Position+1 {
		return min(a.Kept-1, a.Cursor) - a.Position
	}
	return 0
}

// AcceptHead makes the present end of the ledger the remembered head, sets the
// ledger's place in the queue back to where the ledger is, and puts a record of
// it into the queue. Without write it only says what that would mean. It needs
// the state directory for itself.
//
// The place in the queue is set back before the head is remembered: a crash in
// between leaves the ledger refused, and accepting it again does the same.
func AcceptHead(ctx context.Context, cfg *config.Config, write bool) (a Acceptance, err error) {
	sink, ok := cfg.Ledger()
	if !ok {
		return a, fmt.Errorf("%s has no ledger: no sink of it has [sink.grant.sql]", cfg.File)
	}
	state, err := statedir.Open(cfg.StateDir)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	// A damaged file is what this command replaces.
	a.Was, _, _ = ReadHead(HeadFile(cfg))
	path := sink.Grant.SQL.Database
	now, positions, undone, err := openHead(ctx, slog.New(slog.DiscardHandler), path, Head{}, write)
	if err == nil && write {
		err = undone
	}
	if err != nil {
		return a, err
	}
	a.Now = now
	if a.Was.Sequence > 0 {
		var back *WentBackError
		if _, err := lookAt(ctx, path, a.Was); err == nil {
			a.Clean = true
		} else if !errors.As(err, &back) {
			return a, err
		}
	}
	if cfg.Queue.Backend == "disk" {
		if err := a.rewind(ctx, cfg, sink, positions, write && !a.Clean); err != nil {
			return a, err
		}
	}
	if !write || a.Clean {
		return a, nil
	}
	if now.Sequence == 0 {
		return a, durable.Remove(HeadFile(cfg))
	}
	return a, now.save(HeadFile(cfg))
}

// rewind finds out what of the queue the ledger lacks, and with write has it
// delivered again.
func (a *Acceptance) rewind(ctx context.Context, cfg *config.Config, sink config.Sink, positions map[[16]byte]uint64, write bool) (err error) {
	id, err := queue.DiskID(cfg.Queue.Directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	q, err := openDisk(ctx, cfg, positions, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeUnused(ctx, q)) }()
	a.Position = positions[id]
	open := func(name string, o queue.ConsumerOptions) (at queue.Seq, err error) {
		c, err := q.Consumer(ctx, name, o)
		if err != nil {
			return 0, err
		}
		return c.Acked(), c.Close()
	}
	cursor, err := open(sink.Name, queue.ConsumerOptions{Required: sink.Required})
	if err != nil {
		return err
	}
	a.Cursor, a.Kept = uint64(cursor), a.Position+1
	if a.Cursor <= a.Position {
		a.Kept = a.Cursor + 1
	} else {
		// Another name, so that looking moves nothing.
		const probe = "audit-host accept-head"
		_, err = open(probe, queue.ConsumerOptions{From: queue.Seq(a.Position + 1)})
		var gone queue.ErrLagged
		if errors.As(err, &gone) {
			a.Kept, err = uint64(gone.To)+1, nil
		}
		if err == nil {
			err = q.Forget(ctx, probe)
		}
		if err != nil {
			return err
		}
	}
	if !write {
		return nil
	}
	if a.Again() > 0 {
		if _, err := open(sink.Name, queue.ConsumerOptions{Required: sink.Required, From: queue.Seq(max(a.Position+1, a.Kept))}); err != nil {
			return err
		}
	}
	return a.record(ctx, q)
}

// record puts the event that tells of it into the queue.
func (a *Acceptance) record(ctx context.Context, q queue.Queue) error {
	action := fmt.Sprintf(`{"kind":"audit.head_accepted","was":{"sequence":%d,"row_hash":%q},"now":{"sequence":%d,"row_hash":%q},"again":%d,"gone":%d}`,
		a.Was.Sequence, a.Was.RowHash, a.Now.Sequence, a.Now.RowHash, a.Again(), a.Gone())
	return record(ctx, q, TypeHeadAccepted, action, event.Decision{Kind: event.KindWarn, RuleID: "head_accepted",
		Reason: "an operator accepted a ledger that lacks the head that was remembered"})
}

// record puts an event of the host's own into a queue, durably.
func record(ctx context.Context, q queue.Queue, kind, action string, d event.Decision) error {
	e, err := event.New(event.HostAgent, event.RawAction(action), d, event.Options{})
	if err != nil {
		return err
	}
	e.EventType = kind
	_, err = queue.SubmitWait(ctx, q, queue.Event{ID: e.ID, Payload: abi.AppendRecord(nil, &e), Source: event.HostAgent}, queue.Durable)
	if err != nil {
		return fmt.Errorf("record %s: %w", kind, err)
	}
	return nil
}
