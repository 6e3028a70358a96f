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
		sink, err := p.openSink(ctx, cfg, s, plugins[s.Name], log)
		if err != nil && s.Required {
			return nil, err
		}
		if err != nil {
			p.Missing[s.Name] = err.Error()
			p.refuse(s.Name, err)
			log.Error("optional sink left out", slog.String("sink", s.Name), slog.String("error", err.Error()))
			continue
		}
		p.sinks = append(p.sinks, sink)
		p.guests = append(p.guests, guest{s.Name, sink})
		list = append(list, queue.SinkOptions{
			Name: s.Name, Sink: sink, Plugin: sink.Digest(), Required: s.Required,
			BatchEvents: s.BatchEvents, BatchBytes: int(s.BatchBytes),
			MaxRestarts: s.MaxRestarts, RestartWindow: s.RestartWindow,
		})
		m := sink.Manifest()
		log.Info("sink ready", slog.String("sink", s.Name), slog.String("plugin", m.Name), slog.String("version", m.Version),
			slog.String("sha256", sink.Digest()))
	}
	// Without a required sink no event would ever count as committed.
	if !slices.ContainsFunc(list, func(s queue.SinkOptions) bool { return s.Required }) {
		return nil, fmt.Errorf("%s: no sink is required: events would count as kept by nobody; set required = true for one of them", cfg.File)
	}
	return list, nil
}

func (p *Pipeline) openSink(ctx context.Context, cfg *config.Config, s config.Sink, plugin plugin, log *slog.Logger) (*host.Sink, error) {
	if plugin.err != nil {
		return nil, fmt.Errorf("sink %s: %w", s.Name, plugin.err)
	}
	o := host.Options{
		Name: s.Name, Config: s.Config, Crashes: p.crashes,
		Cache: p.cache, Log: log.With(slog.String("sink", s.Name)),
	}
	limit(s, &o)
	if err := grant(cfg, s, &o); err != nil {
		return nil, err
	}
	return host.Open(ctx, plugin.wasm, o)
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
