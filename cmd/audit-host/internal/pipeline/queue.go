package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// recordRoom is what a queue's record of an event has beyond its payload, in
// bytes: agent, type and timestamp with their lengths.
const recordRoom = 1 << 10

// Bounds of a queue in memory whose input waits for room: enough to keep two
// batches in flight, and no reason to hold a file in memory.
const (
	bulkEvents = 16 << 10
	bulkBytes  = 32 << 20
)

// openQueue makes the queue that the configuration asks for.
func openQueue(ctx context.Context, cfg *config.Config, bulk bool) (queue.Queue, error) {
	mostEvent := int(cfg.HTTP.MaxEvent) + recordRoom
	if cfg.Queue.Backend == "memory" {
		o := queue.MemoryOptions{
			MaxEvents: cfg.Queue.MaxEvents, MaxBytes: int64(cfg.Queue.MaxBytes), MaxEvent: mostEvent, LossRecord: lossRecord,
		}
		if bulk {
			o.MaxEvents = min(o.MaxEvents, bulkEvents)
			// Not so small that it has no room for an event that is admitted.
			o.MaxBytes = min(o.MaxBytes, max(bulkBytes, 2*int64(mostEvent)))
		}
		return queue.NewMemory(o), nil
	}
	q, err := queue.OpenDisk(ctx, queue.DiskOptions{
		Dir: cfg.Queue.Directory, MaxBytes: int64(cfg.Queue.DiskBytes), MaxEvent: mostEvent, LossRecord: lossRecord,
	})
	if err != nil {
		return nil, err // and not a nil *Disk in the interface
	}
	return q, nil
}

// checkReached refuses a queue that ends before what the ledger took from it:
// it is an old copy, and its next events would get positions that others had.
// positions are how far the ledger has come in each queue, by the queue's id.
func checkReached(q queue.Queue, positions map[[16]byte]uint64) error {
	at, taken := uint64(q.Watermarks().Accepted), positions[q.Caps().ID]
	if at < taken {
		return fmt.Errorf("open queue: %w: it ends at %d and the ledger has taken %d events from it; is it an older copy? Put the right one back, or move it away to begin a new one",
			queue.ErrBehind, at, taken)
	}
	return nil
}

// TypeLoss is the event type of a loss record.
const TypeLoss = "audit_host.loss"

// lossRecord makes the event that tells in the ledger how many events were
// refused because the queue was full, and when.
func lossRecord(count uint64, first, last time.Time) (queue.Event, bool) {
	text, err := json.Marshal(map[string]any{
		"agent_id":   "audit-host",
		"event_type": TypeLoss,
		"action": map[string]any{"kind": "queue_full", "refused": count,
			"first": first.UTC().Format(time.RFC3339Nano), "last": last.UTC().Format(time.RFC3339Nano)},
		"decision": map[string]string{"decision": event.KindWarn, "rule_id": "queue_full",
			"reason": fmt.Sprintf("%d events were refused because the queue was full", count)},
	})
	if err != nil {
		return queue.Event{}, false
	}
	e, _, err := event.ParseNative(text, event.Options{})
	if err != nil {
		return queue.Event{}, false
	}
	return queue.Event{ID: e.ID, Payload: abi.AppendRecord(nil, &e)}, true
}
