package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/statedir"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// TypeLossAccepted is the event type of the record that events of a queue are
// lost, and that an operator knows.
const TypeLossAccepted = "audit.loss_accepted"

// Loss is what a queue on disk lacks.
type Loss struct {
	Queue string // its id, hexadecimal; "" if there is none
	// From and To are the events that a consumer had not acknowledged and that are
	// gone with the oldest segments; To is 0 if there are none.
	From, To uint64
	// Missing are the ids of queues that took events before and are not there.
	Missing []string
}

// None tells whether nothing is lacking.
func (l Loss) None() bool { return l.To == 0 && len(l.Missing) == 0 }

// AcceptLoss has a configuration's queue on disk go on without the events that it
// lost, and puts a record of it into the queue. Without write it only says what
// they are. It needs the state directory for itself.
//
// The record is durable before the loss is: a crash in between leaves the queue as
// it was, and accepting it again does the same.
func AcceptLoss(ctx context.Context, cfg *config.Config, write bool) (l Loss, err error) {
	if cfg.Queue.Backend != "disk" {
		return l, errors.New("queue.backend is memory: there is no queue that could have lost something")
	}
	state, err := statedir.Open(cfg.StateDir)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	var positions map[[16]byte]uint64
	if sink, ok := cfg.Ledger(); ok {
		// One that went back is another matter, for accept-head.
		if _, positions, _, err = openHead(ctx, slog.New(slog.DiscardHandler), sink.Grant.SQL.Database, Head{}, write); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	}
	note, err := readNote(cfg)
	if err != nil {
		return l, err
	}
	if l.Queue, err = diskID(cfg); err != nil {
		return l, err
	}
	note.come(l.Queue, positions)
	for _, m := range note.Missing {
		l.Missing = append(l.Missing, m.ID)
	}
	if l.Queue == "" && (!write || l.None()) {
		return l, nil // nothing is made for the sake of looking
	}
	q, err := openDisk(ctx, cfg, positions, write)
	gone := new(queue.LossError)
	switch {
	case err == nil:
		gone = q.Loss()
	case !errors.As(err, &gone):
		return l, err
	}
	if gone != nil {
		l.From, l.To = uint64(gone.From), uint64(gone.To)
	}
	if err != nil {
		return l, nil // and it was only asked what is missing
	}
	if l.Queue = idOf(q); write && !l.None() {
		err = l.record(ctx, q)
	}
	if err = errors.Join(err, closeUnused(ctx, q)); err != nil || !write || len(l.Missing) == 0 {
		return l, err
	}
	note.Used.ID, note.Missing = l.Queue, nil
	return l, note.save(cfg)
}

// record puts the event that tells of it into the queue.
func (l Loss) record(ctx context.Context, q *queue.Disk) error {
	action, err := json.Marshal(struct {
		Kind    string   `json:"kind"`
		Queue   string   `json:"queue"`
		From    uint64   `json:"from,omitempty"`
		To      uint64   `json:"to,omitempty"`
		Missing []string `json:"missing_queues,omitempty"`
	}{TypeLossAccepted, l.Queue, l.From, l.To, l.Missing})
	if err != nil {
		return err
	}
	return record(ctx, q, TypeLossAccepted, string(action), event.Decision{Kind: event.KindWarn, RuleID: "loss_accepted",
		Reason: "an operator accepted that acknowledged events are lost with a part of the queue, or with another one"})
}
