package pipeline

import (
	"context"
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

// openSinks loads the plugins. Without a required one there is no start; an
// optional one that can't be loaded is left out and shown as missing.
func (p *Pipeline) openSinks(ctx context.Context, cfg *config.Config, log *slog.Logger) ([]queue.SinkOptions, error) {
	plugins, err := readPlugins(cfg)
	if err != nil {
		return nil, err
	}
	var list []queue.SinkOptions
	for _, s := range cfg.Sinks {
		m, err := p.openSink(ctx, cfg, s, plugins[s.Name])
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

func (p *Pipeline) openSink(ctx context.Context, cfg *config.Config, s config.Sink, plugin plugin) (*member, error) {
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
	m.sink, err = host.Open(ctx, plugin.wasm, o)
	return m, err
}

// hostOptions are those of a sink's plugin.
func (p *Pipeline) hostOptions(cfg *config.Config, s config.Sink) (host.Options, error) {
	o := host.Options{
		Name: s.Name, Config: s.Config, Crashes: p.crashes,
		Cache: p.cache, Log: p.log.With(slog.String("sink", s.Name)),
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
