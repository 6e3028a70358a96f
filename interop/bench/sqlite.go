package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	_ "github.com/mattn/go-sqlite3" // SQLite through cgo

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// openSQLite opens a database on one connection, which it keeps.
func openSQLite(ctx context.Context, path, synchronous string, pages int, schema ...string) (*sql.Conn, func() error, error) {
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		return nil, nil, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	stop := func() error { return errors.Join(c.Close(), db.Close()) }
	for _, s := range append([]string{"PRAGMA journal_mode = WAL", "PRAGMA synchronous = " + synchronous,
		fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", pages)}, schema...) {
		if _, err := c.ExecContext(ctx, s); err != nil {
			return nil, nil, errors.Join(err, stop())
		}
	}
	return c, stop, nil
}

// sourceSchema are the source system's table and its five indexes, that of the
// primary key among them.
var sourceSchema = []string{`CREATE TABLE signed_events (
	id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, event_type TEXT NOT NULL,
	payload_hash BLOB NOT NULL, signature BLOB, attest_level TEXT NOT NULL DEFAULT 'unsigned',
	timestamp TEXT NOT NULL, prev_hash BLOB, sequence INTEGER)`,
	"CREATE UNIQUE INDEX idx_signed_events_sequence ON signed_events(sequence)",
	"CREATE INDEX idx_signed_events_agent ON signed_events(agent_id)",
	"CREATE INDEX idx_signed_events_type ON signed_events(event_type)",
	"CREATE INDEX idx_signed_events_time ON signed_events(timestamp)",
}

// source lands events as the source system does: one IMMEDIATE transaction
// each, the head read and hashed in it, a random id, signed in the writer.
func source(synchronous string, last time.Duration) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) (_ []value, err error) {
		c, stop, err := openSQLite(ctx, filepath.Join(dir, "source.db"), synchronous, 1000, sourceSchema...)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		head, err := c.PrepareContext(ctx, `SELECT id, agent_id, event_type, payload_hash, signature, attest_level, timestamp, sequence
			FROM signed_events WHERE sequence IS NOT NULL ORDER BY sequence DESC LIMIT 1`)
		if err != nil {
			return nil, err
		}
		insert, err := c.PrepareContext(ctx, "INSERT INTO signed_events VALUES (?,?,?,?,?,?,?,?,?)")
		if err != nil {
			return nil, err
		}
		key := ed25519.NewKeyFromSeed(make([]byte, 32))
		elapsed, n := stopwatch(), 0
		err = lines(b.minted, func(line []byte) error {
			if elapsed() > last {
				return errEnough
			}
			e, _, err := event.ParseNative(line, event.Options{})
			if err != nil {
				return err
			}
			if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
				return err
			}
			var id, agent, typ, level, at string
			var hash, signature []byte
			var sequence uint64
			prev := make([]byte, 32)
			switch err := head.QueryRowContext(ctx).Scan(&id, &agent, &typ, &hash, &signature, &level, &at, &sequence); {
			case err == nil:
				text := strings.Join([]string{id, agent, typ, string(hash), string(signature), level, at, string(binary.BigEndian.AppendUint64(nil, sequence))}, "\x1f")
				sum := sha256.Sum256([]byte(text))
				prev = sum[:]
			case !errors.Is(err, sql.ErrNoRows):
				return err
			}
			payload := sha256.Sum256(e.Payload)
			if _, err := insert.ExecContext(ctx, uuid.NewString(), e.AgentID, e.EventType, payload[:], ed25519.Sign(key, payload[:]),
				"daemon_signed", e.Timestamp, prev, int64(sequence+1)); err != nil {
				return err
			}
			if _, err := c.ExecContext(ctx, "COMMIT"); err != nil {
				return err
			}
			n++
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		return []value{perSecond(n, elapsed(), "rows")}, nil
	}
}

var errEnough = errors.New("enough")

func lines(path string, f func(line []byte) error) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 1<<20), 1<<20)
	for s.Scan() {
		if err := f(s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}

// withoutPlugin is our schema, our batches, our sealer, in a pipeline of three
// stages as ours is, but no queue and no plugin. SQLite is open's.
func withoutPlugin(signed bool, batch int, open func(ctx context.Context, cache, dir string) (appender, func() error, error)) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) (_ []value, err error) {
		w, stop, err := open(ctx, b.cache, dir)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		var key ed25519.PrivateKey
		if signed {
			key = ed25519.NewKeyFromSeed(make([]byte, 32))
		}
		sealer := sign.NewSealer(key)

		elapsed, used := stopwatch(), ownCPU()
		parsed, sealed := make(chan []*abi.Event, 4), make(chan []*abi.Event, 1)
		var parseErr error
		go func() {
			defer close(parsed)
			var list []*abi.Event
			parseErr = lines(b.minted, func(line []byte) error {
				e, _, err := event.ParseNative(line, event.Options{})
				if err != nil {
					return err
				}
				if list = append(list, &e); len(list) == batch {
					parsed <- list
					list = nil
				}
				return nil
			})
			if len(list) > 0 {
				parsed <- list
			}
		}()
		go func() {
			defer close(sealed)
			for list := range parsed {
				half := len(list) / 2
				done := make(chan struct{})
				go func() { sealer.Seal(list[:half]...); close(done) }()
				sealer.Seal(list[half:]...)
				<-done
				sealed <- list
			}
		}()
		n := 0
		for list := range sealed { // to its end, also after an error
			if err == nil {
				err = w.append(ctx, list)
			}
			n += len(list)
		}
		if err = errors.Join(err, parseErr); err != nil {
			return nil, err
		}
		return []value{perSecond(n, elapsed(), "rows"), {".cpu_us", (ownCPU() - used) * 1e6 / float64(n), "us/row"}}, nil
	}
}

// linked writes ledger rows.
type linked struct {
	c          *sql.Conn
	one, many  *sql.Stmt
	head       *sql.Stmt
	sequence   uint64
	prev       []byte
	preimage   []byte
	parameters []any
}

const rowsPerStatement = 16

func newChain(ctx context.Context, c *sql.Conn) (*linked, error) {
	row := "(?" + strings.Repeat(",?", chain.NumColumns-1) + ")"
	text := "INSERT INTO " + chain.Table + " (" + chain.Columns + ") VALUES " + row
	w := &linked{c: c, prev: make([]byte, chain.HashSize)}
	for to, text := range map[**sql.Stmt]string{&w.one: text, &w.many: text + strings.Repeat(","+row, rowsPerStatement-1),
		&w.head: "SELECT coalesce(max(sequence), 0) FROM " + chain.Table} {
		var err error
		if *to, err = c.PrepareContext(ctx, text); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// append commits a batch.
func (w *linked) append(ctx context.Context, list []*abi.Event) error {
	if _, err := w.c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	var head uint64
	if err := w.head.QueryRowContext(ctx).Scan(&head); err != nil {
		return err
	}
	if head != w.sequence {
		return fmt.Errorf("the head is %d, not %d", head, w.sequence)
	}
	for len(list) > 0 {
		n, s := 1, w.one
		if len(list) >= rowsPerStatement {
			n, s = rowsPerStatement, w.many
		}
		w.parameters = w.parameters[:0]
		for _, e := range list[:n] {
			w.sequence++
			w.preimage = chain.AppendRowPreimage(w.preimage[:0], w.prev, w.sequence, e.Digest[:], e.Signature, []byte(e.AttestLevel), []byte(e.KeyID))
			hash := sha256.Sum256(w.preimage)
			var signature, key any
			if e.Signature != nil {
				signature, key = e.Signature, e.KeyID
			}
			// In the order of chain.Columns.
			w.parameters = append(w.parameters, e.ID, e.AgentID, e.EventType, e.PayloadHash[:], signature, e.AttestLevel, e.Timestamp,
				w.prev, int64(w.sequence), string(e.Payload), key, hash[:])
			w.prev = hash[:]
		}
		if _, err := s.ExecContext(ctx, w.parameters...); err != nil {
			return err
		}
		list = list[n:]
	}
	_, err := w.c.ExecContext(ctx, "COMMIT")
	return err
}
