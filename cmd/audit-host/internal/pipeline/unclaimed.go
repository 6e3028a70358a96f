package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/statedir"
	"github.com/audit-host/audit-host/queue"
)

var (
	// ErrConfigured is wrapped when a sink is to be forgotten that is configured.
	ErrConfigured = errors.New("it is configured")
	// ErrUnknownSink is wrapped when the queue knows no sink of a name.
	ErrUnknownSink = errors.New("the queue has no place for a sink of that name")
)

// Unclaimed is the place in the queue of a sink that is not configured: it was
// taken out, or renamed. The queue keeps every event for it until somebody says
// that it will not come back.
type Unclaimed struct {
	Name string
	// Required: no event accepted since counts as committed either.
	Required bool
	Pending  uint64 // events kept for it
}

// Mend is what an operator can do.
func (u Unclaimed) Mend() string {
	return fmt.Sprintf("configure the sink again, or let its events go: audit-host sink forget %s", u.Name)
}

// unclaimed are the places in q of no sink of those names.
func unclaimed(q queue.CursorKeeper, sinks []string) []Unclaimed {
	var list []Unclaimed
	for _, c := range q.Cursors() {
		if !c.Open && !slices.Contains(sinks, c.Name) {
			list = append(list, Unclaimed{c.Name, c.Required, c.Pending})
		}
	}
	return list
}

// Unclaimed are the places in the queue of sinks that are not configured.
func (p *Pipeline) Unclaimed() []Unclaimed {
	q, ok := p.Queue.(queue.CursorKeeper)
	if !ok {
		return nil
	}
	return unclaimed(q, p.sinkNames())
}

// sinkNames are the sinks that are configured, the missing ones too.
func (p *Pipeline) sinkNames() []string {
	var names []string
	for _, s := range p.Recorder.Metrics().Sinks {
		names = append(names, s.Name)
	}
	for name := range p.Missing {
		names = append(names, name)
	}
	return names
}

// warnUnclaimed tells of them at the start.
func (p *Pipeline) warnUnclaimed(log *slog.Logger) {
	for _, u := range p.Unclaimed() {
		log.Warn("the queue keeps events for a sink that is not configured: the disk will fill", slog.String("sink", u.Name),
			slog.Uint64("pending", u.Pending), slog.Bool("required", u.Required), slog.String("mend", u.Mend()))
	}
}

// Forget gives up the place in the queue of a sink that is not configured, and
// with it the events that nobody else wants. It says what that was; without write
// what it would be.
func (p *Pipeline) Forget(ctx context.Context, name string, write bool) (Unclaimed, error) {
	q, ok := p.Queue.(queue.CursorKeeper)
	if !ok {
		return Unclaimed{}, forgetError(name, ErrUnknownSink)
	}
	return forget(ctx, q, p.sinkNames(), name, write)
}

// ForgetSink is [Pipeline.Forget] on a state directory that no process has.
func ForgetSink(ctx context.Context, cfg *config.Config, name string, write bool) (u Unclaimed, err error) {
	state, err := statedir.Open(cfg.StateDir)
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	if _, err := queue.DiskID(cfg.Queue.Directory); errors.Is(err, fs.ErrNotExist) {
		return u, forgetError(name, ErrUnknownSink)
	}
	q, err := openDisk(ctx, cfg, nil, false)
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, closeUnused(ctx, q)) }()
	var names []string
	for _, s := range cfg.Sinks {
		names = append(names, s.Name)
	}
	return forget(ctx, q, names, name, write)
}

func forget(ctx context.Context, q queue.CursorKeeper, sinks []string, name string, write bool) (Unclaimed, error) {
	if slices.Contains(sinks, name) {
		return Unclaimed{}, forgetError(name, fmt.Errorf("%w: take it out of the configuration and restart the daemon first", ErrConfigured))
	}
	list := unclaimed(q, sinks)
	i := slices.IndexFunc(list, func(u Unclaimed) bool { return u.Name == name })
	if i < 0 {
		err := ErrUnknownSink
		for _, u := range list {
			err = fmt.Errorf("%w; it has one for %q", err, u.Name)
		}
		return Unclaimed{}, forgetError(name, err)
	}
	if !write {
		return list[i], nil
	}
	return list[i], q.Forget(ctx, name)
}

func forgetError(name string, err error) error { return fmt.Errorf("forget sink %q: %w", name, err) }
