package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

func newAcceptLoss() *cobra.Command {
	c := &cobra.Command{
		Use:   "accept-loss [-c FILE] --dry-run|--yes",
		Short: "Go on without events that the queue has lost",
		Long: `A queue on disk whose oldest segments are missing is refused: they had events that
were acknowledged, and that a sink had not taken. A queue that took events and is
not there any more, its volume not mounted say, is told in the log and by /-/ready
while another one is used instead. This command says that they are gone for good,
and puts a record of it (audit.loss_accepted) into the queue. No daemon may run.

Look for them first: a segment that is put back, or a folder that is mounted again,
loses nothing.`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	yes := c.Flags().Bool("yes", false, "do it")
	dry := c.Flags().Bool("dry-run", false, "say what is lost")
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
		l, err := pipeline.AcceptLoss(c.Context(), cfg, *yes)
		if err != nil {
			return err
		}
		return describeLoss(c.OutOrStdout(), l, *yes)
	}
	return c
}

func describeLoss(w io.Writer, l pipeline.Loss, done bool) error {
	var b strings.Builder
	if l.To > 0 {
		fmt.Fprintf(&b, "events that are gone: %d to %d of the queue %s\n", l.From, l.To, l.Queue)
	}
	for _, id := range l.Missing {
		fmt.Fprintf(&b, "queue that is not there: %s, with whatever it had not delivered\n", id)
	}
	switch {
	case l.None():
		b.WriteString("the queue lacks nothing: there is nothing to accept\n")
	case done:
		b.WriteString("accepted\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
