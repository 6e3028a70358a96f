package main

import (
	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/daemon"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/metrics"
)

func newRun() *cobra.Command {
	c := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Take events over HTTP and land them in the ledger",
		Long: `Serves until SIGINT or SIGTERM. Then it stops accepting, delivers what is pending
within drain_timeout, commits, writes the ledger's log back, and reports what
remained. A second signal ends it at once.

It runs in the foreground and logs to stderr. Under systemd use Type=notify:
it says when it is ready.

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
		ctx, stop := untilSignal(c.Context())
		defer stop()
		b := readBuildInfo()
		report, err := daemon.Run(ctx, daemon.Options{
			Config: cfg, Log: newLogger(cfg.Log, c.ErrOrStderr()),
			Build: metrics.Build{Version: b.Version, Commit: b.Commit, Go: b.Go, SQLite: b.SQLite, Wazero: b.Wazero},
		})
		if err != nil {
			return err
		}
		if report.DeadLettered > 0 {
			return exitWith(exitDeadLetters)
		}
		return nil
	}
	return c
}
