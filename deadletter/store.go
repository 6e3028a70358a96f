package deadletter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// deadLetterSchema makes the table. The ten columns of the source system come
// first and keep their names.
// The second version adds the replays, by deadLetterUpgrade.
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

// deadLetterUpgrade makes the second version of the first. A letter is open until
// resolved_at is set.
const deadLetterUpgrade = `ALTER TABLE signed_events_dlq ADD COLUMN resolved_at TEXT;
ALTER TABLE signed_events_dlq ADD COLUMN resolution TEXT;
ALTER TABLE signed_events_dlq ADD COLUMN replayed_at TEXT;
ALTER TABLE signed_events_dlq ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS idx_signed_events_dlq_open ON signed_events_dlq(sink) WHERE resolved_at IS NULL;
PRAGMA user_version = 2`

// deadLetterVersion is SQLite's user_version of the present form.
const deadLetterVersion = 2

// What is selected from. A file of the first version that nobody may write reads
// as one in which nothing was replayed yet.
const (
	deadLetterTable   = "signed_events_dlq"
	deadLetterTableV1 = "(SELECT *, NULL AS resolved_at, NULL AS resolution, NULL AS replayed_at, 0 AS replays FROM signed_events_dlq)"
)

const deadLetterColumns = `dlq_id, id, agent_id, event_type, payload_hash, signature, attest_level, timestamp, failure_reason, failed_at,
  payload, sink, plugin, outcome, attempts, stderr, seq, key_id, timestamp_minted, raw`

// deadLetterID is SQLite's application_id of the file ("AHD1").
const deadLetterID = 0x41484431

// deadLetterTime bounds one operation.
const deadLetterTime = 30 * time.Second

// ErrNoLetter is returned by [DeadLetters.Get] for an id that is not there.
var ErrNoLetter = errors.New("no such dead letter")

// Letter is a dead letter with its number in the database, and with what became
// of it since.
type Letter struct {
	// DLQID is dlq_id: larger is later, and numbers are never used again.
	DLQID int64
	abi.DeadLetter
	// ResolvedAt is when a replay ended well; zero for a letter that is open.
	// Resolution says how.
	ResolvedAt time.Time
	Resolution string
	// ReplayedAt is when it was last replayed, zero for never; Replays how often.
	ReplayedAt time.Time
	Replays    uint32
}

// Store keeps the events that no sink took, in a database of its own, so
// that it does not fail together with a ledger. It is safe for concurrent use
// and by several processes.
//
// Guarantee: a letter that Put has returned nil for is on disk. Not
// guaranteed: protection from whoever may write the file.
type Store struct {
	path string
	turn chan struct{} // holds one token: the right to use what follows
	file sqlite.File
	read *sqlite.Reader // set instead of file for a read-only one
	from string         // the table, or what stands for it
}

// Open opens the dead-letter database at path and makes it, mode
// 0600, if it is not there.
func Open(path string) (*Store, error) {
	d := &Store{path: path, turn: make(chan struct{}, 1), from: deadLetterTable}
	d.file = sqlite.File{Path: path, Create: true, Options: sqlite.Options{Busy: 10 * time.Second}, Opened: prepareDeadLetters}
	if err := d.write(context.Background(), func(*sqlite.Conn) error { return nil }); err != nil {
		return nil, fmt.Errorf("open dead letters: %w", errors.Join(err, d.Close()))
	}
	return d, nil
}

// OpenReadOnly opens the dead-letter database at path for List, Get
// and Count, beside a process that writes it or without one.
func OpenReadOnly(path string) (*Store, error) {
	r, err := sqlite.OpenReader(context.Background(), path)
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	d := &Store{path: path, turn: make(chan struct{}, 1), read: r, from: deadLetterTable}
	if err := d.reading(context.Background(), func(c *sqlite.Conn) error {
		version, err := checkDeadLetters(c)
		if version == 1 {
			d.from = deadLetterTableV1
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("open dead letters: %w", errors.Join(err, d.Close()))
	}
	return d, nil
}

func prepareDeadLetters(c *sqlite.Conn) error {
	id, err := c.Value("PRAGMA application_id")
	if err != nil {
		return err
	}
	n, err := c.Value("SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return err
	}
	if n == "0" && id == "0" {
		return upgradeDeadLetters(c, fmt.Sprintf("%s; PRAGMA application_id = %d; %s", deadLetterSchema, deadLetterID, deadLetterUpgrade))
	}
	version, err := checkDeadLetters(c)
	if err == nil && version == 1 {
		err = upgradeDeadLetters(c, deadLetterUpgrade)
	}
	return err
}

// upgradeDeadLetters runs statements, all or none.
func upgradeDeadLetters(c *sqlite.Conn, sql string) error {
	if err := c.Begin(true); err != nil {
		return err
	}
	if err := c.Exec(sql); err != nil {
		return errors.Join(err, c.Rollback())
	}
	return c.Commit()
}

// checkDeadLetters refuses what is no dead-letter database of a known version.
func checkDeadLetters(c *sqlite.Conn) (version int, err error) {
	id, err := c.Value("PRAGMA application_id")
	if err != nil {
		return 0, err
	}
	if id != fmt.Sprint(deadLetterID) {
		return 0, fmt.Errorf("%s is another database (application_id %s, wanted %d); give the dead letters a file of their own", c.Path, id, deadLetterID)
	}
	text, err := c.Value("PRAGMA user_version")
	if err != nil {
		return 0, err
	}
	if version, err = strconv.Atoi(text); err != nil || version < 1 || version > deadLetterVersion {
		return 0, fmt.Errorf("%s has the format %s, this audit-host knows 1 to %d; use the one that made it", c.Path, text, deadLetterVersion)
	}
	return version, nil
}

// locked waits for its turn and bounds the time.
func (d *Store) locked(ctx context.Context, do func(context.Context) error) error {
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

func (d *Store) write(ctx context.Context, do func(*sqlite.Conn) error) error {
	return d.locked(ctx, func(ctx context.Context) error {
		if d.read != nil {
			return errors.New("opened for reading only")
		}
		return d.file.Transact(ctx, true, do)
	})
}

func (d *Store) reading(ctx context.Context, do func(*sqlite.Conn) error) error {
	return d.locked(ctx, func(ctx context.Context) error {
		if d.read != nil {
			return d.read.Do(ctx, do)
		}
		return d.file.Transact(ctx, false, do)
	})
}

// OnDisk says why it is not known that what was read is on disk; nil if it is known.
// See [Ledger.OnDisk]. Where the store is open to write, it is known.
func (d *Store) OnDisk() error {
	if d.read == nil {
		return nil
	}
	return d.read.OnDisk()
}

// Put stores letters, all or none. One that is there already, with the same
// sink, id and content, stays as it was first put; if it had been resolved it is
// open again, because an event that was refused must be an open letter. A letter
// without an id gets one made of its content.
func (d *Store) Put(ctx context.Context, letters []abi.DeadLetter) error {
	if len(letters) == 0 {
		return nil
	}
	err := d.write(ctx, func(c *sqlite.Conn) error {
		s, err := c.PrepareOwn("INSERT INTO signed_events_dlq (" + deadLetterColumns + `)
			VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (sink, id, payload_hash) DO UPDATE SET
			resolved_at = NULL, resolution = NULL, failed_at = excluded.failed_at, failure_reason = excluded.failure_reason,
			outcome = excluded.outcome, stderr = excluded.stderr, plugin = excluded.plugin, seq = excluded.seq,
			attempts = attempts + excluded.attempts WHERE resolved_at IS NOT NULL`)
		if err != nil {
			return err
		}
		for i := range letters {
			if err = putLetter(s, &letters[i]); err != nil {
				break
			}
		}
		return errors.Join(err, s.Close())
	})
	if err != nil {
		return fmt.Errorf("put %d dead letters into %s: %w", len(letters), d.path, err)
	}
	return nil
}

func putLetter(s *sqlite.Stmt, l *abi.DeadLetter) error {
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
		if err := s.Set(i+1, v); err != nil {
			return err
		}
	}
	return s.Run()
}

func nullIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// Close writes the log back into the file and closes it.
func (d *Store) Close() error {
	err := d.locked(context.Background(), func(context.Context) error {
		if d.read != nil {
			return d.read.Close()
		}
		return d.file.Close()
	})
	if err != nil {
		return fmt.Errorf("close dead letters: %w", err)
	}
	return nil
}
