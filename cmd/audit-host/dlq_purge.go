package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/audit-host/audit-host/deadletter"
	"github.com/spf13/cobra"
)

func newDLQPurge() *cobra.Command {
	c := &cobra.Command{
		Use:   "purge [-c FILE] --yes|--dry-run [--force] [FILTER...] [NUMBER...]",
		Short: "Remove dead letters for good",
		Long: `Removes the dead letters that are resolved, or those of them that are selected.
With --force, and a filter or numbers, also such that are open: their events are
then nowhere. It may run beside a daemon.`,
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write the number, or with --dry-run the letters, as JSON objects")
	yes := c.Flags().Bool("yes", false, "do it")
	dry := c.Flags().Bool("dry-run", false, "show what would be removed")
	force := c.Flags().Bool("force", false, "also letters that are open")
	var flags letterFlags
	flags.add(c)
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		f, err := flags.filter(c, args, time.Now())
		switch {
		case err != nil:
			return err
		case *yes == *dry:
			return usageError("%s: give --yes to remove them, or --dry-run to see which", c.CommandPath())
		case *force && !flags.any(args):
			return usageError("%s: --force needs a filter or numbers: it removes events that are nowhere else", c.CommandPath())
		}
		if !*force {
			f.State = deadletter.StateResolved
		}
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		open := deadletter.OpenReadOnly
		if *yes {
			open = deadletter.Open
		}
		letters, err := openLetters(c, cfg, open)
		if err != nil {
			return err
		}
		if letters == nil {
			return missingLetters(f.IDs, nil)
		}
		defer func() { err = errors.Join(err, letters.Close()) }()
		if err := purgeable(c, letters, f); err != nil {
			return err
		}
		var n int
		if *dry {
			n, err = eachLetter(c.Context(), letters, f, func(l *deadletter.Letter) error {
				if *asJSON {
					return writeJSON(c.OutOrStdout(), letterForJSON(l))
				}
				_, err := fmt.Fprintln(c.OutOrStdout(), letterLine(l))
				return err
			})
		} else {
			n, err = purge(c, letters, f)
		}
		what := map[bool]string{true: "would be removed", false: "removed"}[*dry]
		if err == nil || n > 0 {
			fmt.Fprintf(c.ErrOrStderr(), "%d dead letters %s\n", n, what)
		}
		if *asJSON && !*dry {
			err = errors.Join(err, writeJSON(c.OutOrStdout(), struct {
				Purged int `json:"purged"`
			}{n}))
		}
		return err
	}
	return c
}

// purgeable refuses numbers that are not there, or are open without --force.
func purgeable(c *cobra.Command, letters *deadletter.Store, f deadletter.Filter) error {
	if len(f.IDs) == 0 {
		return nil
	}
	all, seen := f, map[int64]bool{}
	all.State = ""
	if _, err := eachLetter(c.Context(), letters, all, func(l *deadletter.Letter) error {
		seen[l.DLQID] = true
		if f.State == deadletter.StateResolved && l.ResolvedAt.IsZero() {
			return fmt.Errorf("dead letter %d is open: its event is nowhere else; --force removes it all the same", l.DLQID)
		}
		return nil
	}); err != nil {
		return err
	}
	return missingLetters(f.IDs, seen)
}

// purge removes what f selects now, page by page, and returns how many.
func purge(c *cobra.Command, letters *deadletter.Store, f deadletter.Filter) (n int, err error) {
	t, err := letters.Tally(c.Context(), f)
	if err != nil {
		return 0, err
	}
	most := int(t.Open + t.Resolved)
	if f.Limit > 0 {
		most = min(most, f.Limit)
	}
	f.UpTo = t.Last // what comes meanwhile was not asked for
	bar := newProgress(c.ErrOrStderr(), "removing", int64(most), false)
	defer bar.end()
	for n < most {
		f.Limit = min(letterPage, most-n)
		ids, err := letters.Purge(c.Context(), f)
		if err != nil || len(ids) == 0 {
			return n, err
		}
		n += len(ids)
		bar.set(int64(n))
	}
	return n, nil
}
