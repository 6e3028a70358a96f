package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// deadLetterSchema makes the table. The ten columns of the source system come
// first and keep their names.
//
// The unique index makes Put idempotent. It includes the hash of the content:
// another event under the same id is another letter, and dropping it would be
// a loss.
const deadLetterSchema = `CREATE TABLE IF NOT EXISTS signed_events_dlq (
  dlq_id INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  payload_hash BLOB NOT NULL,
  signature BLOB,
  attest_level TEXT NOT NULL DEFAULT 'unsigned',
  timestamp TEXT NOT NULL,
  failure_reason TEXT NOT NULL,
  failed_at TEXT NOT NULL,
  payload TEXT NOT NULL,
  sink TEXT NOT NULL,
  plugin TEXT NOT NULL,
  outcome INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  stderr TEXT NOT NULL,
  seq INTEGER NOT NULL,
  key_id TEXT,
  timestamp_minted INTEGER NOT NULL,
  raw BLOB
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS idx_signed_events_dlq_letter ON signed_events_dlq(sink, id, payload_hash)`

const deadLetterColumns = `dlq_id, id, agent_id, event_type, payload_hash, signature, attest_level, timestamp, failure_reason, failed_at,
  payload, sink, plugin, outcome, attempts, stderr, seq, key_id, timestamp_minted, raw`

// deadLetterID is SQLite's application_id of the file ("AHD1").
const deadLetterID = 0x41484431

// deadLetterTime bounds one operation.
const deadLetterTime = 30 * time.Second

// ErrNoLetter is returned by [DeadLetters.Get] for an id that is not there.
var ErrNoLetter = errors.New("no such dead letter")

// Letter is a dead letter with its number in the database.
type Letter struct {
	// DLQID is dlq_id: larger is later, and numbers are never used again.
	DLQID int64
	abi.DeadLetter
}

// LetterFilter selects letters.
type LetterFilter struct {
	// Sink selects the letters of one sink; "" is all.
	Sink string
	// After is the cursor: only letters with a larger number.
	After int64
	// Limit is how many at most; 100 if it is 0.
	Limit int
}

// DeadLetters keeps the events that no sink took, in a database of its own, so
// that it does not fail together with a ledger. It is safe for concurrent use
// and by several processes.
//
// Guarantee: a letter that Put has returned nil for is on disk. Not
// guaranteed: protection from whoever may write the file.
type DeadLetters struct {
	path string
	turn chan struct{} // holds one token: the right to use what follows
	file dbFile
	read *dbReader // set instead of file for a read-only one
}

// OpenDeadLetters opens the dead-letter database at path and makes it, mode
// 0600, if it is not there.
func OpenDeadLetters(path string) (*DeadLetters, error) {
	d := &DeadLetters{path: path, turn: make(chan struct{}, 1)}
	d.file = dbFile{path: path, create: true, options: dbOptions{busy: 10 * time.Second}, opened: prepareDeadLetters}
	if err := d.write(context.Background(), func(*dbConn) error { return nil }); err != nil {
		return nil, fmt.Errorf("open dead letters: %w", errors.Join(err, d.Close()))
	}
	return d, nil
}

// OpenDeadLettersReadOnly opens the dead-letter database at path for List, Get
// and Count, beside a process that writes it or without one.
func OpenDeadLettersReadOnly(path string) (*DeadLetters, error) {
	r, err := openReader(context.Background(), path)
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	d := &DeadLetters{path: path, turn: make(chan struct{}, 1), read: r}
	if err := d.reading(context.Background(), checkDeadLetters); err != nil {
		return nil, fmt.Errorf("open dead letters: %w", errors.Join(err, d.Close()))
	}
	return d, nil
}

func prepareDeadLetters(c *dbConn) error {
	id, err := c.value("PRAGMA application_id")
	if err != nil {
		return err
	}
	n, err := c.value("SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return err
	}
	if n == "0" && id == "0" {
		if err := c.begin(true); err != nil {
			return err
		}
		if err := c.exec(fmt.Sprintf("%s; PRAGMA application_id = %d; PRAGMA user_version = 1", deadLetterSchema, deadLetterID)); err != nil {
			return err
		}
		return c.commit()
	}
	return checkDeadLetters(c)
}

func checkDeadLetters(c *dbConn) error {
	id, err := c.value("PRAGMA application_id")
	if err != nil {
		return err
	}
	if id != fmt.Sprint(deadLetterID) {
		return fmt.Errorf("%s is another database (application_id %s, wanted %d); give the dead letters a file of their own", c.path, id, deadLetterID)
	}
	return nil
}

// locked waits for its turn and bounds the time.
func (d *DeadLetters) locked(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadLetterTime)
	defer cancel()
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-d.turn }()
	return do(ctx)
}

func (d *DeadLetters) write(ctx context.Context, do func(*dbConn) error) error {
	return d.locked(ctx, func(ctx context.Context) error {
		if d.read != nil {
			return errors.New("opened for reading only")
		}
		return d.file.transact(ctx, true, do)
	})
}

func (d *DeadLetters) reading(ctx context.Context, do func(*dbConn) error) error {
	return d.locked(ctx, func(ctx context.Context) error {
		if d.read != nil {
			return d.read.do(ctx, do)
		}
		return d.file.transact(ctx, false, do)
	})
}

// Put stores letters, all or none. One that is there already, with the same
// sink, id and content, stays as it was first put. A letter without an id gets
// one made of its content.
func (d *DeadLetters) Put(ctx context.Context, letters []abi.DeadLetter) error {
	if len(letters) == 0 {
		return nil
	}
	err := d.write(ctx, func(c *dbConn) error {
		s, err := c.prepareOwn("INSERT INTO signed_events_dlq (" + deadLetterColumns + `)
			VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (sink, id, payload_hash) DO NOTHING`)
		if err != nil {
			return err
		}
		for i := range letters {
			if err = putLetter(s, &letters[i]); err != nil {
				break
			}
		}
		return errors.Join(err, s.close())
	})
	if err != nil {
		return fmt.Errorf("put %d dead letters into %s: %w", len(letters), d.path, err)
	}
	return nil
}

func putLetter(s *dbStmt, l *abi.DeadLetter) error {
	e := &l.Event
	hash := e.PayloadHash
	switch {
	case l.Raw != nil:
		hash = sha256.Sum256(l.Raw)
	case hash == [abi.HashSize]byte{}:
		hash = sha256.Sum256(e.Payload)
	}
	id := e.ID
	if id == "" {
		id = "sha256:" + hex.EncodeToString(hash[:])
	}
	level := e.AttestLevel
	if level == "" {
		level = abi.AttestUnsigned
	}
	minted := int64(0)
	if e.Minted {
		minted = 1
	}
	for i, v := range []any{
		id, e.AgentID, e.EventType, hash[:], e.Signature, level, e.Timestamp, l.Reason,
		l.FailedAt.UTC().Format(time.RFC3339Nano), string(e.Payload), l.Sink, l.Plugin, int64(l.Outcome), int64(l.Attempts),
		l.Stderr, int64(e.Seq), nullIfEmpty(e.KeyID), minted, l.Raw,
	} {
		if err := s.set(i+1, v); err != nil {
			return err
		}
	}
	return s.run()
}

func nullIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// List returns letters in the order of their numbers.
func (d *DeadLetters) List(ctx context.Context, f LetterFilter) ([]Letter, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	letters, err := d.letters(ctx, "WHERE dlq_id > ? AND (? = '' OR sink = ?) ORDER BY dlq_id LIMIT ?", f.After, f.Sink, f.Sink, int64(f.Limit))
	if err != nil {
		return nil, fmt.Errorf("list dead letters of %s: %w", d.path, err)
	}
	return letters, nil
}

// Get returns one letter, or an error that wraps [ErrNoLetter].
func (d *DeadLetters) Get(ctx context.Context, dlqID int64) (Letter, error) {
	letters, err := d.letters(ctx, "WHERE dlq_id = ?", dlqID)
	if err == nil && len(letters) == 0 {
		err = ErrNoLetter
	}
	if err != nil {
		return Letter{}, fmt.Errorf("get dead letter %d of %s: %w", dlqID, d.path, err)
	}
	return letters[0], nil
}

func (d *DeadLetters) letters(ctx context.Context, where string, args ...any) (letters []Letter, err error) {
	err = d.reading(ctx, func(c *dbConn) error {
		letters = nil
		return c.each("SELECT "+deadLetterColumns+" FROM signed_events_dlq "+where, args, func(s *dbStmt) error {
			l, err := readLetter(s)
			letters = append(letters, l)
			return err
		})
	})
	return letters, err
}

func readLetter(s *dbStmt) (Letter, error) {
	l := Letter{DLQID: s.integer(0)}
	e := &l.Event
	e.ID, e.AgentID, e.EventType = s.string(1), s.string(2), s.string(3)
	copy(e.PayloadHash[:], s.bytes(4))
	e.Signature, e.AttestLevel, e.Timestamp = s.bytes(5), s.string(6), s.string(7)
	l.Reason = s.string(8)
	at, err := time.Parse(time.RFC3339Nano, s.string(9))
	if err != nil {
		return l, fmt.Errorf("dead letter %d: read failed_at: %w", l.DLQID, err)
	}
	l.FailedAt = at
	e.Payload, l.Sink, l.Plugin = s.bytes(10), s.string(11), s.string(12)
	l.Outcome, l.Attempts, l.Stderr = abi.Outcome(s.integer(13)), uint32(s.integer(14)), s.string(15)
	e.Seq, e.KeyID, e.Minted, l.Raw = uint64(s.integer(16)), s.string(17), s.integer(18) != 0, s.bytes(19)
	if l.Raw != nil {
		// The hash is that of Raw, for the index; the event itself has none.
		e.Payload, e.PayloadHash = nil, [abi.HashSize]byte{}
	}
	return l, nil
}

// Count returns how many letters there are, of one sink or, with "", of all.
func (d *DeadLetters) Count(ctx context.Context, sink string) (uint64, error) {
	var n int64
	err := d.reading(ctx, func(c *dbConn) error {
		return c.each("SELECT count(*) FROM signed_events_dlq WHERE ? = '' OR sink = ?", []any{sink, sink}, func(s *dbStmt) error {
			n = s.integer(0)
			return nil
		})
	})
	if err != nil {
		return 0, fmt.Errorf("count dead letters of %s: %w", d.path, err)
	}
	return uint64(n), nil
}

// Delete removes letters by their numbers, all or none, and returns how many
// were there.
func (d *DeadLetters) Delete(ctx context.Context, dlqIDs []int64) (int, error) {
	n := 0
	err := d.write(ctx, func(c *dbConn) error {
		n = 0
		for _, id := range dlqIDs {
			if err := c.each("DELETE FROM signed_events_dlq WHERE dlq_id = ? RETURNING dlq_id", []any{id}, func(*dbStmt) error {
				n++
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("delete dead letters of %s: %w", d.path, err)
	}
	return n, nil
}

// Close writes the log back into the file and closes it.
func (d *DeadLetters) Close() error {
	err := d.locked(context.Background(), func(context.Context) error {
		if d.read != nil {
			return d.read.close()
		}
		return d.file.close()
	})
	if err != nil {
		return fmt.Errorf("close dead letters: %w", err)
	}
	return nil
}
