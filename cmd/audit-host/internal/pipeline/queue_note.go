package pipeline

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/queue"
)

// queueNote is what is remembered of the queues on disk, outside them, in the
// state directory: which one was used last, and which ones took events before and
// were not there at a start. It is written at a start, before an event is taken.
//
// # What it is for
//
// A folder that was not mounted looks like one in which there is no queue yet, and
// a new queue takes events well: what the other one acknowledged would be out of
// sight, and nobody would ask. So a queue that is not where it was is told, in the
// log and by /-/ready, until it is back or an operator accepts that it is gone.
// Where nothing is remembered, as on a new state directory, a ledger that has
// come to a position in some queue says that there was one.
//
// Events are signed when they are delivered. KeyID says that those in the queue
// were acknowledged by a process that was to sign them: one without a key does not
// start while there are such.
type queueNote struct {
	Used    usedQueue   `json:"used"`
	Missing []usedQueue `json:"missing,omitempty"`
}

// usedQueue is a queue on disk.
type usedQueue struct {
	ID    string `json:"id"`               // hexadecimal; "" is none
	KeyID string `json:"key_id,omitempty"` // "" if its events are not to be signed
}

func noteFile(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "queue.json") }

// readNote returns what is remembered; nothing if there is no file.
func readNote(cfg *config.Config) (n queueNote, err error) {
	text, found, err := readSmall(noteFile(cfg))
	if err == nil && found {
		err = json.Unmarshal(text, &n)
	}
	if err != nil {
		err = fmt.Errorf("read which queue was used last, %s: %w; it has no events: remove it if it can't be mended", noteFile(cfg), err)
	}
	return n, err
}

func (n queueNote) save(cfg *config.Config) error {
	if err := saveJSON(noteFile(cfg), n); err != nil {
		return fmt.Errorf("remember which queue is used: %w", err)
	}
	return nil
}

// come notes that the queue of that id is about to be used, "" for one that is to
// be made. positions are those of the ledger.
func (n *queueNote) come(id string, positions map[[16]byte]uint64) {
	switch {
	case id == "" && n.Used.ID == "" && len(n.Missing) == 0:
		for _, known := range slices.SortedFunc(maps.Keys(positions), func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) }) {
			n.Missing = append(n.Missing, usedQueue{ID: hex.EncodeToString(known[:])})
		}
	case n.Used.ID != id:
		if n.Used.ID != "" {
			n.Missing = append(n.Missing, n.Used)
		}
		n.Used = usedQueue{ID: id}
		if i := slices.IndexFunc(n.Missing, func(q usedQueue) bool { return q.ID == id }); i >= 0 {
			n.Used = n.Missing[i]
			n.Missing = slices.Delete(n.Missing, i, i+1)
		}
	}
}

// promise notes that what the queue takes from now on is to be signed with that
// key, "" for none. It refuses to leave unsigned what was to be signed.
func (n *queueNote) promise(cfg *config.Config, q *queue.Disk, keyID string, log *slog.Logger) error {
	was, left := n.Used.KeyID, waiting(q)
	n.Used.KeyID = keyID
	if was == "" || was == keyID || len(left) == 0 {
		return nil
	}
	if keyID == "" {
		return fmt.Errorf("[signing] is not set, and the queue %s has events that were acknowledged when they were to be signed with the key %s (%s): they would land unsigned. "+
			"Set [signing] to that pair, or to another one, until they are delivered; then take it out again", cfg.Queue.Directory, was, strings.Join(left, ", "))
	}
	log.Warn("events were acknowledged when another key was set: they are signed with the one that is set now", slog.String("key_id", keyID),
		slog.String("was", was), slog.String("events", strings.Join(left, ", ")))
	return nil
}

// waiting says how many events of the queue are for whom; nothing if there are
// none.
func waiting(q *queue.Disk) (left []string) {
	for _, c := range q.Cursors() {
		if c.Pending > 0 {
			left = append(left, fmt.Sprintf("%d for sink %s", c.Pending, c.Name))
		}
	}
	if n := q.Watermarks().Events; len(left) == 0 && n > 0 {
		left = append(left, fmt.Sprintf("%d that no sink has seen", n))
	}
	return left
}

// useDisk opens the queue on disk, makes one if there is none, and notes that it
// is used, with events that are to be signed with that key.
func (p *Pipeline) useDisk(ctx context.Context, cfg *config.Config, positions map[[16]byte]uint64) (q *queue.Disk, err error) {
	note, err := readNote(cfg)
	if err != nil {
		return nil, err
	}
	id, err := diskID(cfg)
	if err != nil {
		return nil, err
	}
	// Before one is made: after that nothing would tell it from one that was there.
	if note.come(id, positions); id == "" && len(note.Missing) > 0 {
		if err := note.save(cfg); err != nil {
			return nil, err
		}
	}
	if q, err = openDisk(ctx, cfg, positions, false); err != nil {
		return nil, err
	}
	note.Used.ID = idOf(q)
	if err = note.promise(cfg, q, p.keyID, p.log); err == nil {
		err = note.save(cfg)
	}
	if err != nil {
		return nil, errors.Join(err, closeUnused(ctx, q))
	}
	for _, m := range note.Missing {
		text := missingText(cfg, m.ID, note.Used.ID, positions)
		p.log.Error(text)
		p.Absent = append(p.Absent, text)
	}
	return q, nil
}

func missingText(cfg *config.Config, id, used string, positions map[[16]byte]uint64) string {
	text := fmt.Sprintf("the queue %s is not there, and %s in %s is used instead: what it acknowledged and had not delivered is out of sight", id, used, cfg.Queue.Directory)
	if raw, err := hex.DecodeString(id); err == nil && len(raw) == 16 && positions[[16]byte(raw)] > 0 {
		text += fmt.Sprintf(" (the ledger has come to its event %d)", positions[[16]byte(raw)])
	}
	return text + ". If its volume is not mounted: stop, mount it, start again. If it is gone for good: stop, and audit-host queue accept-loss"
}
