package main

import (
	"bytes"
	"encoding/hex"
	"strings"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// plan says which events of a batch are not inserted. The zero plan inserts
// all: that is the common case, and the index on the id finds the others.
type plan struct {
	skip      []bool // nil: none
	left      int    // how many are skipped
	conflicts []conflict
	// Of a skipped event that is no conflict: its place if the ledger has it, and
	// else the event of this batch, counted from 1, that is the same.
	found []abi.Place
	twin  []int
}

// conflict is an event whose id belongs to another.
type conflict struct {
	event  int
	reason string
}

func (p *plan) leaves(i int) bool { return p.skip != nil && p.skip[i] }

// position is the position in the queue up to which the batch's events are in
// the ledger. It ends before the first conflict: that event goes to the dead
// letters after the transaction, and a position beyond it would lose it if the
// process ended in between. 0 says that there is none.
func (p *plan) position(b abi.View) uint64 {
	n := b.Len()
	if len(p.conflicts) > 0 {
		n = p.conflicts[0].event
	}
	if n == 0 {
		return 0
	}
	return b.At(n - 1).Seq()
}

// content is what makes two events of one id the same, and what it is told by
// in a message.
type content struct {
	where     string
	eventType string
	hash      string
	event     int       // in this batch, or -1: in the ledger
	place     abi.Place // in the ledger
}

// lookupSize is how many ids one query looks up: the capability's bound on
// columns is 128, and an answer of so many rows fits into sink.answer.
const lookupSize = 100

var lookupSQL = "SELECT id, event_type, payload_hash, sequence, row_hash FROM signed_events WHERE id IN (?" +
	strings.Repeat(",?", lookupSize-1) + ")"

// sameButTimeSQL compares a payload with the stored one but for its timestamp,
// which is the last member.
const sameButTimeSQL = `SELECT payload = ? || timestamp || '"}' FROM signed_events WHERE id = ?`

// plan looks up which events of a batch are stored, and finds those that are
// in it twice. The answer is OK when the plan holds.
func (s *sink) plan(b abi.View) (plan, guest.Answer) {
	p := plan{skip: make([]bool, b.Len()), found: make([]abi.Place, b.Len()), twin: make([]int, b.Len())}
	seen := make(map[string]content, b.Len())
	for from := 0; from < b.Len(); from += lookupSize {
		if a := s.lookup(b, from, seen); a.Outcome != abi.OK {
			return plan{}, a
		}
	}
	for i := range b.Len() {
		e := b.At(i)
		old, ok := seen[string(e.ID())]
		if !ok {
			seen[string(e.ID())] = content{
				where: "this batch", eventType: string(e.EventType()), hash: string(e.PayloadHash()), event: i}
			continue
		}
		same, a := s.same(b, e, old)
		if a.Outcome != abi.OK {
			return plan{}, a
		}
		p.skip[i] = true
		p.left++
		switch {
		case !same:
			p.conflicts = append(p.conflicts, conflict{i, old.conflict(e)})
		case old.event < 0:
			p.found[i] = old.place
		default:
			p.twin[i] = old.event + 1
		}
	}
	return p, guest.OK(0)
}

// lookup adds to seen what the ledger has of the events of a batch that begin
// at from.
func (s *sink) lookup(b abi.View, from int, seen map[string]content) guest.Answer {
	s.script.Reset()
	s.script.Step(abi.SQLQuery, lookupSQL, lookupSize, 1)
	for i := from; i < from+lookupSize; i++ {
		if i < b.Len() {
			s.script.Text(b.At(i).ID())
		} else {
			s.script.Null()
		}
	}
	answer, a := s.ask()
	if a.Outcome != abi.OK {
		return a
	}
	r := guest.NewRows(answer)
	for {
		if _, _, ok := r.Next(); !ok {
			return a
		}
		id := string(r.Bytes())
		c := content{eventType: string(r.Bytes()), hash: string(r.Bytes()), event: -1}
		c.place.Sequence = uint64(r.Int())
		copy(c.place.RowHash[:], r.Bytes())
		c.where = "row " + number(c.place.Sequence) + " of the ledger"
		seen[id] = c
	}
}

// ask runs the script as a query about the events of a batch.
func (s *sink) ask() ([]byte, guest.Answer) {
	status, answer := s.script.Run(abi.SQLRead, s.answer[:])
	switch c := classify(status, string(answer)); {
	case c == done:
		return answer, guest.OK(0)
	case status == abi.SQLTooLarge:
		// The question has a fixed size: the grant's limits are too narrow,
		// and no event is to blame.
		return nil, guest.Busy(pauseBroken, "look up ids: "+string(answer)+"; raise max_sql and max_result of sink.grant.sql")
	default:
		return nil, answerTo(c, status, "look up ids", string(answer))
	}
}

// same tells whether an event has the content of an older one with its id.
func (s *sink) same(b abi.View, e abi.EventView, old content) (bool, guest.Answer) {
	if old.eventType != string(e.EventType()) {
		return false, guest.OK(0)
	}
	if old.hash == string(e.PayloadHash()) {
		return true, guest.OK(0)
	}
	start, ok := beforeTime(e)
	if !ok || !e.Minted() {
		return false, guest.OK(0)
	}
	if old.event >= 0 {
		first, ok := beforeTime(b.At(old.event))
		return ok && bytes.Equal(start, first), guest.OK(0)
	}
	s.script.Reset()
	s.script.Step(abi.SQLQuery, sameButTimeSQL, 2, 1)
	s.script.Text(start)
	s.script.Text(e.ID())
	answer, a := s.ask()
	r := guest.NewRows(answer)
	_, _, found := r.Next()
	return found && r.Int() == 1, a
}

// beforeTime returns the payload up to the text of its timestamp, which a
// canonical payload ends with.
func beforeTime(e abi.EventView) ([]byte, bool) {
	start, ok := bytes.CutSuffix(e.Payload(), []byte(`"}`))
	if !ok {
		return nil, false
	}
	start, ok = bytes.CutSuffix(start, e.Timestamp())
	return start, ok && bytes.HasSuffix(start, []byte(`,"timestamp":"`))
}

// conflict says why e can't be stored.
func (c content) conflict(e abi.EventView) string {
	if t := string(e.EventType()); t != c.eventType {
		return "its id is that of " + c.where + ", which has the type " + c.eventType + " and payload hash " + hex.EncodeToString([]byte(c.hash)) +
			"; this event has the type " + t + " and payload hash " + hex.EncodeToString(e.PayloadHash())
	}
	return "its id is that of " + c.where + ", which has payload hash " + hex.EncodeToString([]byte(c.hash)) +
		"; this event has payload hash " + hex.EncodeToString(e.PayloadHash())
}
