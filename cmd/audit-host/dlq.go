package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/deadletter"
)

// letterPage is how many letters are read, or removed, at a time.
const letterPage = 500

// letterFlags are the filters that the dlq commands have in common.
type letterFlags struct {
	sink, eventID, outcome, since, until string
	limit                                int
}

func (f *letterFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.sink, "sink", "", "only letters of the sink `NAME`; ingest/FORMAT has what came in that format and could not be read")
	flags.StringVar(&f.eventID, "event-id", "", "only letters of the event with this `ID`")
	flags.StringVar(&f.outcome, "outcome", "", "only letters whose last delivery ended with `OUTCOME`, REJECT or TRAP say")
	flags.StringVar(&f.since, "since", "", "only letters that failed at or after `TIME`: RFC 3339, a date, or 2h for two hours ago")
	flags.StringVar(&f.until, "until", "", "only letters that failed before `TIME`")
	flags.IntVar(&f.limit, "limit", 0, "at most `N` letters, the oldest ones; 0 is all")
}

// any tells whether something was selected, by a filter or by numbers.
func (f *letterFlags) any(args []string) bool {
	return len(args) > 0 || f.sink != "" || f.eventID != "" || f.outcome != "" || f.since != "" || f.until != ""
}

// filter makes the filter of flags and arguments.
func (f *letterFlags) filter(c *cobra.Command, args []string, now time.Time) (deadletter.Filter, error) {
	o := deadletter.Filter{Sink: f.sink, EventID: f.eventID, Limit: f.limit}
	if f.limit < 0 {
		return o, usageError("--limit must not be negative")
	}
	for _, a := range args {
		id, err := strconv.ParseInt(a, 10, 64)
		if err != nil || id <= 0 {
			return o, usageError("%q is no number of a dead letter, see the first column of dlq list; for the id of an event use --event-id", a)
		}
		if !slices.Contains(o.IDs, id) {
			o.IDs = append(o.IDs, id)
		}
	}
	if f.outcome != "" {
		outcome, known := outcomeNamed(f.outcome)
		if outcome == nil {
			return o, usageError("--outcome: there is no %q: %s", f.outcome, meant(strings.ToUpper(f.outcome), known, c))
		}
		o.Outcome = outcome
	}
	for _, t := range []struct {
		name, text string
		into       *time.Time
	}{{"--since", f.since, &o.Since}, {"--until", f.until, &o.Until}} {
		at, err := pointInTime(t.text, now)
		if err != nil {
			return o, usageError("%s: %w", t.name, err)
		}
		*t.into = at
	}
	return o, nil
}

// outcomeNamed returns the outcome of that name, in any case, nil if there is
// none, and the names of those that a letter can have.
func outcomeNamed(name string) (*abi.Outcome, []string) {
	var known []string
	for _, o := range []abi.Outcome{abi.Reject, abi.Trap, abi.Exit, abi.Fuel, abi.Deadline, abi.Memory, abi.HostPanic, abi.BadABI} {
		if strings.EqualFold(o.String(), name) {
			return &o, nil
		}
		known = append(known, o.String())
	}
	return nil, known
}

// pointInTime reads RFC 3339, a date in UTC, or how long ago.
func pointInTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither 2006-01-02T15:04:05Z, nor 2006-01-02, nor a duration such as 90m", text)
}

// readLetters opens the dead letters for reading; nil if there is no file of
// them yet, which is then said.
func readLetters(c *cobra.Command, cfg *config.Config) (*deadletter.Store, error) {
	return openLetters(c, cfg, deadletter.OpenReadOnly)
}

func openLetters(c *cobra.Command, cfg *config.Config, open func(string) (*deadletter.Store, error)) (*deadletter.Store, error) {
	if _, err := os.Stat(cfg.DeadLetters.Path); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(c.ErrOrStderr(), "no dead letters")
		return nil, nil
	}
	if err := startSQLite(cfg); err != nil {
		return nil, err
	}
	return open(cfg.DeadLetters.Path)
}

// eachLetter calls do with the letters that f selects, the oldest first, and
// returns how many there were.
func eachLetter(ctx context.Context, d *deadletter.Store, f deadletter.Filter, do func(*deadletter.Letter) error) (n int, err error) {
	most := f.Limit
	for most == 0 || n < most {
		f.Limit = letterPage
		if most > 0 {
			f.Limit = min(f.Limit, most-n)
		}
		page, err := d.List(ctx, f)
		if err != nil || len(page) == 0 {
			return n, err
		}
		for i := range page {
			if err := do(&page[i]); err != nil {
				return n, err
			}
			n++
		}
		f.After = page[len(page)-1].DLQID
	}
	return n, nil
}

// missingLetters names the numbers that were asked for and are not there.
func missingLetters(asked []int64, seen map[int64]bool) error {
	var missing []string
	for _, id := range asked {
		if !seen[id] {
			missing = append(missing, strconv.FormatInt(id, 10))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("there is no such dead letter, or the filters exclude it: %s", strings.Join(missing, ", "))
	}
	return nil
}
