package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/queue"
)

// Reloaded is what a reload has done.
type Reloaded struct {
	File string `json:"file"` // the configuration that was read
	// Sinks are those that differ from what was running.
	Sinks []ReloadedSink `json:"sinks"`
	// Restart names each difference that only a restart follows, with what it was
	// and what it is.
	Restart []string `json:"needs_restart"`
}

// Followed tells whether the daemon now runs all that the configuration says.
func (r *Reloaded) Followed() bool {
	return len(r.Restart) == 0 && !slices.ContainsFunc(r.Sinks, func(s ReloadedSink) bool { return s.Error != "" })
}

// ReloadedSink is what became of one sink.
type ReloadedSink struct {
	Sink string `json:"sink"`
	// Done is "exchanged", "adjusted" (the same plugin, other batches or another
	// restart budget) or "kept", with the reason in Error.
	Done    string `json:"done"`
	Plugin  string `json:"plugin"`
	Version string `json:"version"`
	Before  string `json:"sha256_before"`
	After   string `json:"sha256"`
	Resumed bool   `json:"resumed"` // it was parked
	Error   string `json:"error"`
}

// What a reload does with a sink.
const (
	reloadExchanged = "exchanged"
	reloadAdjusted  = "adjusted"
	reloadKept      = "kept"
)

// reloads lets one reload run at a time, and joins it.
type reloads struct {
	turn   chan struct{} // holds a token while one runs
	life   context.Context
	end    context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex
	ending bool           // guarded by mu: no further one begins
	latest *config.Config // guarded by mu: the last one that was accepted
	counts ReloadCounts   // guarded by mu
}

// ReloadCounts counts reloads by how they ended.
type ReloadCounts struct {
	// Followed are those after which all ran as configured; Partial those that left
	// something; Refused those that changed nothing because of an error.
	Followed, Partial, Refused uint64
}

func newReloads(cfg *config.Config) *reloads {
	r := &reloads{turn: make(chan struct{}, 1), latest: cfg}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// halt ends the reload under way at its next step and waits for it.
func (r *reloads) halt() {
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	r.end()
	r.group.Wait()
}

// ReloadCounts may be called at any time.
func (p *Pipeline) ReloadCounts() ReloadCounts {
	p.reloads.mu.Lock()
	defer p.reloads.mu.Unlock()
	return p.reloads.counts
}

// Latest is the configuration that was accepted last.
func (p *Pipeline) Latest() *config.Config {
	p.reloads.mu.Lock()
	defer p.reloads.mu.Unlock()
	return p.reloads.latest
}

// Reload reads the configuration anew and exchanges the plugins that differ, by
// their bytes, configuration, grants or limits, while all others go on. A reload
// that finds another one under way waits for it.
//
// With an error nothing was changed. It is a *[config.Problems] for what validate
// would say, and else names what would keep a start from succeeding, or what a new
// plugin did in its trial. If ctx ends, the reload is no longer waited for and goes
// on.
//
// Nothing is written but what a plugin writes itself. Killed at any point, the
// next start goes by the configuration alone.
func (p *Pipeline) Reload(ctx context.Context) (Reloaded, error) {
	type answer struct {
		Reloaded
		err error
	}
	done := make(chan answer, 1)
	r := p.reloads
	r.mu.Lock()
	if r.ending {
		r.mu.Unlock()
		return Reloaded{}, errClosing
	}
	r.group.Go(func() { // joined by halt
		out, err := p.reloadInTurn(r.life)
		done <- answer{out, err}
	})
	r.mu.Unlock()
	select {
	case a := <-done:
		return a.Reloaded, a.err
	case <-ctx.Done():
		return Reloaded{}, fmt.Errorf("reload: not waited for, it goes on and the log tells: %w", ctx.Err())
	}
}

func (p *Pipeline) reloadInTurn(ctx context.Context) (Reloaded, error) {
	r := p.reloads
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return Reloaded{}, errClosing
	}
	defer func() { <-r.turn }()
	if ctx.Err() != nil {
		return Reloaded{}, errClosing
	}
	out, err := p.reload(ctx)
	if ctx.Err() != nil && err != nil {
		err = errors.Join(errClosing, err)
	}
	out.File = p.cfg.File
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.counts.Refused++
		p.log.Error("reload refused, nothing was changed", slog.String("file", out.File), slog.String("error", err.Error()))
	case !out.Followed():
		r.counts.Partial++
		p.log.Warn("reload left something to do", slog.String("file", out.File), slog.Int("exchanged", out.count(reloadExchanged)),
			slog.Int("adjusted", out.count(reloadAdjusted)), slog.Int("kept", out.count(reloadKept)), slog.Any("needs_restart", out.Restart))
	default:
		r.counts.Followed++
		p.log.Info("reloaded", slog.String("file", out.File), slog.Int("exchanged", out.count(reloadExchanged)), slog.Int("adjusted", out.count(reloadAdjusted)))
	}
	return out, err
}

func (r *Reloaded) count(done string) (n int) {
	for _, s := range r.Sinks {
		if s.Done == done {
			n++
		}
	}
	return n
}

// reload first has everything ready that can be made ready beside what runs, so
// that an error leaves all as it is, and then exchanges one plugin after the other.
func (p *Pipeline) reload(ctx context.Context) (out Reloaded, err error) {
	cfg, err := config.Load(p.cfg.File)
	if err != nil {
		return out, err
	}
	plugins, err := readPlugins(cfg)
	if err != nil {
		return out, err
	}
	if out.Restart, err = p.fixed(cfg); err != nil {
		return out, err
	}
	changes, fixed, err := p.changes(cfg, plugins)
	if err != nil {
		return out, err
	}
	out.Restart = append(out.Restart, fixed...)
	// Stores and stand-ins lie where the process has its lock.
	at := *cfg
	at.StateDir = p.cfg.StateDir
	defer func() {
		for i := range changes { // those that took over are gone from here
			if s := changes[i].next.sink; s != nil {
				err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
			}
		}
	}()
	var failed []error
	for i := range changes {
		if c := &changes[i]; c.swap && ctx.Err() == nil {
			if err := p.rehearse(ctx, &at, c); err != nil {
				failed = append(failed, err)
			}
		}
	}
	if err := errors.Join(append(failed, ctx.Err())...); err != nil {
		return out, err
	}
	p.reloads.mu.Lock()
	p.reloads.latest = cfg
	p.reloads.mu.Unlock()
	for i := range changes {
		out.Sinks = append(out.Sinks, p.follow(ctx, cfg, &changes[i]))
	}
	return out, nil
}

// rehearse compiles a new plugin and tries it beside the old one.
func (p *Pipeline) rehearse(ctx context.Context, cfg *config.Config, c *change) error {
	o, err := p.hostOptions(cfg, c.next.cfg)
	if err != nil {
		return err
	}
	if c.next.sink, err = host.Prepare(ctx, c.wasm, o); err != nil {
		return err
	}
	return trial(ctx, cfg, c.next.sink, o, c.seat.sample(ctx))
}

// follow has one sink follow the configuration.
func (p *Pipeline) follow(ctx context.Context, cfg *config.Config, c *change) ReloadedSink {
	s := c.seat
	before := s.State()
	out := ReloadedSink{Sink: s.name, Done: reloadAdjusted, Before: before.Digest}
	var err error
	if c.swap {
		out.Done = reloadExchanged
		next := c.next
		if err = s.exchange(ctx, &next, cfg.Reload); err == nil {
			c.next.sink = nil // the seat's from now on
			switch err := p.Recorder.Resume(s.name); {
			case err == nil:
				out.Resumed = true
			case !errors.Is(err, queue.ErrNotParked):
				p.log.Warn("resume the sink of a new plugin", slog.Any("error", err))
			}
		}
	} else {
		err = s.adjust(ctx, c.next.cfg)
	}
	if err != nil {
		out.Done, out.Error = reloadKept, err.Error()
		p.log.Error("sink keeps its plugin", slog.String("sink", s.name), slog.String("error", err.Error()))
	}
	after := s.State()
	out.Plugin, out.Version, out.After = after.Name, after.Version, after.Digest
	return out
}

// adjust changes how a sink is served and leaves its plugin.
func (s *seat) adjust(ctx context.Context, cfg config.Sink) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("sink %s: wait for the delivery under way: %w", s.name, err)
	}
	defer s.give()
	if s.closed {
		return errClosing
	}
	m := *s.now
	m.cfg = cfg
	s.now = &m
	s.tune(&m)
	s.publish()
	return nil
}

// seated is who is seated. Only a reload changes that, but for a rollback.
func (s *seat) seated() *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[0]
}

// String tells a person what was done, one line for each thing.
func (r *Reloaded) String() string {
	var b strings.Builder
	for _, s := range r.Sinks {
		switch s.Done {
		case reloadExchanged:
			from := "itself, as it was configured"
			if s.Before != s.After {
				from = fmt.Sprintf("the one with %.12s", s.Before)
			}
			fmt.Fprintf(&b, "sink %s: %s %s (sha256 %.12s) has taken over from %s", s.Sink, s.Plugin, visible.Word(s.Version), s.After, from)
		case reloadAdjusted:
			fmt.Fprintf(&b, "sink %s: adjusted, with the same plugin", s.Sink)
		default:
			fmt.Fprintf(&b, "sink %s: not exchanged: %s", s.Sink, s.Error)
		}
		if s.Resumed {
			b.WriteString("; it was parked and delivers again")
		}
		b.WriteByte('\n')
	}
	for _, d := range r.Restart {
		fmt.Fprintf(&b, "needs a restart: %s\n", d)
	}
	if b.Len() == 0 {
		return "nothing has changed\n"
	}
	return b.String()
}
