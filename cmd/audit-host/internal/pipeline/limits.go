package pipeline

import (
	"errors"
	"path/filepath"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/host"
)

// CrashDir is the folder of crash bundles of a configuration.
func CrashDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "crashes") }

// openCrashes opens it, unless none are kept.
func openCrashes(cfg *config.Config) (*host.Crashes, error) {
	if cfg.Crashes.Keep == 0 {
		return nil, nil
	}
	return host.OpenCrashes(CrashDir(cfg), host.CrashOptions{Keep: cfg.Crashes.Keep, MaxBytes: int64(cfg.Crashes.MaxBytes)})
}

// limit fills in what bounds a sink's plugin.
func limit(s config.Sink, o *host.Options) {
	l := s.Limits
	o.Memory, o.Deadline = int64(s.MemoryLimit), s.Deadline
	o.Fuel, o.Stack = int64(l.Fuel), int64(l.Stack)
	o.ModuleSize, o.TableElements, o.CompileCost = int(l.ModuleSize), l.TableElements, int64(l.CompileCost)
	o.LogLines, o.LogBytes, o.VerdictBytes = l.LogLines, int(l.LogBytes), int(l.VerdictBytes)
	o.File = s.Plugin.Path
}

// PluginCounts are the numbers of one sink's plugin.
type PluginCounts struct {
	Sink string
	host.Counts
}

// Plugins returns them for all sinks, those that could not be loaded because of
// a limit included. It may be called at any time.
func (p *Pipeline) Plugins() []PluginCounts {
	var list []PluginCounts
	for _, s := range p.seats {
		list = append(list, PluginCounts{s.name, s.numbers().counts})
	}
	for name, l := range p.refused {
		list = append(list, PluginCounts{name, host.Counts{Breaches: map[host.Limit]uint64{l: 1}}})
	}
	return list
}

// PluginStates tells who is seated, sink by sink. It may be called at any time.
func (p *Pipeline) PluginStates() []PluginState {
	var list []PluginState
	for _, s := range p.seats {
		list = append(list, s.State())
	}
	return list
}

// refuse notes that an optional sink is missing because of a limit.
func (p *Pipeline) refuse(sink string, err error) {
	if over := (*host.LimitError)(nil); errors.As(err, &over) {
		p.refused[sink] = over.Limit
	}
}
