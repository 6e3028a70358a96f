package main

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/ledger/chain"
)

// head is the last row of the ledger; its zero value is that of an empty one.
type head struct {
	sequence uint64
	hash     [chain.HashSize]byte
}

// goOn is what to do about a ledger that went back in time.
const goOn = "nothing is appended until the right file is back; to go on with this one, stop and run audit-host ledger accept-head"

// brokenBy says why now can't be the head of the same ledger later on; "" if
// it can.
func (h head) brokenBy(now head) string {
	switch {
	case now.sequence < h.sequence:
		return "the ledger ended at row " + number(h.sequence) + " before and ends at row " + number(now.sequence) +
			" now: rows were removed, or the file was replaced; " + goOn
	case now.sequence == h.sequence && now.hash != h.hash:
		return "row " + number(h.sequence) +
			" of the ledger has another row_hash than when it was written; " + goOn
	}
	return ""
}

// missingIn says why a ledger whose row of the same sequence is there can't be the
// one that h was the head of; "" if it can. A longer ledger need not be ours.
func (h head) missingIn(there head) string {
	if h == there {
		return ""
	}
	return "row " + number(h.sequence) + " of the ledger has another row_hash than when it was written, or is gone: " + goOn
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

const (
	headSQL = "SELECT sequence, row_hash FROM signed_events ORDER BY sequence DESC LIMIT 1"
	// A row without a sequence can't be in our table, only in a rebuilt one;
	// sqlite_sequence remembers the highest sequence ever given.
	gapsSQL = "SELECT EXISTS (SELECT 1 FROM signed_events WHERE sequence IS NULL), coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'signed_events'), 0)"
	// rowSQL tells whether a row is still there.
	rowSQL = "SELECT row_hash FROM signed_events WHERE sequence = ?"
	// keptSQL is asked after the rows were inserted and before they are committed:
	// the last row, and whether the index is there that keeps ids apart. It always
	// has one row.
	keptSQL = "SELECT (SELECT max(sequence) FROM signed_events), (SELECT row_hash FROM signed_events ORDER BY sequence DESC LIMIT 1), " +
		"EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'idx_signed_events_id' AND sql LIKE 'CREATE UNIQUE INDEX % ON signed_events(id)')"
	insertSQL   = "INSERT INTO " + chain.Table + " (" + chain.Columns + ") VALUES"
	positionSQL = "INSERT INTO queue_positions (queue, position) VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET position = max(position, excluded.position)"
	contentSQL  = "SELECT count(*) FROM sqlite_schema"
	// plainSQL tells whether the database has the three objects of a ledger, as
	// they were made, and nothing else that could change or hide a row.
	plainSQL   = "SELECT count(*) = 3 AND total(sql IN (?, ?, ?)) = 3 FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'sqlite_sequence'"
	versionSQL = "PRAGMA schema_version"
)

// readHead reads the row of headSQL, or none, from an answer.
func readHead(answer []byte) head {
	var h head
	r := guest.NewRows(answer)
	if _, _, ok := r.Next(); ok {
		h.sequence = uint64(r.Int())
		copy(h.hash[:], r.Bytes())
	}
	return h
}

// connect looks at the database, makes the ledger in an empty one, and reads
// the head. It answers OK when head is known.
func (s *sink) connect() guest.Answer {
	const what = "open the ledger"
	s.script.Reset()
	s.script.Step(abi.SQLQuery, "PRAGMA application_id", 0, 0)
	s.script.Step(abi.SQLQuery, "PRAGMA user_version", 0, 0)
	s.script.Step(abi.SQLQuery, contentSQL, 0, 0)
	status, answer := s.script.Run(abi.SQLRead, s.answer[:])
	if status != abi.SQLDone {
		return answerTo(classify(status, string(answer)), status, what, string(answer))
	}
	var got [3]int64
	r := guest.NewRows(answer)
	for i := range got {
		r.Next()
		got[i] = r.Int()
	}
	switch id, version, objects := got[0], got[1], got[2]; {
	case id == 0 && objects == 0:
		if a := s.create(); a.Outcome != abi.OK {
			return a
		}
	case id != chain.ApplicationID:
		return guest.Busy(pauseBroken, "the database is no ledger: its application_id is "+strconv.FormatInt(id, 10)+
			", that of a ledger is "+strconv.Itoa(chain.ApplicationID)+"; name another file in sink.grant.sql.database, audit-host init makes one").
			Because(abi.ReasonFormat)
	case version != chain.SchemaVersion:
		return guest.Busy(pauseBroken, "the ledger has the format "+strconv.FormatInt(version, 10)+
			", this plugin writes "+strconv.Itoa(chain.SchemaVersion)+"; use the audit-host that made it").Because(abi.ReasonFormat)
	}
	return s.readHead(what)
}

func (s *sink) readHead(what string) guest.Answer {
	s.script.Reset()
	s.script.Step(abi.SQLQuery, versionSQL, 0, 0)
	s.script.Step(abi.SQLQuery, plainSQL, 3, 1)
	for _, statement := range chain.Schema[:3] {
		s.script.Text([]byte(statement))
	}
	s.script.Step(abi.SQLQuery, gapsSQL, 0, 0)
	s.script.Step(abi.SQLQuery, headSQL, 0, 0)
	s.script.Step(abi.SQLQuery, rowSQL, 1, 1)
	s.script.Int(int64(s.head.sequence))
	status, answer := s.script.Run(abi.SQLRead, s.answer[:])
	if status != abi.SQLDone {
		return answerTo(classify(status, string(answer)), status, what, string(answer))
	}
	r := guest.NewRows(answer)
	r.Next()
	s.version = r.Int()
	r.Next()
	s.plain = r.Int() == 1
	r.Next()
	nulls, highest := r.Int(), uint64(r.Int())
	var now, before head
	for step, _, ok := r.Next(); ok; step, _, ok = r.Next() {
		if step == 3 { // of headSQL
			now.sequence = uint64(r.Int())
			copy(now.hash[:], r.Bytes())
			continue
		}
		before.sequence = s.head.sequence
		copy(before.hash[:], r.Bytes())
	}
	why := s.head.brokenBy(now)
	if why == "" {
		why = s.head.missingIn(before)
	}
	reason := abi.ReasonWentBack
	switch {
	case nulls != 0:
		reason = abi.ReasonSchema
		why = "the ledger has rows without a sequence; nothing is appended until they are gone"
	case why == "" && highest > now.sequence:
		why = "the ledger ends at row " + number(now.sequence) + " and had " + number(highest) +
			": rows are missing at its end; restore it, nothing is appended until then"
	}
	if why != "" {
		return guest.Busy(pauseBroken, why).Because(reason)
	}
	s.head, s.known = now, true
	return guest.OK(0)
}

// create makes the ledger. Of two that do so at once, one finds the database
// no longer empty and is refused by the guard; it is told to come again.
func (s *sink) create() guest.Answer {
	s.script.Reset()
	s.script.Step(abi.SQLGuard, contentSQL, 1, 1)
	s.script.Int(0)
	for _, statement := range chain.Schema {
		s.script.Step(abi.SQLExec, statement, 0, 0)
	}
	switch status, answer := s.script.Run(abi.SQLWrite, s.answer[:]); status {
	case abi.SQLDone:
		guest.Log(abi.LogInfo, "made an empty ledger")
		return guest.OK(0)
	case abi.SQLGuardFailed:
		return guest.Busy(pauseLocked, "another writer is making the ledger").Because(abi.ReasonLocked)
	default:
		return answerTo(classify(status, string(answer)), status, "make the ledger", string(answer))
	}
}

// next is the head after n rows more, of which hashes has the row hashes.
func (s *sink) next(n int) head {
	h := head{sequence: s.head.sequence + uint64(n), hash: s.head.hash}
	if n > 0 {
		copy(h.hash[:], s.hashes[(n-1)*chain.HashSize:])
	}
	return h
}

// keptStep is the step of append that compares the end of the chain once more.
const keptStep = 2

// notKept says what is wrong when that step fails: a trigger dropped or changed
// rows, or the index on the id is gone, without which a second delivery would be
// a second row.
func (s *sink) notKept(answer []byte) string {
	r := guest.NewRows(answer)
	if step, _, ok := r.Next(); !ok || step != keptStep {
		return ""
	}
	sequence, hash, index := uint64(r.Int()), r.Bytes(), r.Int()
	if index == 0 {
		return "the ledger lacks the index idx_signed_events_id, without which a second delivery would be a second row; make it again: CREATE UNIQUE INDEX idx_signed_events_id ON signed_events(id)"
	}
	if bytes.Equal(hash, s.kept[:]) && len(hash) > 0 {
		return "the ledger did not keep the rows under their sequences: remove the triggers of signed_events"
	}
	return "the ledger did not keep the rows as they were given, it ends at row " + number(sequence) + ": remove the triggers of signed_events"
}

// append runs the one transaction of a batch: the head is what it was; insert
// all events but those that the plan leaves out; remember the queue's position; read
// the version of the schema.
//
// The guard and the inserts are one IMMEDIATE transaction, so no other writer
// comes between them: what is inserted is chained to the true head, or nothing
// is.
func (s *sink) append(b abi.View, p *plan) (abi.SQLStatus, []byte) {
	sc := &s.script
	sc.Reset()
	if n := b.Len() - p.left; n > 0 {
		if s.head.sequence == 0 {
			sc.Step(abi.SQLGuard, headSQL, 2, 0)
		} else {
			sc.Step(abi.SQLGuard, headSQL, 2, 1)
			sc.Int(int64(s.head.sequence))
			sc.Blob(s.head.hash[:])
		}
		sc.Step(abi.SQLMany, insertSQL, chain.NumColumns, n)
		s.rows(b, p, n)
		kept := s.next(n)
		s.kept = kept.hash
		sc.Step(abi.SQLGuard, keptSQL, 3, 1) // step keptStep
		sc.Int(int64(kept.sequence))
		sc.Blob(s.kept[:])
		sc.Int(1)
	}
	if at := p.position(b); at > 0 && !allZero(b.Queue()) {
		sc.Step(abi.SQLExec, positionSQL, 2, 1)
		sc.Blob(b.Queue())
		sc.Int(int64(at))
	}
	sc.Step(abi.SQLQuery, versionSQL, 0, 0)
	return sc.Run(abi.SQLWrite, s.answer[:])
}

// rows adds the cells of the rows of a batch and computes their hashes.
func (s *sink) rows(b abi.View, p *plan, n int) {
	// Not to be moved while the script points into it: all room first.
	s.hashes = slices.Grow(s.hashes[:0], n*chain.HashSize)[:n*chain.HashSize]
	sc, prev, sequence, hashes := &s.script, s.head.hash[:], s.head.sequence, s.hashes
	for i := range b.Len() {
		if p.leaves(i) {
			continue
		}
		e := b.At(i)
		sequence++
		hash := hashes[:chain.HashSize]
		hashes = hashes[chain.HashSize:]
		signature, level, keyID := e.Signature(), e.AttestLevel(), e.KeyID()
		s.row = chain.AppendRowPreimage(s.row[:0], prev, sequence, e.Digest(), signature, level, keyID)
		guest.SHA256((*[chain.HashSize]byte)(hash), s.row)
		// In the order of chain.Columns.
		sc.Text(e.ID())
		sc.Text(e.AgentID())
		sc.Text(e.EventType())
		sc.Blob(e.PayloadHash())
		if signature == nil {
			sc.Null()
		} else {
			sc.Blob(signature)
		}
		sc.Text(level)
		sc.Text(e.Timestamp())
		sc.Blob(prev)
		sc.Int(int64(sequence))
		sc.Text(e.Payload())
		if len(keyID) == 0 {
			sc.Null()
		} else {
			sc.Text(keyID)
		}
		sc.Blob(hash)
		prev = hash
	}
}

func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
