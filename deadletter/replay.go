package deadletter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// Replay is what a replay did to a letter.
type Replay struct {
	DLQID int64
	At    time.Time
	// Attempts are the deliveries of this replay.
	Attempts uint32
	// Resolution, if not empty, resolves the letter and says how.
	Resolution string
	// Refused says that the letter stays open for the reasons that follow.
	// Without it and without Resolution the letter keeps those it has.
	Refused                bool
	Outcome                abi.Outcome
	Reason, Stderr, Plugin string
}

// RecordReplays notes what a replay did to letters, all or none. A letter that
// was resolved, reopened or removed since is left as it is now.
//
// It is the last step of a replay: before it the event is where it belongs. A
// crash before it leaves the letter open, and its next replay finds the event
// stored.
func (d *Store) RecordReplays(ctx context.Context, replays []Replay) error {
	if len(replays) == 0 {
		return nil
	}
	err := d.write(ctx, func(c *sqlite.Conn) error {
		for i := range replays {
			if err := recordReplay(c, &replays[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note %d replays in %s: %w", len(replays), d.path, err)
	}
	return nil
}

func recordReplay(c *sqlite.Conn, r *Replay) error {
	at := r.At.UTC().Format(time.RFC3339Nano)
	set := "replayed_at = ?, replays = replays + 1, attempts = attempts + ?"
	args := []any{at, int64(r.Attempts)}
	switch {
	case r.Resolution != "":
		set += ", resolved_at = ?, resolution = ?"
		args = append(args, at, r.Resolution)
	case r.Refused:
		set += ", outcome = ?, failure_reason = ?, stderr = ?, plugin = ?"
		args = append(args, int64(r.Outcome), r.Reason, r.Stderr, r.Plugin)
	}
	args = append(args, r.DLQID)
	return c.Each("UPDATE signed_events_dlq SET "+set+" WHERE dlq_id = ? AND resolved_at IS NULL", args,
		func(*sqlite.Stmt) error { return errors.New("an update has no rows") })
}

// Purge removes letters that a filter selects, the first ones up to its Limit,
// all or none, and returns their numbers. What is selected is decided in the
// transaction that removes it: a letter that was opened again meanwhile is not
// taken for a resolved one.
func (d *Store) Purge(ctx context.Context, f Filter) (ids []int64, err error) {
	where, args := f.where()
	args = append(args, f.limit())
	err = d.write(ctx, func(c *sqlite.Conn) error {
		ids = nil
		return c.Each("DELETE FROM signed_events_dlq WHERE dlq_id IN (SELECT dlq_id FROM signed_events_dlq "+where+" ORDER BY dlq_id LIMIT ?) RETURNING dlq_id",
			args, func(s *sqlite.Stmt) error {
				ids = append(ids, s.Integer(0))
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("purge dead letters of %s: %w", d.path, err)
	}
	return ids, nil
}
