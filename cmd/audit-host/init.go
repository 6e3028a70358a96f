package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	audithost "github.com/audit-host/audit-host"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/sign"
)

func newInit() *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIR]",
		Short: "Make a configuration, a key pair and an empty ledger",
		Long: `Writes audit.toml, a key pair and an empty ledger to DIR, which is made if need
be; the working directory is taken unless given. Nothing that exists is
overwritten: if one of the files is there, none is made.`,
		Args: arguments(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			made, err := initialize(dir)
			if err != nil {
				return err
			}
			stderr := c.ErrOrStderr()
			fmt.Fprintf(stderr, "made %s\n", strings.Join(made, ", "))
			fmt.Fprintf(stderr, "keep %s secret; an auditor needs %s only\n", made[1], made[2])
			fmt.Fprintf(stderr, "next: audit-host run -c %s\n", made[0])
			return nil
		},
	}
}

// initialize returns the files it made: configuration, private key, public key
// and ledger. After an error it has made none.
func initialize(dir string) (made []string, err error) {
	// The sample names the other files, so that both agree.
	cfg, err := config.Parse(filepath.Join(dir, "audit.toml"), audithost.SampleConfig)
	if err != nil {
		return nil, fmt.Errorf("read sample configuration: %w", err)
	}
	sink, ok := cfg.Ledger()
	if !ok {
		return nil, errors.New("read sample configuration: no sink in it has a database")
	}
	base := filepath.Dir(cfg.File)
	for _, name := range []string{cfg.File, cfg.Signing.PrivateKey, cfg.Signing.PublicKey, sink.Grant.SQL.Database} {
		if rel, err := filepath.Rel(base, name); err == nil {
			name = filepath.Join(dir, rel) // as whoever asked would write it
		}
		made = append(made, name)
	}
	var there []string
	for _, name := range made {
		if _, err := os.Lstat(name); err == nil {
			there = append(there, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for %s: %w", name, err)
		}
	}
	if len(there) > 0 {
		mend := "choose another folder"
		if there[0] != made[0] { // it is written last
			mend = "remove what an init left that was interrupted, or " + mend
		}
		return nil, fmt.Errorf("nothing was made, because this is there already: %s; %s", strings.Join(there, ", "), mend)
	}
	var undo []string // what is there since we began, outermost first
	defer func() {
		if err != nil {
			for _, name := range slices.Backward(undo) {
				if e := os.Remove(name); e != nil && !errors.Is(e, fs.ErrNotExist) {
					err = errors.Join(err, e)
				}
			}
		}
	}()
	parents, err := makeFolder(dir)
	undo = append(undo, parents...)
	if err != nil {
		return nil, err
	}
	if _, err = sign.CreateKeyPair(made[1], made[2]); err != nil {
		return nil, err
	}
	undo = append(undo, made[1], made[2])
	if err = ledger.Create(made[3]); err != nil {
		return nil, err
	}
	undo = append(undo, made[3], made[3]+"-wal", made[3]+"-shm")
	// The configuration comes last: what it names is there when it is.
	return made, writeNew(made[0], audithost.SampleConfig)
}

// makeFolder makes dir and its parents and returns those that were not there,
// outermost first, also when it fails.
func makeFolder(dir string) (made []string, err error) {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil, nil // what is wrong with it the first file will tell
	}
	if parent := filepath.Dir(filepath.Clean(dir)); parent != dir {
		if made, err = makeFolder(parent); err != nil {
			return made, err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return made, fmt.Errorf("make folder: %w", err)
	}
	return append(made, dir), nil
}

func writeNew(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write configuration %s: %w", name, errors.Join(err, os.Remove(name)))
	}
	return nil
}
