package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/daemon"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/metrics"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
)

func newRun() *cobra.Command {
	c := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Take events over HTTP and land them in the ledger",
		Long: `Serves until SIGINT or SIGTERM. Then it stops accepting, delivers what is pending
within drain_timeout, commits, writes the ledger's log back, and reports what
remained. A second signal ends it at once.

SIGHUP has it follow its configuration, as audit-host reload does: plugins are
exchanged without a stop. Where there is an audit.lock, renewing it does the same
(reload.watch). The log tells what came of it; a configuration with a problem
changes nothing.

It runs in the foreground and logs to stderr. A log that nobody reads holds up
nothing: beyond 1 MiB its lines are dropped, counted
(audit_host_log_dropped_total), and told of once it is read. Under systemd use Type=notify:
it says when it is ready; ExecReload=audit-host reload -c FILE.

Exits with
  0   everything that was accepted has landed
  1   the start failed, or events remained without an outcome; those in a
      memory queue are lost, those in a disk queue come back at the next start
  5   nothing remained, but events of this run became dead letters
  78  the configuration has a problem`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		// A write to stderr whose reader has died would end the process, even while
		// it ends. Ignored, it fails.
		signal.Ignore(syscall.SIGPIPE)
		stderr := c.ErrOrStderr()
		if w, ok := stderr.(*visible.Writer); ok {
			stderr = w.Beside() // a line that hangs must not hold up the end
		}
		log := newLossyLog(cfg.Log, stderr)
		defer log.Close()
		// From the very beginning, or the signal would end us.
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		ctx, stop := untilSignal(c.Context())
		defer stop()
		b := readBuildInfo()
		done, err := daemon.Run(ctx, daemon.Options{
			Config: cfg, Log: newLogger(cfg.Log, log), LogDropped: log.Dropped, Hangup: hangup,
			Build: metrics.Build{Version: b.Version, Commit: b.Commit, Go: b.Go, SQLite: b.SQLite, Wazero: b.Wazero},
		})
		// The last words go the way of all others: nobody may be there to read them.
		code := report(err, log)
		if err == nil && done.DeadLettered > 0 {
			code = exitDeadLetters
		}
		return exitWith(code)
	}
	return c
}
