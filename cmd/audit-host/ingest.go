package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/statedir"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// summary is what became of the lines of a file.
type summary struct {
	Read         uint64  `json:"read"`     // lines that are not blank
	Accepted     uint64  `json:"accepted"` // taken by the queue
	Rejected     uint64  `json:"rejected"` // no event of a line could be recorded
	Skipped      uint64  `json:"skipped"`  // decisions that are not recorded
	Appended     uint64  `json:"appended"`
	DeadLettered uint64  `json:"dead_lettered"`
	Remained     uint64  `json:"remained"` // accepted without an outcome
	Seconds      float64 `json:"seconds"`
}

func newIngest() *cobra.Command {
	var formats []string
	for _, f := range event.Formats {
		formats = append(formats, f.Name)
	}
	c := &cobra.Command{
		Use:   "ingest [-c FILE] [--format " + strings.Join(formats, "|") + "] FILE|-",
		Short: "Land a file of JSON Lines in the ledger",
		Long: `Reads one event a line, waits until each has its final outcome, and prints a
summary. A line that is no event is named by its number and does not stop the
rest. It needs the state directory for itself, so no daemon may run on it.

An event whose id is in the ledger already counts as appended and adds no row:
a file of events with ids of their own can be ingested again after a failure.

Exits with
  0   every line was appended or skipped
  1   a line was rejected, or events remained without an outcome
  5   no line was rejected, but some events are dead letters
  78  the configuration has a problem`,
		Args: arguments(1, 1),
	}
	path := configFlag(c)
	format := c.Flags().String("format", formats[0], "what a line is: `"+strings.Join(formats, "|")+"`")
	asJSON := jsonFlag(c, "write the summary to stdout as one JSON object")
	c.RunE = func(c *cobra.Command, args []string) error {
		i := slices.Index(formats, *format)
		if i < 0 {
			return usageError("--format must be %s, not %q: %s", strings.Join(formats, " or "), *format, meant(*format, formats, c))
		}
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		parse, err := pipeline.Parser(cfg, event.Formats[i])
		if err != nil {
			return err
		}
		in, size, err := openInput(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		defer in.Close()
		ctx, stop := untilSignal(c.Context())
		defer stop()
		s, err := land(ctx, landing{cfg: cfg, parse: parse, in: in, size: size, stderr: c.ErrOrStderr()})
		if errors.Is(err, statedir.ErrInUse) {
			return fmt.Errorf("%w; or post the events to the daemon that runs", err)
		}
		if s == nil {
			return err
		}
		if *asJSON {
			err = errors.Join(err, writeJSON(c.OutOrStdout(), s))
		}
		fmt.Fprintf(c.ErrOrStderr(), "read %d, accepted %d, rejected %d, skipped %d, appended %d, dead letters %d, remained %d, in %.1f s (%.0f rows/s)\n",
			s.Read, s.Accepted, s.Rejected, s.Skipped, s.Appended, s.DeadLettered, s.Remained, s.Seconds, float64(s.Appended)/max(s.Seconds, 1e-3))
		switch {
		case err != nil:
			return err
		case s.Rejected > 0:
			return exitWith(exitFailed)
		case s.DeadLettered > 0:
			return exitWith(exitDeadLetters)
		}
		return nil
	}
	return c
}

// landing is a file on its way into the ledger.
type landing struct {
	cfg    *config.Config
	parse  ingest.Parse
	in     io.Reader
	size   int64 // of the file in bytes; 0 if it isn't known
	stderr io.Writer
}

// land reads all lines and waits for their outcomes. The summary is nil if
// nothing was begun; it is true also when there is an error.
func land(ctx context.Context, l landing) (*summary, error) {
	p, err := pipeline.Open(ctx, pipeline.Options{Config: l.cfg, Log: newLogger(l.cfg.Log, l.stderr), Bulk: true})
	if err != nil {
		return nil, err
	}
	began := time.Now()
	s := &summary{}
	readErr := l.read(ctx, p.Recorder, s)
	_, drainErr := p.Recorder.DrainPending(ctx)
	// Whoever interrupted waits for the drain once more, within its bound.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(l.cfg.DrainTimeout, time.Millisecond))
	defer cancel()
	report, err := p.Close(last)
	s.Appended, s.DeadLettered, s.Remained = report.Appended, report.DeadLettered, report.Remained
	s.Seconds = time.Since(began).Seconds()
	if err == nil && errors.Is(drainErr, queue.ErrParked) {
		err = drainErr
	}
	if errors.Is(readErr, context.Canceled) {
		readErr = errors.New("interrupted: the lines after the last one read were not ingested")
	}
	return s, errors.Join(readErr, err)
}

// read hands every line to the recorder.
func (l *landing) read(ctx context.Context, r *queue.Recorder, s *summary) error {
	taker := ingest.Taker{Intake: r.From(pipeline.SourceIngest), Parse: l.parse,
		Record: pipeline.Recorded(l.cfg), MaxEvent: int(l.cfg.HTTP.MaxEvent)}
	bar := newProgress(l.stderr, "ingesting", l.size, l.size > 0)
	defer bar.end()
	bad := complaints{stderr: l.stderr}
	defer bad.end()
	seen := int64(0)
	var err, stopped error
	lines := event.Elements{Each: func(f func(raw []byte, line int) bool) *event.Broken {
		err = readLines(ctx, l.in, taker.MaxEvent, &bad, func(line int, raw []byte) error {
			f(raw, line)
			return stopped
		})
		return nil
	}}
	taker.Run(ctx, lines, func(t *ingest.Taken) bool {
		s.Read++
		if seen += int64(len(t.Raw)) + 1; s.Read%1024 == 0 {
			bar.set(seen)
		}
		switch t.Status {
		case event.StatusAccepted:
			s.Accepted++
		case event.StatusSkipped:
			s.Skipped++
		case event.StatusRejected:
			bad.add(t.Line, t.Err)
		default:
			if stopped = ctx.Err(); stopped == nil {
				stopped = fmt.Errorf("line %d: %w", t.Line, t.Err)
			}
		}
		return stopped == nil
	})
	s.Rejected = uint64(bad.n)
	s.Read += uint64(bad.long)
	return err
}
