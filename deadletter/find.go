package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// State says whether a letter was resolved.
type State string

// States of a letter.
const (
	StateOpen     State = "open"     // no replay has ended well
	StateResolved State = "resolved" // one has
)

// Filter selects letters: those that meet every condition that is set.
type Filter struct {
	// IDs are numbers of letters. None: all.
	IDs []int64
	// Sink is the name of the sink that refused.
	Sink string
	// EventID is the event's id.
	EventID string
	// Outcome, if not nil, is how the last delivery ended.
	Outcome *abi.Outcome
	// Since and Until bound the time of the failure, to the second: from Since on,
	// and before Until.
	Since, Until time.Time
	// State is open or resolved; "" is both.
	State State
	// After is the cursor: only letters with a larger number. UpTo, if not 0, is
	// the largest number.
	After, UpTo int64
	// Limit is how many at most; 100 if it is 0. It does not bound what is
	// counted.
	Limit int
}

// where returns the condition and its values.
func (f *Filter) where() (string, []any) {
	and, args := []string{"dlq_id > ?"}, []any{f.After}
	add := func(set bool, condition string, values ...any) {
		if set {
			and, args = append(and, condition), append(args, values...)
		}
	}
	second := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05") }
	if len(f.IDs) > 0 {
		var list []any
		for _, id := range f.IDs {
			list = append(list, id)
		}
		add(true, "dlq_id IN (?"+strings.Repeat(",?", len(list)-1)+")", list...)
	}
	add(f.UpTo != 0, "dlq_id <= ?", f.UpTo)
	add(f.Sink != "", "sink = ?", f.Sink)
	add(f.EventID != "", "id = ?", f.EventID)
	if f.Outcome != nil {
		add(true, "outcome = ?", int64(*f.Outcome))
	}
	// The first 19 characters of the text order as the times do.
	add(!f.Since.IsZero(), "substr(failed_at, 1, 19) >= ?", second(f.Since))
	add(!f.Until.IsZero(), "substr(failed_at, 1, 19) < ?", second(f.Until))
	add(f.State == StateOpen, "resolved_at IS NULL")
	add(f.State == StateResolved, "resolved_at IS NOT NULL")
	return "WHERE " + strings.Join(and, " AND "), args
}

func (f *Filter) limit() int64 {
	if f.Limit <= 0 {
		return 100
	}
	return int64(f.Limit)
}

// letterBytes is how many bytes of payloads List reads into memory before it ends
// a page.
const letterBytes = 16 << 20

// errPage ends a page early.
var errPage = errors.New("enough for a page")

// List returns letters in the order of their numbers: as many as the filter's Limit
// says, or fewer, but one at least, where they take more than 16 MiB.
func (d *Store) List(ctx context.Context, f Filter) ([]Letter, error) {
	where, args := f.where()
	letters, err := d.letters(ctx, where+" ORDER BY dlq_id LIMIT ?", append(args, f.limit())...)
	if err != nil {
		return nil, fmt.Errorf("list dead letters of %s: %w", d.path, err)
	}
	return letters, nil
}

// Get returns one letter, or an error that wraps [ErrNoLetter].
func (d *Store) Get(ctx context.Context, dlqID int64) (Letter, error) {
	letters, err := d.letters(ctx, "WHERE dlq_id = ?", dlqID)
	if err == nil && len(letters) == 0 {
		err = ErrNoLetter
	}
	if err != nil {
		return Letter{}, fmt.Errorf("get dead letter %d of %s: %w", dlqID, d.path, err)
	}
	return letters[0], nil
}

// Find returns the latest open letter of a sink with an event's id, or an error
// that wraps [ErrNoLetter].
func (d *Store) Find(ctx context.Context, sink, id string) (Letter, error) {
	return d.find(ctx, id, "WHERE sink = ? AND id = ? AND resolved_at IS NULL ORDER BY dlq_id DESC LIMIT 1", sink, id)
}

// FindContent is Find for the event with that payload, which is told apart from
// others of the same id by its hash.
func (d *Store) FindContent(ctx context.Context, sink, id string, payloadHash [abi.HashSize]byte) (Letter, error) {
	return d.find(ctx, id, "WHERE sink = ? AND id = ? AND payload_hash = ? AND resolved_at IS NULL", sink, id, payloadHash[:])
}

func (d *Store) find(ctx context.Context, id, where string, args ...any) (Letter, error) {
	letters, err := d.letters(ctx, where, args...)
	if err == nil && len(letters) == 0 {
		err = ErrNoLetter
	}
	if err != nil {
		return Letter{}, fmt.Errorf("find dead letter %q of %s: %w", id, d.path, err)
	}
	return letters[0], nil
}

// Tally counts letters.
type Tally struct {
	Open, Resolved uint64
	// Oldest is when the first of the open ones failed; zero if there is none.
	Oldest time.Time
	// Last is the largest number.
	Last int64
}

// Tally counts the letters that a filter selects, whatever its Limit.
func (d *Store) Tally(ctx context.Context, f Filter) (t Tally, err error) {
	where, args := f.where()
	err = d.reading(ctx, func(c *sqlite.Conn) error {
		t = Tally{}
		err := c.Each("SELECT count(*), count(resolved_at), coalesce(max(dlq_id), 0) FROM "+d.from+" "+where, args, func(s *sqlite.Stmt) error {
			t.Open, t.Resolved, t.Last = uint64(s.Integer(0)-s.Integer(1)), uint64(s.Integer(1)), s.Integer(2)
			return nil
		})
		if err != nil || t.Open == 0 {
			return err
		}
		// Numbers are given in the order of the failures.
		return c.Each("SELECT failed_at FROM "+d.from+" "+where+" AND resolved_at IS NULL ORDER BY dlq_id LIMIT 1", args, func(s *sqlite.Stmt) (err error) {
			t.Oldest, err = time.Parse(time.RFC3339Nano, s.Text(0))
			return err
		})
	})
	if err != nil {
		return Tally{}, fmt.Errorf("count dead letters of %s: %w", d.path, err)
	}
	return t, nil
}

// Count returns how many letters there are, of one sink or, with "", of all.
func (d *Store) Count(ctx context.Context, sink string) (uint64, error) {
	t, err := d.Tally(ctx, Filter{Sink: sink})
	return t.Open + t.Resolved, err
}

func (d *Store) letters(ctx context.Context, where string, args ...any) (letters []Letter, err error) {
	err = d.reading(ctx, func(c *sqlite.Conn) error {
		letters = nil
		size := 0
		err := c.Each("SELECT "+deadLetterColumns+", resolved_at, resolution, replayed_at, replays FROM "+d.from+" "+where, args, func(s *sqlite.Stmt) error {
			l, err := readLetter(s)
			letters = append(letters, l)
			if size += len(l.Event.Payload) + len(l.Raw); err == nil && size > letterBytes {
				err = errPage
			}
			return err
		})
		if errors.Is(err, errPage) {
			err = nil
		}
		return err
	})
	return letters, err
}

func readLetter(s *sqlite.Stmt) (Letter, error) {
	l := Letter{DLQID: s.Integer(0)}
	e := &l.Event
	e.ID, e.AgentID, e.EventType = s.Text(1), s.Text(2), s.Text(3)
	copy(e.PayloadHash[:], s.Bytes(4))
	e.Signature, e.AttestLevel, e.Timestamp = s.Bytes(5), s.Text(6), s.Text(7)
	l.Reason = s.Text(8)
	e.Payload, l.Sink, l.Plugin = s.Bytes(10), s.Text(11), s.Text(12)
	l.Outcome, l.Attempts, l.Stderr = abi.Outcome(s.Integer(13)), uint32(s.Integer(14)), s.Text(15)
	e.Seq, e.KeyID, e.Minted, l.Raw = uint64(s.Integer(16)), s.Text(17), s.Integer(18) != 0, s.Bytes(19)
	l.Resolution, l.Replays = s.Text(21), uint32(s.Integer(23))
	if l.Raw != nil {
		// The hash is that of Raw, for the index; the event itself has none.
		e.Payload, e.PayloadHash = nil, [abi.HashSize]byte{}
	}
	for _, t := range []struct {
		column int
		name   string
		into   *time.Time
	}{{9, "failed_at", &l.FailedAt}, {20, "resolved_at", &l.ResolvedAt}, {22, "replayed_at", &l.ReplayedAt}} {
		text := s.Text(t.column)
		if text == "" && t.column != 9 {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return l, fmt.Errorf("dead letter %d: read %s: %w", l.DLQID, t.name, err)
		}
		*t.into = at
	}
	return l, nil
}
