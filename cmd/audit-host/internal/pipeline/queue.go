package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// Bounds of a queue in memory whose input waits for room: enough to keep two
// batches in flight, and no reason to hold a file in memory.
const (
	bulkEvents = 16 << 10
	bulkBytes  = 32 << 20
)

// Of a queue on disk, in bytes: the size of a segment, and what of it may be in
// memory and not durable yet. Both grow with the largest event.
const (
	segmentBytes = 64 << 20
	bufferBytes  = 16 << 20
)

// openQueue makes the queue that the configuration asks for. positions are how
// far the ledger has come in each queue, by the queue's id: one that ends before
// is an older copy, its next events would get positions that others had, and it
// is refused.
func openQueue(ctx context.Context, cfg *config.Config, bulk bool, positions map[[16]byte]uint64) (queue.Queue, error) {
	mostEvent := int(cfg.HTTP.MaxEvent + config.EventRoom)
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
	if least := config.LeastDisk(cfg.HTTP.MaxEvent); cfg.Queue.DiskBytes < least {
		return nil, fmt.Errorf("open queue %s: queue.disk_bytes (%v) is too small for http.max_event (%v): raise it to %v at least",
			cfg.Queue.Directory, cfg.Queue.DiskBytes, cfg.HTTP.MaxEvent, least)
	}
	id, err := queue.DiskID(cfg.Queue.Directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	q, err := queue.OpenDisk(ctx, queue.DiskOptions{
		Dir: cfg.Queue.Directory, MaxBytes: int64(cfg.Queue.DiskBytes), MaxEvent: mostEvent, LossRecord: lossRecord,
		SegmentBytes: max(min(int64(cfg.Queue.DiskBytes)/8, segmentBytes), 4*int64(mostEvent)),
		MaxBuffered:  max(bufferBytes, 2*int64(mostEvent)),
		AtLeast:      queue.Seq(positions[id]),
	})
	if err != nil {
		return nil, err // and not a nil *Disk in the interface
	}
	if most := q.Caps().MaxEvent; most < mostEvent {
		return nil, errors.Join(fmt.Errorf("open queue %s: it takes events of up to %d bytes, and http.max_event admits %d: raise queue.disk_bytes or lower http.max_event",
			cfg.Queue.Directory, most, mostEvent), closeUnused(ctx, q))
	}
	return q, nil
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
