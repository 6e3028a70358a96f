package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/plugins/bundled"
	"github.com/audit-host/audit-host/queue"
)

// maxPlugin bounds a plugin's file in bytes. A Go guest has 2 to 4 MB.
const maxPlugin = 256 << 20

// loading are sinks whose plugins are being loaded, in the order of the
// configuration. Their goroutine has ended when done is closed.
type loading struct {
	done  chan struct{}
	sinks []loadedSink
	err   error
}

// loadedSink is one of them: a member that has not started, until it is taken,
// or an error.
type loadedSink struct {
	m   *member
	err error
}

// prepareSinks begins to load the plugins. What it returns has to be closed.
func (p *Pipeline) prepareSinks(ctx context.Context, cfg *config.Config) *loading {
	l := &loading{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		plugins, err := readPlugins(cfg)
		if err != nil {
			l.err = err
			return
		}
		for _, s := range cfg.Sinks {
			m, err := p.prepareSink(ctx, cfg, s, plugins[s.Name])
			l.sinks = append(l.sinks, loadedSink{m, err})
			if err != nil && s.Required {
				return
			}
		}
	}()
	return l
}

// close waits for the plugins and frees those that nobody has taken.
func (l *loading) close(ctx context.Context) error {
	<-l.done
	var errs []error
	for _, s := range l.sinks {
		if s.m != nil {
			errs = append(errs, s.m.sink.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// openSinks starts the sinks. Without a required one there is no start; an
// optional one that can't be loaded is left out and shown as missing.
func (p *Pipeline) openSinks(ctx context.Context, cfg *config.Config, plugins *loading, log *slog.Logger) ([]queue.SinkOptions, error) {
	if <-plugins.done; plugins.err != nil {
		return nil, plugins.err
	}
	var list []queue.SinkOptions
	for i, s := range cfg.Sinks {
		// A required one that failed is the last.
		m, err := plugins.sinks[i].m, plugins.sinks[i].err
		if plugins.sinks[i].m = nil; err == nil {
			if _, err = m.sink.Start(ctx); err != nil {
				err = errors.Join(err, m.sink.Close(ctx))
			}
		}
		if err != nil && s.Required {
			return nil, err
		}
		if err != nil {
			p.Missing[s.Name] = err.Error()
			p.refuse(s.Name, err)
			log.Error("optional sink left out", slog.String("sink", s.Name), slog.String("error", err.Error()))
			continue
		}
		seat := newSeat(m, log)
		p.seats = append(p.seats, seat)
		list = append(list, queue.SinkOptions{
			Name: s.Name, Sink: seat, Plugin: m.sink.Digest(), Required: s.Required,
			BatchEvents: s.BatchEvents, BatchBytes: int(s.BatchBytes),
			MaxRestarts: s.MaxRestarts, RestartWindow: s.RestartWindow,
		})
		id := m.sink.Manifest()
		log.Info("sink ready", slog.String("sink", s.Name), slog.String("plugin", id.Name), slog.String("version", id.Version),
			slog.String("sha256", m.sink.Digest()))
	}
	// Without a required sink no event would ever count as committed.
	if !slices.ContainsFunc(list, func(s queue.SinkOptions) bool { return s.Required }) {
		return nil, fmt.Errorf("%s: no sink is required: events would count as kept by nobody; set required = true for one of them", cfg.File)
	}
	return list, nil
}

// prepareSink loads the plugin of a sink.
func (p *Pipeline) prepareSink(ctx context.Context, cfg *config.Config, s config.Sink, plugin plugin) (*member, error) {
	if plugin.err != nil {
		return nil, fmt.Errorf("sink %s: %w", s.Name, plugin.err)
	}
	m := &member{cfg: s}
	var err error
	if m.stamp, err = stampOf(s); err != nil {
		return nil, err
	}
	o, err := p.hostOptions(cfg, s)
	if err != nil {
		return nil, err
	}
	if m.sink, err = host.Prepare(ctx, plugin.wasm, o); err != nil {
		return nil, err
	}
	return m, nil
}

// hostOptions are those of a sink's plugin.
func (p *Pipeline) hostOptions(cfg *config.Config, s config.Sink) (host.Options, error) {
	o := host.Options{
		Name: s.Name, Config: s.Config, Crashes: p.crashes,
		Cache: p.cache, Log: p.log,
	}
	limit(s, &o)
	return o, grant(cfg, s, &o)
}

// ReadPlugin returns the module that a configuration names.
func ReadPlugin(p config.Plugin) ([]byte, error) {
	if p.Bundled != "" {
		return bundled.Read(p.Bundled)
	}
	info, err := os.Stat(p.Path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read plugin: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read plugin %s: not a regular file", p.Path)
	case info.Size() > maxPlugin:
		return nil, fmt.Errorf("read plugin %s: it has %d bytes, at most %d are loaded", p.Path, info.Size(), maxPlugin)
	}
	wasm, err := os.ReadFile(p.Path)
	if err != nil {
		return nil, fmt.Errorf("read plugin: %w", err)
	}
	return wasm, nil
}
