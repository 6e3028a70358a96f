package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/queue"
)

// seat is a sink whose plugin can be exchanged between two deliveries. To the
// recorder it is one sink for as long as the process lives.
//
// Guarantee: a plugin is called by one goroutine, and of two plugins of a seat at
// most one holds what the sink is granted. A batch that a plugin on probation
// ended at goes to the one before it, with the next attempt.
//
// Nothing of an exchange is written down. Killed at any point of it, the process
// starts again with the plugin that the configuration names, and the queue hands
// out again what was not acknowledged, which both plugins recognise by its id.
type seat struct {
	name string
	log  *slog.Logger
	turn chan struct{} // holds a token while a delivery or an exchange is under way

	// Owned by whoever has the turn.
	front  queue.Sink // what is called: keeper, or the plugin itself
	keeper *keeper    // nil unless the sink is the ledger
	now    *member
	before *member // stopped, with its compiled code; nil unless now is on probation
	left   int     // batches of the probation
	until  time.Time
	down   bool // now could not be started again: the next delivery tries
	closed bool

	// Set before the first delivery.
	tune  func(*member)      // tells the recorder how the plugin is to be served
	story func(event.Plugin) // tells what became of it; may do nothing

	mu      sync.Mutex // guards what follows; never held across a call into a plugin
	state   PluginState
	members []*member // now and before, whose numbers still move
	retired retired   // the numbers of those that are gone
	wanted  chan<- *abi.Batch
	culprit *abi.Batch // what a plugin ended at, until one has stored something
}

// member is a plugin with the part of the configuration that it was made of.
type member struct {
	sink  *host.Sink
	cfg   config.Sink
	stamp stamp // of the files that its grants name
}

// PluginState is what is known of the plugin of a sink.
type PluginState struct {
	Sink, Name, Version, Digest string
	// Swaps counts the plugins that took over, Rollbacks those that were taken back.
	Swaps, Rollbacks uint64
	Probation        bool
	// RolledBack says why the last exchange was taken back, and when; empty when
	// another one has followed.
	RolledBack   string
	RolledBackAt time.Time
}

// newSeat seats the first plugin, which is started.
func newSeat(m *member, log *slog.Logger) *seat {
	s := &seat{name: m.cfg.Name, log: log.With(slog.String("sink", m.cfg.Name)), turn: make(chan struct{}, 1), front: m.sink, now: m,
		tune: func(*member) {}, story: func(event.Plugin) {}}
	s.state.Sink = s.name
	s.publish()
	return s
}

// guard puts a keeper between the seat and its plugin.
func (s *seat) guard(k *keeper) { s.keeper, s.front = k, k }

// publish tells the others who is seated.
func (s *seat) publish() {
	m := s.now.sink.Manifest()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Name, s.state.Version, s.state.Digest = m.Name, m.Version, s.now.sink.Digest()
	s.state.Probation = s.before != nil
	s.members = []*member{s.now}
	if s.before != nil {
		s.members = append(s.members, s.before)
	}
}

// place seats a plugin that is, or is about to be, started.
func (s *seat) place(m *member) {
	s.now = m
	if s.keeper != nil {
		s.keeper.Sink = m.sink
	} else {
		s.front = m.sink
	}
	s.doubt()
	s.tune(m)
}

// doubt has the ledger looked at before the next delivery: a fresh instance knows
// no head.
func (s *seat) doubt() {
	if s.keeper != nil {
		s.keeper.doubt = true
	}
}

// State may be called at any time.
func (s *seat) State() PluginState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// plugin describes who is seated, for an event.
func (s *seat) plugin() event.Plugin {
	p := s.State()
	return event.Plugin{Sink: p.Sink, Name: p.Name, Version: p.Version, Digest: p.Digest}
}

// take waits for the turn.
func (s *seat) take(ctx context.Context) error {
	if ctx.Err() == nil {
		select {
		case s.turn <- struct{}{}:
			return nil
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

func (s *seat) give() { <-s.turn }

// Deliver implements queue.Sink.
func (s *seat) Deliver(ctx context.Context, b *abi.Batch) abi.Result {
	if err := s.take(ctx); err != nil {
		return abi.Result{Outcome: abi.Deadline, Detail: "not delivered: " + err.Error()}
	}
	defer s.give()
	if s.down && !s.restart(ctx) {
		return abi.Result{Outcome: abi.Busy, RetryAfter: time.Second, Detail: "the plugin could not be started again, see the log"}
	}
	s.show(b)
	r := s.front.Deliver(ctx, b)
	switch {
	case r.Outcome.HostMade() && ctx.Err() != nil: // cut short
	case r.Outcome.HostMade() || r.Outcome == abi.BadConfig:
		s.blame(b)
		if s.before != nil {
			return s.rollBack(ctx, b, r)
		}
	case r.Outcome == abi.OK, r.Outcome == abi.Partial:
		s.blame(nil)
		s.passed()
	case r.Outcome == abi.Reject:
		s.passed()
	}
	return r // BUSY and RETRY prove nothing
}

// passed counts a batch of the probation. At its end the plugin before is freed.
func (s *seat) passed() {
	if s.before == nil {
		return
	}
	if s.left--; s.left > 0 || time.Now().Before(s.until) {
		return
	}
	s.retire(s.before)
	s.before = nil
	s.publish()
	s.log.Info("the new plugin has passed its probation", slog.String("sha256", s.now.sink.Digest()))
}

// rollBack seats the plugin before again, after the one on probation has ended
// with r. The result is BUSY: the drainer offers the same batch again, with the
// next attempt, to a sink that is not to blame. What the new plugin has stored of
// it the old one recognises.
func (s *seat) rollBack(ctx context.Context, b *abi.Batch, r abi.Result) abi.Result {
	failed := s.now
	story := s.plugin()
	if err := failed.sink.Stop(ctx); err != nil {
		s.log.Debug("end of the new plugin", slog.Any("error", err))
	}
	old := s.before
	s.before, s.down = nil, true
	s.place(old)
	s.restart(ctx)
	s.retire(failed)
	s.publish()
	detail := fmt.Sprintf("%s: %s", r.Outcome, r.Detail)
	s.mu.Lock()
	s.state.Rollbacks++
	s.state.RolledBack, s.state.RolledBackAt = detail, time.Now()
	s.mu.Unlock()
	s.log.LogAttrs(ctx, slog.LevelWarn, "the new plugin ended on probation: the one before is back, and gets its batch; the configuration still names the new one",
		slog.String("new", failed.sink.Digest()), slog.String("back", old.sink.Digest()), slog.String("outcome", r.Outcome.String()),
		slog.String("detail", r.Detail), slog.String("stderr", r.Stderr), slog.Uint64("batch", b.ID), slog.Uint64("attempt", uint64(b.Attempt)), slog.Int("events", len(b.Events)))
	story.What, story.Outcome, story.Events = event.PluginRolledBack, r.Outcome.String(), len(b.Events)
	story.Detail = "back is " + old.sink.Digest() + "; " + r.Detail
	s.story(story)
	return abi.Result{Outcome: abi.Busy, Detail: "the new plugin ended on probation and was taken back: " + detail, Stderr: r.Stderr}
}

// restart starts the plugin that is seated and stopped. It says whether it did.
func (s *seat) restart(ctx context.Context) bool {
	if _, err := s.now.sink.Start(ctx); err != nil {
		s.log.Error("the plugin could not be started again, it is tried with each delivery; its events are kept", slog.Any("error", err))
		return false
	}
	s.down = false
	return true
}

// errClosing is the error of an exchange that came too late.
var errClosing = errors.New("the daemon is stopping")

// exchange has a prepared plugin take over between two deliveries. With an error
// the one before goes on, and the caller still owns the new one.
//
// The order is the argument for a crash, or a failure, at any point. First the
// old plugin makes durable what it holds back; what it was given and has answered
// for is then stored, whatever comes. If it can't, nothing has changed. Only then
// is it stopped, which gives up its files and its database, and only then is the
// new one started on them: no two plugins write one file, and the kv store that
// the new one reads is the one that the old one left. If the new one does not
// start, the old one does again, from compiled code. What stands in the queue
// has waited, and no batch was under way.
func (s *seat) exchange(ctx context.Context, next *member, trial config.Reload) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("sink %s: wait for the delivery under way: %w", s.name, err)
	}
	defer s.give()
	if s.closed {
		return errClosing
	}
	old := s.now
	if !s.down {
		if r := old.sink.Flush(ctx); r.Outcome != abi.OK {
			s.doubt() // it may have lost its instance
			return fmt.Errorf("sink %s: the plugin that is to go does not make durable what it holds back, and stays: %s: %s", s.name, r.Outcome, r.Detail)
		}
	}
	begun := time.Now()
	if err := old.sink.Stop(ctx); err != nil {
		// Nothing that was stored depends on it.
		s.log.Warn("end of the old plugin", slog.Any("error", err))
	}
	r, err := next.sink.Start(ctx)
	if err == nil && r.Outcome.HostMade() {
		err = fmt.Errorf("sink %s: the new plugin ended with %s in %s: %s", s.name, r.Outcome, abi.ExportOpen, r.Detail)
	}
	if err != nil {
		if stop := next.sink.Stop(ctx); stop != nil {
			s.log.Debug("end of the new plugin", slog.Any("error", stop))
		}
		s.down = true
		s.restart(ctx)
		s.doubt()
		return err
	}
	if s.before != nil { // a plugin on probation makes way
		s.retire(s.before)
	}
	s.down, s.before = false, old
	s.place(next)
	s.left, s.until = trial.ProbationBatches, time.Now().Add(trial.ProbationTime)
	if trial.ProbationBatches == 0 && trial.ProbationTime == 0 {
		s.retire(old)
		s.before = nil
	}
	s.publish()
	s.mu.Lock()
	s.state.Swaps++
	s.state.RolledBack, s.state.RolledBackAt = "", time.Time{}
	s.mu.Unlock()
	m := next.sink.Manifest()
	s.log.LogAttrs(ctx, slog.LevelInfo, "a new plugin has taken over", slog.String("plugin", m.Name), slog.String("version", m.Version),
		slog.String("sha256", next.sink.Digest()), slog.String("before", old.sink.Digest()), slog.Duration("pause", time.Since(begun)))
	story := s.plugin()
	story.What = event.PluginLoaded
	s.story(story)
	return nil
}

// Close implements queue.Sink.
func (s *seat) Close(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		// The recorder closes within a bound of its own; nothing may be freed
		// under a call that runs.
		return fmt.Errorf("sink %s: close plugin: a delivery or an exchange is still under way: %w", s.name, err)
	}
	defer s.give()
	s.closed = true
	if s.before != nil {
		s.retire(s.before)
		s.before = nil
	}
	return s.front.Close(ctx)
}
