package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/control"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/statedir"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/deadletter"
)

func newDLQReplay() *cobra.Command {
	c := &cobra.Command{
		Use:   "replay [-c FILE] [--dry-run] [FILTER...] [NUMBER...]",
		Short: "Offer dead letters to their sinks once more",
		Long: `Delivers the open dead letters, or those that are selected, to the sink that
refused them, and to no other. What the sink stores is marked as resolved, and
kept until dlq purge; what it refuses again keeps the new reason. What OPA sent
and nothing could be made of is read again with the present configuration, and
goes to every sink.

A daemon that runs does it; without one the command opens the sinks itself. It
may be interrupted at any point, and repeated: an event lands once.

Prints the letters that are still open afterwards. Exits with
  0   all selected letters are resolved
  1   it failed, or was interrupted
  5   some of them are still open`,
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write one JSON object a letter, and then one with the numbers")
	dry := c.Flags().Bool("dry-run", false, "show what would be replayed, and what can't be")
	var flags letterFlags
	flags.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := flags.filter(c, args, time.Now())
		if err != nil {
			return err
		}
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		out := &replayPrinter{stdout: c.OutOrStdout(), stderr: c.ErrOrStderr(), json: *asJSON}
		ctx, stop := untilSignal(c.Context())
		defer stop()
		if n, err := out.look(ctx, c, cfg, f, *dry); err != nil || n == 0 || *dry {
			return err
		}
		o := pipeline.ReplayOptions{Filter: f, Begin: out.begin, Each: out.each}
		s, err := replayLetters(ctx, cfg, o, c.ErrOrStderr())
		if ctx.Err() != nil && err != nil {
			err = errors.New("interrupted: what was stored is resolved or is recognised the next time; replay again for the rest")
		}
		if err := errors.Join(err, out.end(s, err)); err != nil {
			return err
		}
		if s.Left() > 0 {
			return exitWith(exitDeadLetters)
		}
		return nil
	}
	return c
}

// replayLetters has the daemon replay, or does it itself if none runs.
func replayLetters(ctx context.Context, cfg *config.Config, o pipeline.ReplayOptions, stderr io.Writer) (s pipeline.ReplaySummary, err error) {
	daemon, err := control.Dial(ctx, cfg.StateDir)
	if err == nil {
		return daemon.Replay(ctx, o)
	}
	if !errors.Is(err, control.ErrNoDaemon) {
		return s, err
	}
	p, err := pipeline.Open(ctx, pipeline.Options{Config: cfg, Log: newLogger(cfg.Log, stderr), Bulk: true})
	if errors.Is(err, statedir.ErrInUse) {
		return s, fmt.Errorf("%w; if it is a daemon that has just been started, try again", err)
	}
	if err != nil {
		return s, err
	}
	s, err = p.Replay(ctx, o)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(cfg.DrainTimeout, time.Millisecond))
	defer cancel()
	_, closeErr := p.Close(last)
	return s, errors.Join(err, closeErr)
}

// replayPrinter shows a replay: the letters that are still open, and a bar on a
// terminal.
type replayPrinter struct {
	stdout, stderr io.Writer
	json           bool
	bar            progress
	seen           int64
	failed         error // of writing
}

// look finds out whether there is anything to do. With dry it shows what.
func (r *replayPrinter) look(ctx context.Context, c *cobra.Command, cfg *config.Config, f deadletter.Filter, dry bool) (n int, err error) {
	letters, err := readLetters(c, cfg)
	if err != nil {
		return 0, err
	}
	if letters == nil {
		return 0, missingLetters(f.IDs, nil)
	}
	defer func() { err = errors.Join(err, letters.Close()) }()
	if len(f.IDs) > 0 {
		seen := map[int64]bool{}
		if _, err := eachLetter(ctx, letters, f, func(l *deadletter.Letter) error {
			seen[l.DLQID] = true
			if !l.ResolvedAt.IsZero() {
				fmt.Fprintf(r.stderr, "dead letter %d is resolved already\n", l.DLQID)
			}
			return nil
		}); err != nil {
			return 0, err
		}
		if err := missingLetters(f.IDs, seen); err != nil {
			return 0, err
		}
	}
	f.State = deadletter.StateOpen
	if !dry {
		t, err := letters.Tally(ctx, f)
		if err == nil && t.Open == 0 {
			fmt.Fprintln(r.stderr, "no dead letters to replay")
		}
		return int(t.Open), err
	}
	revive, err := pipeline.Revive(cfg)
	if err != nil {
		return 0, err
	}
	can := 0
	n, err = eachLetter(ctx, letters, f, func(l *deadletter.Letter) error {
		recorded, err := pipeline.Revivable(cfg, revive, l)
		d := dryResult{DLQID: l.DLQID, Sink: l.Sink, ID: l.Event.ID, Would: "replay"}
		switch {
		case err != nil:
			d.Would, d.Reason = "keep", err.Error()
		case !recorded:
			d.Would, d.Reason = "resolve", "its decision is not recorded"
			can++
		default:
			can++
		}
		return r.write(d, d.DLQID, d.Sink, d.Would, d.ID, d.Reason)
	})
	fmt.Fprintf(r.stderr, "%d would be replayed, %d could not be\n", can, n-can)
	return n, err
}

// dryResult is what would become of a letter.
type dryResult struct {
	DLQID  int64  `json:"dlq_id"`
	Sink   string `json:"sink"`
	ID     string `json:"id"`
	Would  string `json:"would"` // replay, resolve or keep
	Reason string `json:"reason"`
}

func (r *replayPrinter) write(v any, id int64, sink, what, event, reason string) error {
	if r.json {
		return writeJSON(r.stdout, v)
	}
	if reason != "" {
		reason = "  " + strconv.Quote(reason)
	}
	_, err := fmt.Fprintf(r.stdout, "%d  %s  %s  %s%s\n", id, visible.Word(sink), what, visible.Word(event), reason)
	return err
}

func (r *replayPrinter) begin(selected uint64) {
	r.bar = newProgress(r.stderr, "replaying", int64(selected), false)
}

func (r *replayPrinter) each(l pipeline.LetterResult) {
	r.seen++
	r.bar.set(r.seen)
	if r.json || l.Fate == pipeline.FateRefused || l.Fate == pipeline.FateLater {
		r.failed = errors.Join(r.failed, r.write(l, l.DLQID, l.Sink, string(l.Fate), l.ID, l.Reason))
	}
}

// end takes the bar away and prints the numbers.
func (r *replayPrinter) end(s pipeline.ReplaySummary, err error) error {
	r.bar.end()
	if r.json {
		r.failed = errors.Join(r.failed, writeJSON(r.stdout, s))
	}
	if err == nil || r.seen > 0 {
		fmt.Fprintf(r.stderr, "replayed %d of %d: stored %d, skipped %d, refused again %d, left for later %d\n",
			r.seen, s.Selected, s.Stored, s.Skipped, s.Refused, s.Later)
	}
	return r.failed
}
