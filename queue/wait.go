package queue

import "slices"

// broadcast wakes everybody who waits at the moment it fires. Its owner's lock
// guards it. The channel exists only while somebody waits.
type broadcast struct{ ch chan struct{} }

// wait returns the channel that the next fire closes.
func (b *broadcast) wait() <-chan struct{} {
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// fire wakes all who called wait since the last fire.
func (b *broadcast) fire() {
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// marks is a watermark with those who wait for it, lowest first. Its owner's
// lock guards it.
type marks struct {
	at      Seq
	waiters []*waiter
}

// waiter is shared by all who wait for one number.
type waiter struct {
	seq  Seq
	refs int
	ch   chan struct{} // closed when the mark has come to seq, or by wakeAll
}

func bySeq(w *waiter, seq Seq) int {
	switch {
	case w.seq < seq:
		return -1
	case w.seq > seq:
		return 1
	}
	return 0
}

// add joins the waiter for seq.
func (m *marks) add(seq Seq) *waiter {
	i, found := slices.BinarySearchFunc(m.waiters, seq, bySeq)
	if !found {
		m.waiters = slices.Insert(m.waiters, i, &waiter{seq: seq, ch: make(chan struct{})})
	}
	m.waiters[i].refs++
	return m.waiters[i]
}

// drop leaves a waiter that was not woken; the last one removes it.
func (m *marks) drop(w *waiter) {
	if w.refs--; w.refs > 0 {
		return
	}
	if i, found := slices.BinarySearchFunc(m.waiters, w.seq, bySeq); found && m.waiters[i] == w {
		m.waiters = slices.Delete(m.waiters, i, i+1)
	}
}

// advance sets the mark, which may also go back, and wakes whom it concerns.
func (m *marks) advance(to Seq) {
	m.at = to
	n := 0
	for n < len(m.waiters) && m.waiters[n].seq <= to {
		close(m.waiters[n].ch)
		n++
	}
	m.waiters = slices.Delete(m.waiters, 0, n)
}

// wakeAll wakes everybody, so that they look again.
func (m *marks) wakeAll() {
	for _, w := range m.waiters {
		close(w.ch)
	}
	m.waiters = nil
}
