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
