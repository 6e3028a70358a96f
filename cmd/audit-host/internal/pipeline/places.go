package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/queue"
)

// recentPlaces is how many places are held, of 88 bytes each. Who waits for a receipt
// asks as soon as its event is committed, and looks into the ledger if others have
// taken the place's room by then.
const recentPlaces = 4096

// places are where the ledger's sink says that the events of late are, by their
// positions in the queue, so that a receipt costs no query. A sink that says nothing
// costs nothing. Safe for concurrent use.
//
// # Why a receipt may be given from it
//
// A receipt promises that the row is on disk. A place is noted only with the OK or
// PARTIAL that it came with, and only if that outcome still stands after the host has
// looked at it (host.Sink.Deliver). For the two kinds of events:
//
//   - Stored now: the answer follows the commit of the rows, and with synchronous=FULL
//     a commit that has returned is synced. One whose sync failed is no OK.
//   - Stored before: the sink has read the row through the same connection, which shows
//     nothing that is not on disk: its log was written and synced once more when it was
//     opened, it is given up after each failed commit, and SQLite lets nobody see a
//     commit before its sync (internal/sqlite/durable.go). What is seen of a writer that
//     runs with less than FULL is behind the sync of this batch's own commit, which
//     keeps the position of the queue also when no row is new.
//
// So nothing is concluded here that Lookup would not conclude from ledger.Reader.OnDisk,
// and nothing outlives the process. What it does not have is the host's own look at the
// row: the sequence and hash are the sink's word, which the host has compared with the
// rest of the batch, and the watch over the head with the ledger. A sink that lies can
// as well write another row.
type places struct {
	mu     sync.Mutex
	recent []placed  // by position modulo its length; nil until there is one; guarded by mu
	head   abi.Place // the last row of those that were told; guarded by mu
	held   bool      // the ledger's schema was changed; guarded by mu
}

type placed struct {
	at      uint64 // position in the queue; 0: none
	payload [sha256.Size]byte
	place   abi.Place
}

// hold has of say nothing as long as the ledger holds what may change or hide rows:
// what it shows is believed by nobody then.
func (p *places) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
}

// note takes over the places of a batch.
func (p *places) note(b *abi.Batch, r *abi.Result) {
	if len(r.Places) != len(b.Events) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recent == nil {
		p.recent = make([]placed, recentPlaces)
	}
	for i := range r.Places {
		e, place := &b.Events[i], &r.Places[i]
		if e.Seq == 0 || place.Sequence == 0 { // replayed, or of unknown place
			continue
		}
		p.recent[e.Seq%recentPlaces] = placed{e.Seq, e.PayloadHash, *place}
		if place.Sequence > p.head.Sequence {
			p.head = *place
		}
	}
}

// of returns where the event at a position of the queue is, which has a payload of
// this hash; false if that was not told, or is forgotten.
func (p *places) of(at queue.Seq, payload [sha256.Size]byte) (ingest.Landed, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at == 0 || p.recent == nil || p.held {
		return ingest.Landed{}, false
	}
	x := &p.recent[uint64(at)%recentPlaces]
	if x.at != uint64(at) || x.payload != payload {
		return ingest.Landed{}, false
	}
	return ingest.Landed{
		Sequence: x.place.Sequence, RowHash: hex.EncodeToString(x.place.RowHash[:]),
		Head: ingest.Head{Sequence: p.head.Sequence, RowHash: hex.EncodeToString(p.head.RowHash[:])},
	}, true
}
