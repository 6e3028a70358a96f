package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/queue"
)

// snapshotAge is how long one view of the ledger serves. A view holds back the
// checkpoint of the ledger's log, so it must not be kept. A new state of an open
// ledger costs some 30 us, opening it 2 ms.
const snapshotAge = 500 * time.Millisecond

// Lookup tells where a committed event stands: in the ledger, or among the dead
// letters. It is safe for concurrent use.
type Lookup struct {
	ledger  string // path; empty if no sink has a database
	create  bool   // the first event makes it
	sink    string // whose dead letters count
	letters *deadletter.Store
	places  *places

	mu     sync.Mutex
	view   *ledger.Reader // nil if none is open; guarded by mu
	of     time.Time      // when view's state was taken, zero while it rests; guarded by mu
	head   ingest.Head    // of the state taken at headOf; guarded by mu
	headOf time.Time      // guarded by mu
}

func newLookup(cfg *config.Config, letters *deadletter.Store, places *places) *Lookup {
	l := &Lookup{letters: letters, places: places}
	if sink, ok := cfg.Ledger(); ok {
		l.ledger, l.create, l.sink = sink.Grant.SQL.Database, sink.Grant.SQL.Create, sink.Name
	}
	return l
}

// Find has the form of ingest.Options.Lookup. What the sink has told of the event at
// that position is the answer. Else the ledger is asked: a row with the payload's hash is
// the event's. One with another is the event's as well if only the time differs
// that was stamped at its acceptance, and else that of an earlier event under the
// same id: the sink has told the two apart, and has refused this one if there is
// a letter with its content.
func (l *Lookup) Find(ctx context.Context, at queue.Seq, id string, payload [sha256.Size]byte) (ingest.Landed, bool, error) {
	if landed, ok := l.places.of(at, payload); ok {
		return landed, true, nil
	}
	var row ingest.Landed
	var there bool
	if l.ledger != "" {
		var stored []byte
		var err error
		if row, stored, there, err = l.row(ctx, id); err != nil || there && bytes.Equal(stored, payload[:]) {
			return row, there, err
		}
	}
	letter, err := l.letters.FindContent(ctx, l.sink, id, payload)
	switch {
	case errors.Is(err, deadletter.ErrNoLetter):
		return row, there, nil
	case err != nil:
		return ingest.Landed{}, false, err
	}
	return ingest.Landed{DeadLetter: letter.Reason}, true, nil
}

// row returns where the row of that id stands, and the hash of its payload.
func (l *Lookup) row(ctx context.Context, id string) (landed ingest.Landed, payload []byte, found bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// If it is not in the state that is open, the event may have been committed
	// since; and if not in the present one either, the files of the ledger may
	// not be those that are open.
	for _, step := range []func(context.Context) error{l.keep, l.renew, l.open} {
		if err = step(ctx); err != nil {
			continue
		}
		var row *chain.Row
		if row, err = l.view.Lookup(ctx, id); err == nil {
			// A receipt is a promise. Where the ledger's writer has failed, the next
			// view may show the same row when it is on disk.
			if err = l.view.OnDisk(); err != nil {
				err = errors.Join(err, l.close())
				continue
			}
			landed = ingest.Landed{Sequence: row.Sequence, RowHash: hex.EncodeToString(row.RowHash)}
			landed.Head, err = l.end(ctx)
			return landed, row.PayloadHash, err == nil, err
		}
	}
	if errors.Is(err, ledger.ErrNoRow) {
		err = nil
	}
	return ingest.Landed{}, nil, false, err
}

// end returns the head of the view's state; mu is held.
func (l *Lookup) end(ctx context.Context) (ingest.Head, error) {
	if !l.headOf.Equal(l.of) {
		sequence, hash, err := l.view.Head(ctx)
		if err != nil {
			return ingest.Head{}, err
		}
		l.head, l.headOf = ingest.Head{Sequence: sequence, RowHash: hex.EncodeToString(hash[:])}, l.of
	}
	return l.head, nil
}

var errNoView = errors.New("there is no view of the ledger")

// keep, renew and open see to it that there is a view, each at a higher price
// than the one before; mu is held.
func (l *Lookup) keep(context.Context) error {
	if l.view == nil || time.Since(l.of) > snapshotAge {
		return errNoView
	}
	return nil
}

func (l *Lookup) renew(ctx context.Context) error {
	if l.view == nil {
		return errNoView
	}
	if err := l.view.Renew(ctx); err != nil {
		return errors.Join(err, l.close())
	}
	l.of = time.Now()
	return nil
}

func (l *Lookup) open(context.Context) error {
	if err := l.close(); err != nil {
		return err
	}
	view, err := ledger.Open(l.ledger)
	if err != nil {
		return err
	}
	l.view, l.of = view, time.Now()
	return nil
}

func (l *Lookup) close() error {
	if l.view == nil {
		return nil
	}
	view := l.view
	l.view = nil
	return view.Close()
}

// reachable says why the ledger can't be read; nil if it can.
func (l *Lookup) reachable() error {
	if l.ledger == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(context.Background())
}

// Sweep lets go of a state that nobody needs any more. Call it every second or
// so.
func (l *Lookup) Sweep() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.view == nil || l.of.IsZero() || time.Since(l.of) <= snapshotAge {
		return nil
	}
	l.of = time.Time{}
	if err := l.view.Rest(); err != nil {
		return errors.Join(err, l.close())
	}
	return nil
}

// Close frees the view. Find may still be called and opens another.
func (l *Lookup) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.close()
}
