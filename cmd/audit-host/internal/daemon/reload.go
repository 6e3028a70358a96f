package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/metrics"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

// unwatched is how often it is asked whether files are to be watched again.
const unwatched = time.Minute

// reload has the pipeline follow its configuration when hangup says so, and when
// a lock or the plugins that it pins have changed, until ctx is done. What came of
// it the pipeline logs.
func reload(ctx context.Context, hangup <-chan os.Signal, w *watch, p *pipeline.Pipeline, log *slog.Logger) {
	for {
		every := p.Latest().Reload.Watch
		look := time.NewTimer(every)
		if every == 0 {
			look.Reset(unwatched)
		}
		select {
		case <-ctx.Done():
			look.Stop()
			return
		case <-hangup:
			log.Info("SIGHUP: the configuration is read anew")
		case <-look.C:
			if every == 0 || !w.changed(p.Latest()) {
				continue
			}
			log.Info("audit.lock or a plugin has changed: the configuration is read anew")
		}
		look.Stop()
		_, _ = p.Reload(ctx)
	}
}

// watch notices when the files behind a lock have changed and stand still again:
// whoever copies a plugin and then renews the lock is not disturbed in between. It
// asks the file system for sizes and times, opens nothing and writes nothing.
type watch struct{ followed, last string }

// newWatch takes the files as they are for followed.
func newWatch(cfg *config.Config) *watch {
	now := looks(cfg)
	return &watch{now, now}
}

// changed is called now and then. A file that still changes is looked at again
// the next time.
func (w *watch) changed(cfg *config.Config) bool {
	now := looks(cfg)
	still := now == w.last
	w.last = now
	if !still || now == w.followed {
		return false
	}
	w.followed = now
	// Without a lock nobody has approved of anything.
	return now != ""
}

// looks describes the files; it is empty without a lock.
func looks(cfg *config.Config) string {
	var b strings.Builder
	for _, name := range pipeline.Watched(cfg) {
		info, err := os.Stat(name)
		if err != nil {
			fmt.Fprintf(&b, "%s %v\n", name, err)
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}

// reloadMetrics counts reloads and tells which plugins are on probation.
func reloadMetrics(p *pipeline.Pipeline) *metrics.Reload {
	c := p.ReloadCounts()
	m := &metrics.Reload{Followed: c.Followed, Partial: c.Partial, Refused: c.Refused}
	for _, s := range p.PluginStates() {
		m.Plugins = append(m.Plugins, metrics.Exchanged{Sink: s.Sink, Swaps: s.Swaps, Rollbacks: s.Rollbacks, Probation: s.Probation})
	}
	return m
}
