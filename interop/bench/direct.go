package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	wasmsqlite "github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/plugins/bundled"
	"github.com/audit-host/audit-host/sign"
)

// What the plugin costs: the bundled sink and the statements that it has
// executed, called straight from Go, on the same metered SQLite in the same
// process.

// The sink stage alone: so many events, sealed before, in batches of 256.
const (
	stageEvents = 50_000
	stageBatch  = 256
)

// appender commits a batch.
type appender interface {
	append(ctx context.Context, list []*abi.Event) error
}

// stage has open's appender commit the events.
func stage(open func(ctx context.Context, cache, dir string) (appender, func() error, error)) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) (_ []value, err error) {
		sealed, err := events(b.minted, min(stageEvents, b.events), sign.NewSealer(ed25519.NewKeyFromSeed(make([]byte, 32))))
		if err != nil {
			return nil, err
		}
		list := make([]*abi.Event, len(sealed))
		for i := range sealed {
			list[i] = &sealed[i]
		}
		w, stop, err := open(ctx, b.cache, dir)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		elapsed, used := stopwatch(), ownCPU()
		for from := 0; from < len(list); from += stageBatch {
			if err := w.append(ctx, list[from:min(from+stageBatch, len(list))]); err != nil {
				return nil, err
			}
		}
		return []value{perSecond(len(list), elapsed(), "rows"), {".cpu_us", (ownCPU() - used) * 1e6 / float64(len(list)), "us/row"}}, nil
	}
}

// startSQLite starts the process's SQLite, metered, with the code that the daemon
// has compiled.
func startSQLite(dir string) (*host.Cache, error) {
	cache, err := host.OpenCache(dir)
	if err != nil {
		return nil, err
	}
	return cache, host.StartSQLite(cache)
}

// plugged is the bundled sink.
type plugged struct {
	sink  *host.Sink
	batch abi.Batch
}

func openPlugged(ctx context.Context, dir, home string) (appender, func() error, error) {
	cache, err := startSQLite(dir)
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(home, "ledger.db")
	wasm, err := bundled.Read("sink-sqlite")
	if err == nil {
		err = ledger.Create(path)
	}
	if err != nil {
		return nil, nil, err
	}
	s, err := host.Open(ctx, wasm, host.Options{Name: "ledger", Cache: cache, SQL: &host.SQLGrant{Database: path}})
	if err != nil {
		return nil, nil, err
	}
	stop := func() error { return errors.Join(s.Close(ctx), cache.Close(ctx)) }
	return &plugged{sink: s, batch: abi.Batch{Attempt: 1, Queue: [16]byte{1}}}, stop, nil
}

func (p *plugged) append(ctx context.Context, list []*abi.Event) error {
	p.batch.ID++
	p.batch.Events = p.batch.Events[:0]
	for _, e := range list {
		p.batch.Events = append(p.batch.Events, *e)
	}
	if r := p.sink.Deliver(ctx, &p.batch); r.Outcome != abi.OK {
		return fmt.Errorf("the sink answered %s: %s", r.Outcome, r.Detail)
	}
	return nil
}

// direct calls SQLite from Go: the rows 16 a statement, as the host binds them.
type direct struct {
	c                         *wasmsqlite.Conn
	head, one, many, position *wasmsqlite.Stmt
	sequence, last            uint64
	prev                      [chain.HashSize]byte
	preimage                  []byte
}

func openDirect(_ context.Context, dir, home string) (appender, func() error, error) {
	cache, err := startSQLite(dir)
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(home, "direct.db")
	if err := ledger.Create(path); err != nil {
		return nil, nil, err
	}
	c, err := wasmsqlite.Open(path)
	if err != nil {
		return nil, nil, err
	}
	d := &direct{c: c}
	stop := func() error {
		return errors.Join(d.head.Close(), d.one.Close(), d.many.Close(), d.position.Close(), c.Close(), cache.Close(context.Background()))
	}
	err = c.Exec("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA temp_store = MEMORY")
	row := "(?" + strings.Repeat(",?", chain.NumColumns-1) + ")"
	insert := "INSERT INTO " + chain.Table + " (" + chain.Columns + ") VALUES " + row
	for to, text := range map[**wasmsqlite.Stmt]string{
		&d.head: "SELECT sequence FROM " + chain.Table + " ORDER BY sequence DESC LIMIT 1",
		&d.one:  insert, &d.many: insert + strings.Repeat(","+row, rowsPerStatement-1),
		&d.position: "INSERT INTO queue_positions VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET position = max(position, excluded.position)",
	} {
		if err == nil {
			*to, _, err = c.PrepareFlags(text, wasmsqlite.PREPARE_PERSISTENT)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return d, stop, nil
}

func (d *direct) append(_ context.Context, list []*abi.Event) error {
	if err := d.c.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	found := uint64(0)
	if d.head.Step() {
		found = uint64(d.head.ColumnInt64(0))
	}
	if err := d.head.Reset(); err != nil || found != d.sequence {
		return fmt.Errorf("the head is %d, not %d: %w", found, d.sequence, err)
	}
	for len(list) > 0 {
		n, s := 1, d.one
		if len(list) >= rowsPerStatement {
			n, s = rowsPerStatement, d.many
		}
		for i, e := range list[:n] {
			if err := d.bind(s, i*chain.NumColumns, e); err != nil {
				return err
			}
		}
		if err := s.Exec(); err != nil {
			return err
		}
		list = list[n:]
	}
	if err := errors.Join(d.position.BindBlob(1, make([]byte, 16)), d.position.BindInt64(2, int64(d.last)), d.position.Exec()); err != nil {
		return err
	}
	return d.c.Exec("COMMIT")
}

// bind binds a row from parameter at on, counted from 0, and goes on to the next.
func (d *direct) bind(s *wasmsqlite.Stmt, at int, e *abi.Event) error {
	d.sequence++
	d.last = e.Seq
	d.preimage = chain.AppendRowPreimage(d.preimage[:0], d.prev[:], d.sequence, e.Digest[:], e.Signature, []byte(e.AttestLevel), []byte(e.KeyID))
	hash := sha256.Sum256(d.preimage)
	// In the order of chain.Columns.
	err := errors.Join(s.BindText(at+1, e.ID), s.BindText(at+2, e.AgentID), s.BindText(at+3, e.EventType), s.BindBlob(at+4, e.PayloadHash[:]),
		s.BindBlob(at+5, e.Signature), s.BindText(at+6, e.AttestLevel), s.BindText(at+7, e.Timestamp), s.BindBlob(at+8, d.prev[:]),
		s.BindInt64(at+9, int64(d.sequence)), s.BindRawText(at+10, e.Payload), s.BindText(at+11, e.KeyID), s.BindBlob(at+12, hash[:]))
	d.prev = hash
	return err
}

// openNative is SQLite in machine code, without metering.
func openNative(ctx context.Context, _, dir string) (appender, func() error, error) {
	c, stop, err := openSQLite(ctx, filepath.Join(dir, "native.db"), "FULL", 10_000, chain.Schema[:]...)
	if err != nil {
		return nil, nil, err
	}
	w, err := newChain(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return w, stop, nil
}
