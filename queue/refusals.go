package queue

import (
	"slices"
	"time"
)

// maxSources bounds the sources by which refusals are told apart, the one for
// all further ones included.
const (
	maxSources  = 8
	otherSource = "other"
)

// SourceUnknown is the source of refusals that a process counted which was then
// killed: how many they were and when is kept, who brought them is not.
const SourceUnknown = "unknown"

// Refusals counts what was refused because the queue was full. A client that
// repeats a refused event is counted each time.
type Refusals struct {
	Count       uint64
	First, Last time.Time
	// Sources are its parts by Event.Source, at most 8, in the order in which
	// they were first refused. Their counts add up to Count.
	Sources []SourceRefusals
}

// SourceRefusals is what of one source was refused.
type SourceRefusals struct {
	Source      string
	Count       uint64
	First, Last time.Time
}

// note adds what of one source was refused.
func (r *Refusals) note(s SourceRefusals) {
	if r.Count == 0 || s.First.Before(r.First) {
		r.First = s.First
	}
	if s.Last.After(r.Last) {
		r.Last = s.Last
	}
	r.Count += s.Count
	of := func(source string) int {
		return slices.IndexFunc(r.Sources, func(o SourceRefusals) bool { return o.Source == source })
	}
	i := of(s.Source)
	if i < 0 && len(r.Sources) >= maxSources-1 {
		s.Source = otherSource
		i = of(otherSource)
	}
	if i < 0 {
		r.Sources = append(r.Sources, s)
		return
	}
	o := &r.Sources[i]
	o.Count += s.Count
	if s.First.Before(o.First) {
		o.First = s.First
	}
	if s.Last.After(o.Last) {
		o.Last = s.Last
	}
}

// merge adds all of o.
func (r *Refusals) merge(o Refusals) {
	for _, s := range o.Sources {
		r.note(s)
	}
}

// clone returns a copy that shares nothing.
func (r Refusals) clone() Refusals {
	r.Sources = slices.Clone(r.Sources)
	return r
}

// Refuser counts refusals that the queue does not see: those of events that
// stand behind a refused one and are not submitted, lest they overtake it.
type Refuser interface {
	// Refuse counts n events of a source as submitted and refused.
	Refuse(source string, n uint64)
}

// Refuse implements Refuser.
func (k *core) Refuse(source string, n uint64) {
	if n == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.submitted += n
	k.failures += n
	k.count(source, n)
}

// refuse counts an event that found no room.
func (k *core) refuse(source string) {
	k.fail()
	k.count(source, 1)
}

func (k *core) count(source string, n uint64) {
	now := time.Now()
	s := SourceRefusals{Source: source, Count: n, First: now, Last: now}
	k.refused.note(s)
	k.unrecorded.note(s)
}

// losses is where refusals are on their way to a loss record. core.mu guards it.
type losses struct {
	refused    Refusals // all since the queue was opened
	unrecorded Refusals // in no loss record
	making     Refusals // a record of them is being made
	told       Refusals // the last record tells them
	toldAt     Seq      // and this is its position
}

// pendingLoss says whether a record is on its way. There is one at a time, lest
// one becomes durable and another does not: drain alone does not wait for ever.
func (k *core) pendingLoss() bool { return k.making.Count > 0 || k.toldAt > k.durable }

// tellLoss puts the loss record into the queue if one is due and has room. The
// lock is given up while the record is made.
func (k *core) tellLoss() {
	if k.unrecorded.Count > 0 && !k.pendingLoss() && k.store.roomy() {
		k.recordLoss()
	}
}

// recordLoss asks for the loss record and takes it without regard to the bounds.
// k.mu is held at entry and at exit, not during the call of the user's code.
func (k *core) recordLoss() {
	if k.unrecorded.Count == 0 || k.making.Count > 0 || k.lossRecord == nil || k.failure != nil {
		return
	}
	k.making, k.unrecorded = k.unrecorded, Refusals{}
	defer func() { // also when the user's code panics
		k.making.merge(k.unrecorded) // to nothing, if the record was taken
		k.unrecorded, k.making = k.making, Refusals{}
		k.progress.fire()
	}()
	due := k.making.clone()
	ev, ok := func() (Event, bool) {
		k.mu.Unlock()
		defer k.mu.Lock()
		return k.lossRecord(due)
	}()
	if !ok { // nobody wants it told
		k.making = Refusals{}
		return
	}
	if k.sealed || k.failure != nil || checkEvent(ev, k.maxEvent) != nil {
		return
	}
	if k.toldAt <= k.durable {
		k.told = Refusals{} // that record can't be taken back any more
	}
	if _, err := k.admit(ev, true); err == nil {
		k.told.merge(k.making)
		k.toldAt, k.making = k.accepted(), Refusals{}
	}
}

// untell takes back what records told that did not become durable.
func (k *core) untell() {
	if k.toldAt > k.durable {
		k.told.merge(k.unrecorded)
		k.unrecorded, k.told, k.toldAt = k.told, Refusals{}, 0
	}
}
