package pipeline

import (
	"context"
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

// Find has the form of ingest.Options.Lookup.
func (l *Lookup) Find(ctx context.Context, id string) (ingest.Landed, bool, error) {
	if l.ledger != "" {
		landed, found, err := l.row(ctx, id)
		if err != nil || found {
			return landed, found, err
		}
	}
	letter, err := l.letters.Find(ctx, l.sink, id)
	switch {
	case errors.Is(err, host.ErrNoLetter):
		return ingest.Landed{}, false, nil
	case err != nil:
		return ingest.Landed{}, false, err
	}
	return ingest.Landed{DeadLetter: letter.Reason}, true, nil
}

func (l *Lookup) row(ctx context.Context, id string) (ingest.Landed, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := false
	for {
		if l.view == nil || time.Since(l.opened) > snapshotAge {
			if err := l.open(); err != nil {
				return ingest.Landed{}, false, err
			}
			fresh = true
		}
		row, err := l.view.Lookup(ctx, id)
		switch {
		case err == nil:
			return ingest.Landed{Sequence: row.Sequence, RowHash: hex.EncodeToString(row.RowHash)}, true, nil
		case !fresh:
			// The event may have been committed since, or the view is no good.
			l.opened = time.Time{}
		case errors.Is(err, host.ErrNoRow):
			return ingest.Landed{}, false, nil
		default:
			return ingest.Landed{}, false, err
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
