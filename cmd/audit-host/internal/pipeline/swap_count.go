package pipeline

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/egress"
)

// retired are the numbers of plugins that are gone, so that those of their sink
// never go back.
type retired struct {
	counts host.Counts
	egress egress.Counters
	asked  bool // one of them had the http capability
}

// retire frees a stopped plugin and keeps its numbers.
func (s *seat) retire(m *member) {
	if err := m.sink.Close(context.Background()); err != nil {
		s.log.Warn("free a plugin", slog.Any("error", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = slices.DeleteFunc(slices.Clone(s.members), func(o *member) bool { return o == m })
	s.retired.add(m.sink)
}

func (r *retired) add(s *host.Sink) {
	c := s.Counts()
	r.counts.Outcomes = sum(r.counts.Outcomes, c.Outcomes)
	r.counts.Breaches = sum(r.counts.Breaches, c.Breaches)
	if e, ok := s.Egress(); ok {
		r.asked = true
		r.egress.Requests += e.Requests
		r.egress.Refused += e.Refused
		r.egress.Sent += e.Sent
		r.egress.Received += e.Received
	}
}

// sum changes neither.
func sum[K comparable](a, b map[K]uint64) map[K]uint64 {
	if len(b) == 0 {
		return a
	}
	all := maps.Clone(a)
	if all == nil {
		all = map[K]uint64{}
	}
	for k, n := range b {
		all[k] += n
	}
	return all
}

// numbers are those of all plugins that the seat has had. They may be read at any
// time.
func (s *seat) numbers() retired {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.retired
	for _, m := range s.members {
		all.add(m.sink)
	}
	return all
}

// Bounds of a batch that a trial repeats.
const (
	sampleEvents = 256
	sampleBytes  = 1 << 20
	sampleWait   = 250 * time.Millisecond // for the next batch to come
)

// blame remembers the batch that a plugin ended at; nil forgets it.
func (s *seat) blame(b *abi.Batch) {
	if b != nil {
		b = cloned(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.culprit = b
}

// show gives a copy of a batch to the trial that waits for one.
func (s *seat) show(b *abi.Batch) {
	s.mu.Lock()
	w := s.wanted
	s.wanted = nil
	s.mu.Unlock()
	if w != nil {
		w <- cloned(b) // it has room for one
	}
}

// sample returns a copy of a batch as the sink gets them: the one that its plugin
// ended at, if that has not gone by, or the next one; nil if none comes.
func (s *seat) sample(ctx context.Context) *abi.Batch {
	ch := make(chan *abi.Batch, 1)
	s.mu.Lock()
	culprit := s.culprit
	if culprit == nil {
		s.wanted = ch
	}
	s.mu.Unlock()
	if culprit != nil {
		return culprit
	}
	t := time.NewTimer(sampleWait)
	defer t.Stop()
	select {
	case b := <-ch:
		return b
	case <-t.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.wanted = nil
	s.mu.Unlock()
	select {
	case b := <-ch: // it came while nobody looked
		return b
	default:
		return nil
	}
}

// cloned copies the beginning of a batch, whose memory is the drainer's.
func cloned(b *abi.Batch) *abi.Batch {
	c := &abi.Batch{ID: b.ID, Attempt: 1, Queue: b.Queue}
	bytesLeft := sampleBytes
	for i := range b.Events {
		e := b.Events[i]
		if bytesLeft -= len(e.ID) + len(e.Payload); i == sampleEvents || bytesLeft < 0 && i > 0 {
			break
		}
		e.ID, e.AgentID, e.EventType, e.Timestamp = strings.Clone(e.ID), strings.Clone(e.AgentID), strings.Clone(e.EventType), strings.Clone(e.Timestamp)
		e.Payload, e.Signature = bytes.Clone(e.Payload), bytes.Clone(e.Signature)
		c.Events = append(c.Events, e)
	}
	return c
}
