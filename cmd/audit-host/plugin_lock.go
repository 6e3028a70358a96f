package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/lockfile"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

func newPluginLock() *cobra.Command {
	c := &cobra.Command{
		Use:   "lock [-c FILE]",
		Short: "Pin the plugins and their grants in audit.lock",
		Long: `Writes audit.lock beside the configuration: for each sink the digest, ABI and
imports of its plugin and what it is granted. From then on a plugin or a grant
that was changed is refused at start, with the difference shown, until it is
locked again. What changes is written to stdout.

With --check nothing is written, and the exit code is 1 if anything differs.`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	check := c.Flags().Bool("check", false, "only compare, and exit with 1 if anything differs")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(*path)
		if err != nil {
			return &exitError{exitConfig, err}
		}
		now := &lockfile.Lock{}
		for _, s := range cfg.Sinks {
			wasm, err := pipeline.ReadPlugin(s.Plugin)
			if err != nil {
				return fmt.Errorf("sink %s: %w", s.Name, err)
			}
			pin, err := lockfile.Pin(cfg, s, wasm)
			if err != nil {
				return err
			}
			now.Plugins = append(now.Plugins, pin)
		}
		file := lockfile.Path(cfg)
		locked, err := lockfile.Read(file)
		missing := errors.Is(err, fs.ErrNotExist)
		switch {
		case *check && missing:
			return fmt.Errorf("there is no %s: audit-host plugin lock writes it", file)
		case *check && err != nil:
			return err
		case err != nil:
			locked = &lockfile.Lock{} // missing, or not to be read: it is written anew
		}
		differences := lockfile.Compare(locked, now)
		for _, d := range differences {
			fmt.Fprintln(c.OutOrStdout(), d)
		}
		switch {
		case *check && differences != nil:
			return fmt.Errorf("%s differs from %s; if this is meant, run: audit-host plugin lock -c %s", *path, file, *path)
		case differences == nil && err == nil:
			fmt.Fprintf(c.ErrOrStderr(), "%s is up to date, sinks: %d\n", file, len(now.Plugins))
			return nil
		}
		if err := now.Write(file); err != nil {
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "%s written, sinks: %d\n", file, len(now.Plugins))
		return nil
	}
	return c
}
