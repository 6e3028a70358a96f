package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/ledger"
)

// ledgerSource says where a ledger is that is to be read.
type ledgerSource struct {
	path string
	cfg  *config.Config // nil if the ledger was named on the command line
}

// ledgerFile takes the ledger from the argument or, without one, from the
// configuration.
func ledgerFile(c *cobra.Command, configPath string, args []string) (ledgerSource, error) {
	if len(args) > 0 {
		if c.Flags().Changed("config") {
			return ledgerSource{}, usageError("%s: give LEDGER or -c, not both", c.CommandPath())
		}
		return ledgerSource{path: args[0]}, nil
	}
	cfg, err := loadConfig(configPath)
	if err != nil {
		return ledgerSource{}, err
	}
	sink, ok := cfg.Ledger()
	if !ok {
		return ledgerSource{}, &exitError{exitConfig, fmt.Errorf("%s has no ledger: no sink of it has [sink.grant.sql]", configPath)}
	}
	return ledgerSource{sink.Grant.SQL.Database, cfg}, nil
}

// keys are the public key files that come with the configuration.
func (s ledgerSource) keys() []string {
	if s.cfg == nil || !s.cfg.Signing.Enabled() {
		return nil
	}
	return []string{s.cfg.Signing.PublicKey}
}

// remembered is the head in the configuration's state directory; nil if there
// is none.
func (s ledgerSource) remembered() (*ledger.Head, error) {
	if s.cfg == nil {
		return nil, nil
	}
	h, found, err := pipeline.ReadHead(pipeline.HeadFile(s.cfg))
	if err != nil || !found {
		return nil, err
	}
	return &ledger.Head{Sequence: h.Sequence, RowHash: h.RowHash}, nil
}

// open opens the ledger for reading.
func (s ledgerSource) open(context.Context) (*ledger.Reader, func() error, error) {
	if err := startSQLite(s.cfg); err != nil {
		return nil, nil, err
	}
	l, err := ledger.Open(s.path)
	if err != nil {
		return nil, nil, err
	}
	return l, l.Close, nil
}

// tellUndurable tells on stderr why it is not known that what was shown is on disk.
func tellUndurable(c *cobra.Command, why error) {
	if why != nil {
		fmt.Fprintf(c.ErrOrStderr(), "note: %v\n", why)
	}
}

// startSQLite starts the engine for a command that only reads. It uses the
// compiled code of the daemon if there is some, and never makes a folder.
func startSQLite(cfg *config.Config) error {
	var cache *host.Cache
	if cfg != nil {
		if _, err := os.Stat(pipeline.CacheDir(cfg)); err == nil {
			// A cache that is not ours, an auditor's say, saves no time and
			// does no harm.
			cache, _ = host.OpenCache(pipeline.CacheDir(cfg))
		}
	}
	return host.StartSQLite(cache)
}
