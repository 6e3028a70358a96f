package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

func newValidate() *cobra.Command {
	c := &cobra.Command{
		Use:   "validate [-c FILE]",
		Short: "Check a configuration and name all its problems",
		Long: `Reads the configuration and names every problem with file, line and column, the
line itself and what was probably meant. Exits with 78 if there is one. The
files that it names are not opened, but for http.token_file.

With --show a valid configuration is written to stdout as it takes effect: every
key, defaults included, and paths as they are resolved. Texts in the config tables
of the sinks may be secrets and are left out.`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write the problems to stdout as a JSON array")
	show := c.Flags().Bool("show", false, "write the configuration to stdout as it takes effect, as TOML")
	c.MarkFlagsMutuallyExclusive("json", "show")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(*path)
		var problems *config.Problems
		switch {
		case *asJSON && (err == nil || errors.As(err, &problems)):
			list := config.Problems{}
			if problems != nil {
				list = *problems
			}
			if err := writeJSON(c.OutOrStdout(), list); err != nil {
				return err
			}
			if len(list) > 0 {
				return exitWith(exitConfig)
			}
		case err != nil:
			return &exitError{exitConfig, err}
		case *show:
			_, err := fmt.Fprint(c.OutOrStdout(), cfg.Redacted())
			return err
		default:
			fmt.Fprintf(c.ErrOrStderr(), "%s is valid\n", *path)
		}
		return nil
	}
	return c
}
