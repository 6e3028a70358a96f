package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

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
func (p *Pipeline) openQueue(ctx context.Context, cfg *config.Config, bulk bool, positions map[[16]byte]uint64) (queue.Queue, error) {
	if cfg.Queue.Backend == "memory" {
		if err := leftOnDisk(ctx, cfg); err != nil {
			return nil, err
		}
		return newMemory(cfg, bulk), nil
	}
	q, err := p.useDisk(ctx, cfg, positions)
	if err != nil {
		return nil, err // and not a nil *Disk in the interface
	}
	return q, nil
}

// mostEvent is the largest record of an event that is admitted, in bytes.
func mostEvent(cfg *config.Config) int { return int(cfg.HTTP.MaxEvent + config.EventRoom) }

func newMemory(cfg *config.Config, bulk bool) *queue.Memory {
	o := queue.MemoryOptions{
		MaxEvents: cfg.Queue.MaxEvents, MaxBytes: int64(cfg.Queue.MaxBytes), MaxEvent: mostEvent(cfg), LossRecord: lossRecord,
	}
	if bulk {
		o.MaxEvents = min(o.MaxEvents, bulkEvents)
		// Not so small that it has no room for an event that is admitted.
		o.MaxBytes = min(o.MaxBytes, max(bulkBytes, 2*int64(o.MaxEvent)))
	}
	return queue.NewMemory(o)
}

// diskID is the id of the queue on disk, hexadecimal; "" if there is none.
func diskID(cfg *config.Config) (string, error) {
	id, err := queue.DiskID(cfg.Queue.Directory)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return hex.EncodeToString(id[:]), err
}

func idOf(q *queue.Disk) string {
	id := q.Caps().ID
	return hex.EncodeToString(id[:])
}

// openDisk opens the queue on disk. One that lacks its oldest segments is refused,
// unless the loss is to be accepted.
func openDisk(ctx context.Context, cfg *config.Config, positions map[[16]byte]uint64, acceptLoss bool) (*queue.Disk, error) {
	if least := config.LeastDisk(cfg.HTTP.MaxEvent); cfg.Queue.DiskBytes < least {
		return nil, fmt.Errorf("open queue %s: queue.disk_bytes (%v) is too small for http.max_event (%v): raise it to %v at least",
			cfg.Queue.Directory, cfg.Queue.DiskBytes, cfg.HTTP.MaxEvent, least)
	}
	id, err := queue.DiskID(cfg.Queue.Directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	most := mostEvent(cfg)
	q, err := queue.OpenDisk(ctx, queue.DiskOptions{
		Dir: cfg.Queue.Directory, MaxBytes: int64(cfg.Queue.DiskBytes), MaxEvent: most, LossRecord: lossRecord,
		SegmentBytes: max(min(int64(cfg.Queue.DiskBytes)/8, segmentBytes), 4*int64(most)),
		MaxBuffered:  max(bufferBytes, 2*int64(most)),
		AtLeast:      queue.Seq(positions[id]), AcceptLoss: acceptLoss,
	})
	if loss := new(queue.LossError); errors.As(err, &loss) {
		if at, ok := positions[id]; ok {
			err = fmt.Errorf("%w (the ledger has come to %d)", err, at)
		}
		return nil, fmt.Errorf("%w. Put the segments that begin before %d back; if they are gone for good: audit-host queue accept-loss", err, loss.To+1)
	}
	if err != nil {
		return nil, err
	}
	if can := q.Caps().MaxEvent; can < most {
		return nil, errors.Join(fmt.Errorf("open queue %s: it takes events of up to %d bytes, and http.max_event admits %d: raise queue.disk_bytes or lower http.max_event",
			cfg.Queue.Directory, can, most), closeUnused(ctx, q))
	}
	return q, nil
}

// leftOnDisk refuses to go on in memory while the queue on disk, from the time
// before, has events that were acknowledged and that a sink has not taken: nobody
// would deliver them, and nobody would notice.
func leftOnDisk(ctx context.Context, cfg *config.Config) (err error) {
	_, err = queue.DiskID(cfg.Queue.Directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	const mend = `set queue.backend = "disk" again until they are delivered, or give them up: move the directory away`
	var q *queue.Disk
	if err == nil {
		q, err = openDisk(ctx, cfg, nil, false)
	}
	if err != nil {
		return fmt.Errorf("queue.backend is memory, and it can't be told whether the queue on disk, %s, still has events to deliver: %w; %s",
			cfg.Queue.Directory, err, mend)
	}
	defer func() { err = errors.Join(err, closeUnused(ctx, q)) }()
	if left := waiting(q); len(left) > 0 {
		return fmt.Errorf("queue.backend is memory, and the queue on disk, %s, still has acknowledged events to deliver (%s): %s",
			cfg.Queue.Directory, strings.Join(left, ", "), mend)
	}
	return nil
}

// SourceIngest is the source, by which refused events are told apart, of audit-host
// ingest. What is posted has that of its [event.Format], a caller in Go
// [queue.SourceGo].
const SourceIngest = "ingest"

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
