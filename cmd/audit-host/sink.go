package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/control"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
)

// dialDaemon reaches the daemon of a configuration.
func dialDaemon(ctx context.Context, cfg *config.Config) (*control.Client, error) {
	d, err := control.Dial(ctx, cfg.StateDir)
	if errors.Is(err, control.ErrNoDaemon) {
		return nil, fmt.Errorf("%w: audit-host run -c %s starts one", err, cfg.File)
	}
	return d, err
}

func newSinkList() *cobra.Command {
	c := &cobra.Command{
		Use:   "list [-c FILE]",
		Short: "Show what the sinks of the running daemon are doing",
		Long: `Shows every sink with its state, the events that it has not taken yet, about how
many bytes they have, the age of the oldest, how often its plugin was restarted, which
plugin that is, and why it is parked, why its last plugin was taken back, or what
went wrong last and how long ago. A plugin that has taken over not long ago is on probation.`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write one JSON object a sink")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		daemon, err := dialDaemon(c.Context(), cfg)
		if err != nil {
			return err
		}
		sinks, err := daemon.Sinks(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			for i := range sinks {
				if err := writeJSON(c.OutOrStdout(), &sinks[i]); err != nil {
					return err
				}
			}
			return nil
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "SINK\tSTATE\tREQUIRED\tPENDING\tBYTES\tAGE\tRESTARTS\tPLUGIN\tTROUBLE")
		for i := range sinks {
			s := &sinks[i]
			required, age, trouble := "yes", "-", "-"
			if !s.Required {
				required = "no"
			}
			if s.Oldest != nil {
				age = (time.Duration(s.AgeSeconds*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
			}
			switch {
			case s.Parked != "":
				trouble = strconv.Quote(s.Parked)
			case s.RolledBack != "":
				trouble = strconv.Quote("the new plugin was taken back: " + s.RolledBack)
			case s.LastError != "":
				trouble = strconv.Quote(s.LastError)
			}
			plugin := "-"
			if s.Plugin != "" {
				plugin = fmt.Sprintf("%s %s (%.12s)", visible.Word(s.Plugin), visible.Word(s.Version), s.SHA256)
			}
			if s.Probation {
				plugin += ", on probation"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\n", s.Name, s.State, required, s.PendingEvents, s.PendingBytes, age, s.Restarts, plugin, trouble)
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		return nil
	}
	return c
}

func newSinkResume() *cobra.Command {
	c := &cobra.Command{
		Use:   "resume [-c FILE] NAME",
		Short: "Let a parked sink of the running daemon deliver again",
		Long: `A sink whose plugin ended too often is parked: it delivers nothing, and its
events are kept. Once the cause is mended this lets it go on where it was, with
a whole restart budget. If the cause was its plugin or configuration, use
audit-host reload instead, which resumes the sinks that it changes.`,
		Args: arguments(1, 1),
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		daemon, err := dialDaemon(c.Context(), cfg)
		if err != nil {
			return err
		}
		err = daemon.Resume(c.Context(), args[0])
		if err != nil {
			var known []string
			for _, s := range cfg.Sinks {
				known = append(known, s.Name)
			}
			if near := config.Nearest(args[0], known); near != "" && near != args[0] {
				return fmt.Errorf("%w; did you mean %q?", err, near)
			}
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "sink %s resumed\n", args[0])
		return nil
	}
	return c
}
