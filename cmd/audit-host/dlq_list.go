package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/deadletter"
)

// letterJSON is a dead letter for machines.
type letterJSON struct {
	DLQID       int64           `json:"dlq_id"`
	ID          string          `json:"id"`
	Sink        string          `json:"sink"`
	AgentID     string          `json:"agent_id"`
	EventType   string          `json:"event_type"`
	Timestamp   string          `json:"timestamp"`
	FailedAt    time.Time       `json:"failed_at"`
	Outcome     string          `json:"outcome"`
	Reason      string          `json:"reason"`
	Attempts    uint32          `json:"attempts"`
	Plugin      string          `json:"plugin"`
	Stderr      string          `json:"stderr"`
	Payload     json.RawMessage `json:"payload"`       // null where raw stands
	Raw         *string         `json:"raw,omitempty"` // what could not be made an event
	PayloadHash string          `json:"payload_hash"`
	AttestLevel string          `json:"attest_level"`
	KeyID       string          `json:"key_id"`
	Position    uint64          `json:"position"` // in the queue
	Replays     uint32          `json:"replays"`
	ReplayedAt  *time.Time      `json:"replayed_at"`
	ResolvedAt  *time.Time      `json:"resolved_at"` // null for one that is open
	Resolution  string          `json:"resolution"`
}

func newDLQList() *cobra.Command {
	c := &cobra.Command{
		Use:   "list [-c FILE] [--state open|resolved|all] [FILTER...] [NUMBER...]",
		Short: "Show the events that no sink took",
		Long: `Shows the dead letters, the oldest first: number, time of the failure, sink,
outcome, attempts, event id and reason. It only reads, and may do so beside a
daemon. Without --state those are shown that are open, that is, that no replay
has resolved.`,
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write one JSON object a letter, with its payload")
	var flags letterFlags
	flags.add(c)
	state := c.Flags().String("state", "", "which letters: `open|resolved|all`; open, or all if they are named by numbers")
	c.RunE = func(c *cobra.Command, args []string) error {
		return showLetters(c, *path, &flags, *state, args, func(out io.Writer, l *deadletter.Letter) error {
			if *asJSON {
				return writeJSON(out, letterForJSON(l))
			}
			_, err := fmt.Fprintln(out, letterLine(l))
			return err
		})
	}
	return c
}

func newDLQShow() *cobra.Command {
	c := &cobra.Command{
		Use:   "show [-c FILE] [FILTER...] NUMBER...",
		Short: "Show all that is known about dead letters",
		Long: `Shows everything about the dead letters with these numbers, or about those that
the filters select: event and payload, reason or trap, what the plugin wrote to
stderr, attempts, the plugin's digest, and what replays did.`,
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write one JSON object a letter")
	var flags letterFlags
	flags.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if !flags.any(args) {
			return usageError("%s: which ones? Give numbers, see dlq list, or a filter such as --event-id", c.CommandPath())
		}
		return showLetters(c, *path, &flags, "all", args, func(out io.Writer, l *deadletter.Letter) error {
			if *asJSON {
				return writeJSON(out, letterForJSON(l))
			}
			_, err := io.WriteString(out, letterText(l))
			return err
		})
	}
	return c
}

// showLetters writes the letters that the flags select.
func showLetters(c *cobra.Command, path string, flags *letterFlags, state string, args []string, show func(io.Writer, *deadletter.Letter) error) (err error) {
	f, err := flags.filter(c, args, time.Now())
	if err != nil {
		return err
	}
	switch states := []string{"open", "resolved", "all"}; {
	case state == "" && len(f.IDs) == 0:
		f.State = deadletter.StateOpen
	case state == "", state == "all":
	case state == "open", state == "resolved":
		f.State = deadletter.State(state)
	default:
		return usageError("--state must be open, resolved or all, not %q: %s", state, meant(state, states, c))
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	letters, err := readLetters(c, cfg)
	if err != nil || letters == nil {
		return err
	}
	defer func() { err = errors.Join(err, letters.Close()) }()
	w := c.OutOrStdout()
	if asJSON, _ := c.Flags().GetBool("json"); asJSON {
		w = visible.Data(w) // a payload is what its hash says, byte for byte
	}
	out := bufio.NewWriter(w)
	seen := map[int64]bool{}
	n, err := eachLetter(c.Context(), letters, f, func(l *deadletter.Letter) error {
		if len(f.IDs) > 0 {
			seen[l.DLQID] = true
		}
		return show(out, l)
	})
	if err = errors.Join(err, out.Flush()); err != nil {
		return err
	}
	if f.State == deadletter.StateOpen {
		other := f
		other.State = deadletter.StateResolved
		if t, err := letters.Tally(c.Context(), other); err != nil {
			return err
		} else if t.Resolved > 0 {
			fmt.Fprintf(c.ErrOrStderr(), "%d more are resolved: --state resolved shows them, dlq purge removes them\n", t.Resolved)
		}
	}
	tellUndurable(c, letters.OnDisk())
	if n == 0 && len(f.IDs) == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "no dead letters")
	}
	return missingLetters(f.IDs, seen)
}

// letterLine is a letter in one line.
func letterLine(l *deadletter.Letter) string {
	line := fmt.Sprintf("%d  %s  %s  %s  %d attempts  %s  %s", l.DLQID, l.FailedAt.UTC().Format(time.RFC3339),
		visible.Word(l.Sink), l.Outcome, l.Attempts, visible.Word(l.Event.ID), strconv.Quote(l.Reason))
	if !l.ResolvedAt.IsZero() {
		line += "  resolved " + l.ResolvedAt.UTC().Format(time.RFC3339)
	}
	return line
}

// letterText is all of a letter, for a person.
func letterText(l *deadletter.Letter) string {
	var b strings.Builder
	e := &l.Event
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	block := func(name, text string) {
		if text == "" {
			line(name, "-")
			return
		}
		fmt.Fprintf(&b, "  %s\n", name)
		for row := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
			fmt.Fprintf(&b, "    %s\n", visible.Line(row))
		}
	}
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	state := "open"
	if !l.ResolvedAt.IsZero() {
		state = "resolved"
	}
	fmt.Fprintf(&b, "dead letter %d, %s\n", l.DLQID, state)
	line("failed at", "%s", at(l.FailedAt))
	line("sink", "%s", visible.Word(l.Sink))
	line("plugin", "%s", visible.Word(l.Plugin))
	line("outcome", "%s", l.Outcome)
	line("attempts", "%d", l.Attempts)
	if l.Replays > 0 {
		line("replays", "%d, the last one at %s", l.Replays, at(l.ReplayedAt))
	}
	if !l.ResolvedAt.IsZero() {
		line("resolved at", "%s, %s", at(l.ResolvedAt), visible.Line(l.Resolution))
	}
	line("event id", "%s", visible.Word(e.ID))
	line("event type", "%s", visible.Word(e.EventType))
	line("agent", "%s", visible.Word(e.AgentID))
	line("timestamp", "%s", visible.Word(e.Timestamp))
	line("position", "%d", e.Seq)
	if l.Raw == nil {
		line("payload hash", "%x", e.PayloadHash)
		line("signature", "%s %s", e.AttestLevel, visible.Word(e.KeyID))
	}
	block("reason", l.Reason)
	block("stderr", l.Stderr)
	if l.Raw != nil {
		block("raw", string(l.Raw))
	} else {
		block("payload", string(e.Payload))
	}
	return b.String()
}

func letterForJSON(l *deadletter.Letter) letterJSON {
	e := &l.Event
	j := letterJSON{
		DLQID: l.DLQID, ID: e.ID, Sink: l.Sink, AgentID: e.AgentID, EventType: e.EventType, Timestamp: e.Timestamp,
		FailedAt: l.FailedAt, Outcome: l.Outcome.String(), Reason: l.Reason, Attempts: l.Attempts, Plugin: l.Plugin, Stderr: l.Stderr,
		AttestLevel: e.AttestLevel, KeyID: e.KeyID, Position: e.Seq, Replays: l.Replays, Resolution: l.Resolution,
	}
	for _, t := range []struct {
		at   time.Time
		into **time.Time
	}{{l.ReplayedAt, &j.ReplayedAt}, {l.ResolvedAt, &j.ResolvedAt}} {
		if !t.at.IsZero() {
			*t.into = &t.at
		}
	}
	if l.Raw != nil {
		raw := string(l.Raw)
		j.Raw = &raw
		return j
	}
	j.PayloadHash = hex.EncodeToString(e.PayloadHash[:])
	if json.Valid(e.Payload) {
		j.Payload = e.Payload
	}
	return j
}
