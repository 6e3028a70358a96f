// Command sink-sqlite is the bundled plugin that writes the ledger: it keeps
// the hash chain of package ledger/chain in the SQLite database of its sql grant.
//
// Guarantees:
//   - One transaction per batch. When it answers OK or PARTIAL, what it counts
//     as stored is committed, chained to the row before.
//   - An event whose id is in the ledger already is not inserted again. With
//     the same type and payload it counts as stored; a timestamp that the host
//     stamped (Minted) may differ. With other content it gets a REJECT.
//   - It tells the place of each event that it counts as stored: its sequence and row
//     hash, and whether it was inserted by this batch or there before; unless the
//     database holds more than a ledger.
//   - Another writer's rows are no fault: the head of the chain is compared
//     inside the transaction, and a lost race is tried again, six times in a row
//     before it is BUSY.
//   - What waiting can mend (a lock, a full disk, a missing or foreign file)
//     is BUSY and never costs an event.
//
// Not guaranteed: anything against whoever can write the file. A chain that
// was cut or rewritten while the plugin runs is noticed at the next batch, and
// refused with BUSY, and so is one that does not keep rows as they are given; the
// rest is the verifier's work.
//
// The database is first touched by the first batch. After a failure the plugin
// forgets what it knew of it.
package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/ledger/chain"
)

func main() {}

func init() { guest.Register(&sink{}) }

const (
	// maxAttempts is how often a batch is tried when other writers win before the
	// answer is BUSY; as the source system, one and five more.
	maxAttempts = 6
	// attemptsPerCall of them follow each other at once: the second begins
	// with the head that the first was told, so it rarely loses too.
	attemptsPerCall = 2
)

// Pauses to wish for.
const (
	pauseRace   = 10 * time.Millisecond // doubled twice with each answer
	pauseLocked = 100 * time.Millisecond
	pauseBroken = time.Second
)

// sink is the plugin's state, all of it a cache of the database's but for the
// races lost.
type sink struct {
	head head
	// known tells that head is what the ledger had after the last batch.
	known bool
	// version is that of the schema which was looked at; plain tells that it was a
	// ledger's and nothing else.
	version int64
	plain   bool
	// begun tells that a batch was stored. Until then the next one may have
	// been stored by an instance before this one.
	begun bool
	// races are those that the batch raceBatch has lost.
	races     int
	raceBatch uint64

	script guest.Script
	// answer has room for the largest answer: a chunk of a lookup.
	answer [64 << 10]byte
	// kept is the hash that the last row of the batch must have.
	kept [chain.HashSize]byte
	// hashes are the row hashes of the batch, row the text of one.
	hashes, row []byte
	// places are those of the batch.
	places []abi.Place
}

// Open takes an empty object.
func (s *sink) Open(config []byte) guest.Answer {
	c := strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, string(config))
	if c != "{}" {
		return guest.BadConfig("sink-sqlite has no configuration of its own, its database is sink.grant.sql.database; remove config")
	}
	return guest.OK(0)
}

// Deliver appends a batch to the ledger.
func (s *sink) Deliver(b abi.View) guest.Answer {
	look := !s.begun || b.Attempt() > 1
	var p plan
	for looks := 0; ; {
		if !s.known {
			if a := s.connect(); a.Outcome != abi.OK {
				return a
			}
		}
		if look {
			var a guest.Answer
			if p, a = s.plan(b); a.Outcome != abi.OK {
				return s.failed(a)
			}
			look = false
			looks++
		}
		status, answer := s.append(b, &p)
		switch c := classify(status, string(answer)); {
		case c == done:
			return s.stored(b, &p, answer)
		case c == lostRace:
			if a, again := s.lost(b, status, answer); !again {
				return s.failed(a)
			}
		case c == sameID && looks < maxAttempts:
			// Nothing was inserted. Only now is it worth to ask which ids are
			// there: mostly none is.
			look = true
		default:
			return s.failed(answerTo(c, status, "append to the ledger", string(answer)))
		}
	}
}

// failed forgets what was known of the database.
func (s *sink) failed(a guest.Answer) guest.Answer {
	s.known = false
	return a
}

// stored ends a batch that is committed.
func (s *sink) stored(b abi.View, p *plan, answer []byte) guest.Answer {
	r := guest.NewRows(answer)
	r.Next()
	if same := r.Int() == s.version; !same {
		s.known = false // look at the schema before the next batch
	} else if s.plain {
		s.tell(b, p)
	}
	s.head = s.next(b.Len() - p.left)
	s.begun = true
	if len(p.conflicts) == 0 {
		return guest.OK(b.Len())
	}
	for _, c := range p.conflicts {
		guest.Verdict(uint32(c.event), abi.Reject, c.reason)
	}
	return guest.Partial(b.Len() - len(p.conflicts))
}

// tell says where the events of the batch are: those that it has inserted behind the
// head that was, the others where they were. The transaction is committed, and with
// it synced is all that it could see. It is not for a ledger that has a trigger, say,
// which may have changed a row since: whoever wants to know looks into that himself.
func (s *sink) tell(b abi.View, p *plan) {
	s.places = slices.Grow(s.places[:0], b.Len())[:b.Len()]
	sequence, hashes := s.head.sequence, s.hashes
	for i := range s.places {
		at := &s.places[i]
		*at = abi.Place{}
		switch {
		case !p.leaves(i):
			sequence++
			at.Sequence, at.Flags = sequence, abi.PlaceStoredNow
			hashes = hashes[copy(at.RowHash[:], hashes):]
		case p.twin[i] > 0:
			*at = s.places[p.twin[i]-1]
			at.Flags = 0
		default: // zero for a conflict
			*at = p.found[i]
		}
	}
	guest.Places(s.places)
}

// lost counts a lost race and takes over the head that won it. It returns
// true if the batch should be tried again at once, else what to answer.
func (s *sink) lost(b abi.View, status abi.SQLStatus, answer []byte) (guest.Answer, bool) {
	if status == abi.SQLGuardFailed {
		if why := s.notKept(answer); why != "" {
			return guest.Busy(pauseBroken, why).Because(abi.ReasonSchema), false
		}
		now := readHead(answer)
		if why := s.head.brokenBy(now); why != "" {
			return guest.Busy(pauseBroken, why).Because(abi.ReasonWentBack), false
		}
		if s.head.sequence > 0 {
			// A longer chain is that of another writer only if it goes on from ours.
			if a := s.readHead("look for our last row"); a.Outcome != abi.OK {
				return a, false
			}
		} else {
			s.head = now
		}
	} else {
		// The head is the same and its sequence taken: connect says more.
		s.known = false
	}
	if s.raceBatch != b.BatchID() {
		s.raceBatch, s.races = b.BatchID(), 0
	}
	s.races++
	n := strconv.Itoa(s.races)
	if s.races >= maxAttempts {
		s.races = 0
		return guest.Busy(pauseLocked, "another writer took the next sequence number "+n+" times in a row; the batch comes again").
			Because(abi.ReasonLocked), false
	}
	guest.Metric(abi.MetricRaces, 1)
	guest.Log(abi.LogWarn, "another writer took the next sequence number, attempt "+n+" of "+strconv.Itoa(maxAttempts))
	if s.races%attemptsPerCall != 0 {
		return guest.Answer{}, true
	}
	return guest.Retry(pauseRace<<s.races>>attemptsPerCall, "another writer took the next sequence number").Because(abi.ReasonLocked), false
}
