package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/control"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

func newSinkForget() *cobra.Command {
	c := &cobra.Command{
		Use:   "forget [-c FILE] --dry-run|--yes NAME",
		Short: "Give up the events that are kept for a sink which is gone",
		Long: `The queue keeps every event until each sink has taken it, also for one that was
taken out of the configuration or renamed: it may come back. Until then the disk
fills, and with a required one no event counts as committed. This command says
that it will not come back. Its place in the queue goes, and with it the events
that no other sink wants; its dead letters stay.

A sink that is configured is refused. A daemon that runs does it; without one the
command opens the queue itself.`,
		Args: arguments(1, 1),
	}
	path := configFlag(c)
	yes := c.Flags().Bool("yes", false, "do it")
	dry := c.Flags().Bool("dry-run", false, "say how many events that would give up")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *yes == *dry {
			return usageError("%s: give either --dry-run, to see what it means, or --yes", c.CommandPath())
		}
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		name := args[0]
		if slices.ContainsFunc(cfg.Sinks, func(s config.Sink) bool { return s.Name == name }) {
			return fmt.Errorf("forget sink %q: it is configured in %s: take it out and restart the daemon first", name, cfg.File)
		}
		pending, err := forgetSink(c.Context(), cfg, name, *yes)
		if err != nil {
			return err
		}
		done := "would be forgotten"
		if *yes {
			done = "forgotten"
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "sink %s %s; events it had not taken: %d\n", name, done, pending)
		return err
	}
	return c
}

// forgetSink has the daemon forget the sink, or does it itself if none runs.
// Without write it only finds out how many events the sink has not taken.
func forgetSink(ctx context.Context, cfg *config.Config, name string, write bool) (pending uint64, err error) {
	daemon, err := control.Dial(ctx, cfg.StateDir)
	if errors.Is(err, control.ErrNoDaemon) {
		u, err := pipeline.ForgetSink(ctx, cfg, name, write)
		return u.Pending, err
	}
	if err != nil {
		return 0, err
	}
	return daemon.Forget(ctx, name, write)
}
