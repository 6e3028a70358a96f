package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/control"
)

func newReload() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload [-c FILE]",
		Short: "Have the running daemon follow its configuration",
		Long: `The daemon reads its configuration anew, as validate does, and exchanges the plugin
of each sink of which the plugin's bytes, configuration, grants or limits differ,
secrets and ca_file included. Nothing is lost or landed twice, and events are
taken all the while.

A new plugin is compiled and tried beside the old one, with stand-ins for all that
it is granted. If anything is wrong by then nothing is changed, and every problem
is named. It takes over between two batches. If the host has to end it on
probation ([reload] in the configuration), the old one is back by itself and gets
the batch: the log has a warning, and so has audit-host sink list. A parked sink
delivers again with its new plugin.

batch_events, batch_bytes, max_restarts and restart_window are followed without an
exchange. All else (the queue, http, keys, sinks that come or go, another ledger)
needs a restart, and is named. SIGHUP does the same without an answer, and so does
a renewed audit.lock.

Exits with
  0   the daemon runs what the configuration says, or has it on probation
  1   something needs a restart or was not exchanged, or there is no daemon
  78  the configuration has a problem; nothing was changed`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write what was done to stdout as one JSON object")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		daemon, err := dialDaemon(c.Context(), cfg)
		if errors.Is(err, control.ErrNoDaemon) {
			return fmt.Errorf("%w; one that was started with another state_dir has to be restarted", err)
		}
		if err != nil {
			return err
		}
		done, err := daemon.Reload(c.Context())
		var refused *control.ReloadError
		if errors.As(err, &refused) {
			code := exitFailed
			if refused.Configuration {
				code = exitConfig
			}
			return &exitError{code, fmt.Errorf("nothing was changed: %w", err)}
		}
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(c.OutOrStdout(), &done)
		} else {
			_, err = fmt.Fprint(c.OutOrStdout(), done.String())
		}
		if err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		if mine, err := filepath.Abs(*path); err == nil && mine != done.File {
			fmt.Fprintf(c.ErrOrStderr(), "the daemon goes by %s\n", done.File)
		}
		if !done.Followed() {
			return exitWith(exitFailed)
		}
		return nil
	}
	return c
}
