package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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

// The sources by which refused events are told apart; [queue.SourceGo] is that of
// a caller in Go.
const (
	SourceHTTP   = "http"   // POST /v1/events
	SourceOPA    = "opa"    // POST /logs
	SourceIngest = "ingest" // audit-host ingest
)

// lossRecord makes the event that tells in the ledger what was refused because
// the queue was full.
func lossRecord(r queue.Refusals) (queue.Event, bool) {
	e, err := gapOf(r).Event(event.Options{})
	if err != nil {
		return queue.Event{}, false
	}
	return queue.Event{ID: e.ID, Payload: abi.AppendRecord(nil, &e)}, true
}

func gapOf(r queue.Refusals) event.Gap {
	var g event.Gap
	for _, s := range r.Sources {
		g.Sources = append(g.Sources, event.GapSource(s))
	}
	return g
}
