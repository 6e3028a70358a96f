package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

func newAcceptHead() *cobra.Command {
	c := &cobra.Command{
		Use:   "accept-head [-c FILE] --dry-run|--yes",
		Short: "Go on with a ledger that was restored",
		Long: `audit-host remembers where the ledger ended, outside it, and refuses one that lacks
that row: an older copy, another ledger, rows cut off the end. This command
accepts the ledger as it is now. Its place in the queue is set back, so that the
events that it lacks are delivered again as far as the queue still has them, and a
record of it (audit.head_accepted) goes into the ledger. No daemon may run.

Check the ledger first: audit-host verify.`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	yes := c.Flags().Bool("yes", false, "do it")
	dry := c.Flags().Bool("dry-run", false, "say what it would mean")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *yes == *dry {
			return usageError("%s: give either --dry-run, to see what it means, or --yes", c.CommandPath())
		}
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		if err := startSQLite(cfg); err != nil {
			return err
		}
		a, err := pipeline.AcceptHead(c.Context(), cfg, *yes)
		if err != nil {
			return err
		}
		return describeAcceptance(c.OutOrStdout(), a, *yes)
	}
	return c
}

func describeAcceptance(w io.Writer, a pipeline.Acceptance, done bool) error {
	row := func(h pipeline.Head) string {
		if h.Sequence == 0 {
			return "none"
		}
		return h.String()
	}
	text := fmt.Sprintf("remembered: %s\nthe ledger ends at: %s\n", row(a.Was), row(a.Now))
	if a.Clean {
		text += "the ledger has the remembered row: there is nothing to accept\n"
	} else {
		text += fmt.Sprintf("events that come again from the queue: %d\nevents the ledger lacks that the queue has no more: %d\n", a.Again(), a.Gone())
		if done {
			text += "accepted\n"
		}
	}
	_, err := io.WriteString(w, text)
	return err
}
