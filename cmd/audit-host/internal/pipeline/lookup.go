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
	"github.com/audit-host/audit-host/host"
)

// snapshotAge is how long one view of the ledger serves. A view holds back the
// checkpoint of the ledger's log, so it must not be kept; opening one costs
// about a millisecond, so it should serve a whole request.
const snapshotAge = 500 * time.Millisecond

// Lookup tells where a committed event stands: in the ledger, or among the dead
// letters. It is safe for concurrent use.
type Lookup struct {
	ledger  string // path; empty if no sink has a database
	sink    string // whose dead letters count
	letters *host.DeadLetters

	mu     sync.Mutex
	view   *host.Ledger // nil if none is open; guarded by mu
	opened time.Time    // guarded by mu
}

func newLookup(cfg *config.Config, letters *host.DeadLetters) *Lookup {
	l := &Lookup{letters: letters}
	if sink, ok := cfg.Ledger(); ok {
		l.ledger, l.sink = sink.Grant.SQL.Database, sink.Name
	}
	return l
}

// Find has the form of ingest.Options.Lookup. A row with the payload's hash is
// the event's. One with another is the event's as well if only the time differs
// that was stamped at its acceptance, and else that of an earlier event under the
// same id: the sink has told the two apart, and has refused this one if there is
// a letter with its content.
func (l *Lookup) Find(ctx context.Context, id string, payload [sha256.Size]byte) (ingest.Landed, bool, error) {
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
	case errors.Is(err, host.ErrNoLetter):
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
	fresh := false
	for {
		if l.view == nil || time.Since(l.opened) > snapshotAge {
			if err := l.open(); err != nil {
				return ingest.Landed{}, nil, false, err
			}
			fresh = true
		}
		row, err := l.view.Lookup(ctx, id)
		switch {
		case err == nil:
			return ingest.Landed{Sequence: row.Sequence, RowHash: hex.EncodeToString(row.RowHash)}, row.PayloadHash, true, nil
		case !fresh:
			// The event may have been committed since, or the view is no good.
			l.opened = time.Time{}
		case errors.Is(err, host.ErrNoRow):
			return ingest.Landed{}, nil, false, nil
		default:
			return ingest.Landed{}, nil, false, err
		}
	}
}

// open replaces the view; mu is held.
func (l *Lookup) open() error {
	if err := l.close(); err != nil {
		return err
	}
	view, err := host.OpenLedger(l.ledger)
	if err != nil {
		return err
	}
	l.view, l.opened = view, time.Now()
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

// Reachable says why the ledger can't be read; nil if it can.
func (l *Lookup) Reachable() error {
	if l.ledger == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open()
}

// Sweep closes a view that nobody needs any more. Call it every second or so.
func (l *Lookup) Sweep() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.opened) > snapshotAge {
		return l.close()
	}
	return nil
}

// Close frees the view. Find may still be called and opens another.
func (l *Lookup) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.close()
}
