// Package daemon runs a pipeline behind the HTTP server until it is told to
// stop.
//
// Guarantee: [Run] returns after everything that it started has ended. It stops
// accepting first, then lets the sinks take what is pending within
// drain_timeout, commits, writes the ledger's log back, and tells what
// remained. The time is exceeded by the last answers to slow clients, a second
// at most, and by a batch that is just being committed.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/control"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/metrics"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/deadletter"
	"github.com/audit-host/audit-host/queue"
)

// Options say what is run.
type Options struct {
	Config *config.Config
	Log    *slog.Logger // no event waits for it: its Write must not block
	// LogDropped counts the lines that Log has not written; nil if it writes all.
	LogDropped func() uint64
	Build      metrics.Build
	// Hangup has the daemon follow its configuration whenever something comes out
	// of it; nil never.
	Hangup <-chan os.Signal
}

// Run serves until ctx is done. The report counts the events of this run; it is
// that of a run even if err is not nil.
func Run(ctx context.Context, o Options) (queue.Report, error) {
	w := newWatch(o.Config)
	p, err := pipeline.Open(ctx, pipeline.Options{Config: o.Config, Log: o.Log})
	if err != nil {
		return queue.Report{}, err
	}
	stopped, serveErr := serve(ctx, o, p, w)
	// What the requests under way took of the time is gone.
	drain, cancel := context.WithDeadline(context.WithoutCancel(ctx), stopped.Add(o.Config.DrainTimeout))
	defer cancel()
	report, err := p.Close(drain)
	return report, errors.Join(serveErr, err)
}

// serve answers requests until ctx is done or the listener fails, and returns
// when that was.
func serve(ctx context.Context, o Options, p *pipeline.Pipeline, w *watch) (stopped time.Time, err error) {
	cfg := o.Config
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait
	served := make(chan error, 1)
	// Before the port, so that who finds that one open finds this one too.
	ctl, failed := control.Listen(cfg.StateDir)
	group.Go(func() { controlled(ctx, ctl, failed, p, o.Log) })
	if cfg.HTTP.Address == "" {
		o.Log.Info("no HTTP: http.address is empty")
	} else {
		server, err := newServer(o, p)
		if err != nil {
			return time.Now(), err
		}
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.HTTP.Address)
		if err != nil {
			return time.Now(), fmt.Errorf("%w; is another audit-host running? http.address in %s says where this one listens", err, cfg.File)
		}
		o.Log.Info("listening", slog.String("address", ln.Addr().String()))
		group.Go(func() { served <- server.Serve(ctx, ln) })
	}
	group.Go(func() { sweep(ctx, p, o.Log) })
	group.Go(func() { reload(ctx, o.Hangup, w, p, o.Log) })
	if cfg.DeadLetters.ReplayAtStart {
		group.Go(func() { p.ReplayAtStart(ctx, o.Log) })
	}
	if err := notify("READY=1"); err != nil {
		o.Log.Warn("tell systemd", slog.Any("error", err))
	}
	// Loading modules has left some 30 MiB of garbage that nothing will fill again.
	group.Go(debug.FreeOSMemory)
	select {
	case <-ctx.Done():
		stopped = time.Now()
		o.Log.Info("stopping", slog.Duration("drain_timeout", cfg.DrainTimeout))
	case err = <-served:
		stopped = time.Now()
	}
	if e := notify("STOPPING=1"); e != nil {
		o.Log.Warn("tell systemd", slog.Any("error", e))
	}
	cancel()
	group.Wait()
	select {
	case e := <-served:
		err = errors.Join(err, e)
	default:
	}
	return stopped, err
}

// controlled answers the commands that talk to the daemon. Events are taken and
// delivered without them too, so that what goes wrong here stops nothing.
func controlled(ctx context.Context, ln *control.Listener, err error, p *pipeline.Pipeline, log *slog.Logger) {
	if err == nil {
		err = control.Serve(ctx, ln, p, log)
	}
	if err != nil {
		log.Error("no control socket: audit-host sink, and dlq replay beside the daemon, will not work", slog.Any("error", err))
	}
}

// sweep closes views of the ledger that are not used any more, and every one while
// the ledger takes nothing: a view keeps alive what SQLite believes of the log.
func sweep(ctx context.Context, p *pipeline.Pipeline, log *slog.Logger) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			end := p.Lookup().Sweep
			if p.Ledger().Trouble.Fault != "" {
				end = p.Lookup().Close
			}
			if err := end(); err != nil {
				log.Warn("close view of the ledger", slog.Any("error", err))
			}
		}
	}
}

func newServer(o Options, p *pipeline.Pipeline) (*ingest.Server, error) {
	cfg := o.Config
	routes, err := pipeline.Routes(cfg, p.Recorder)
	if err != nil {
		return nil, err
	}
	var server *ingest.Server
	registry := metrics.New(func() metrics.Snapshot {
		s := metrics.Snapshot{Recorder: p.Recorder.Metrics(), Queue: p.Queue.Watermarks(), Ingest: server.Stats(), Unsigned: !p.Signed,
			Dead: countDead(p.Letters), Ledger: ledgerMetrics(p), Egress: egressMetrics(p), Plugins: pluginMetrics(p), Reload: reloadMetrics(p)}
		if o.LogDropped != nil {
			s.LogDropped = o.LogDropped()
		}
		for _, u := range p.Unclaimed() {
			s.Unclaimed++
			s.UnclaimedPending = max(s.UnclaimedPending, u.Pending)
		}
		return s
	}, o.Build)
	server, err = ingest.New(ingest.Options{
		Routes: routes,
		Record: pipeline.Recorded(cfg),
		Lookup: p.Lookup().Find,
		DeadLetters: func(ctx context.Context, refused []ingest.Refused) error {
			letters := make([]abi.DeadLetter, len(refused))
			for i, r := range refused {
				letters[i] = abi.DeadLetter{Raw: r.Raw, Sink: pipeline.RefusedSink(r.Format), Outcome: abi.Reject, Reason: r.Reason, FailedAt: time.Now()}
			}
			return p.Letters.Put(ctx, letters)
		},
		Ready:        func(told bool) (bool, []string) { return ready(p, time.Now(), told) },
		Metrics:      metrics.Handler(registry, o.Log),
		Token:        string(cfg.HTTP.Token),
		DurableLevel: p.Level,
		Log:          o.Log,
		MaxBody:      int(cfg.HTTP.MaxBody), MaxEvent: int(cfg.HTTP.MaxEvent), MaxConnections: cfg.HTTP.MaxConnections,
		ReadHeaderTimeout: cfg.HTTP.ReadHeaderTimeout, ReadTimeout: cfg.HTTP.ReadTimeout, IdleTimeout: cfg.HTTP.IdleTimeout,
		AckTimeout: cfg.HTTP.AckTimeout,
		// 0 would stand for the default there and means "do not wait" here.
		DrainTimeout: max(cfg.DrainTimeout, time.Millisecond),
	})
	return server, err
}

func ledgerMetrics(p *pipeline.Pipeline) *metrics.Ledger {
	s := p.Ledger()
	m := &metrics.Ledger{Head: s.Head.Sequence, Fault: string(s.Trouble.Fault)}
	for _, f := range pipeline.Faults() {
		m.Faults = append(m.Faults, string(f))
	}
	return m
}

// countDead looks into the dead letters for a scrape, which does not wait long
// for them.
func countDead(letters *deadletter.Store) metrics.Dead {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	t, err := letters.Tally(ctx, deadletter.Filter{})
	return metrics.Dead{Open: t.Open, Resolved: t.Resolved, Oldest: t.Oldest, Err: err}
}

// pluginMetrics is what the host has counted of the plugins.
func pluginMetrics(p *pipeline.Pipeline) []metrics.Plugin {
	var list []metrics.Plugin
	for _, c := range p.Plugins() {
		list = append(list, metrics.Plugin{Sink: c.Sink, Counts: c.Counts})
	}
	return list
}

// egressMetrics is what the plugins with an http grant have done.
func egressMetrics(p *pipeline.Pipeline) []metrics.Egress {
	var list []metrics.Egress
	for _, e := range p.Egress() {
		list = append(list, metrics.Egress{Sink: e.Sink, Requests: e.Requests, Refused: e.Refused, Sent: e.Sent, Received: e.Received})
	}
	return list
}
