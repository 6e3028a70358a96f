package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/host"
)

// letterJSON is a dead letter for machines.
type letterJSON struct {
	DLQID     int64           `json:"dlq_id"`
	ID        string          `json:"id"`
	Sink      string          `json:"sink"`
	AgentID   string          `json:"agent_id"`
	EventType string          `json:"event_type"`
	Timestamp string          `json:"timestamp"`
	FailedAt  time.Time       `json:"failed_at"`
	Outcome   string          `json:"outcome"`
	Reason    string          `json:"reason"`
	Attempts  uint32          `json:"attempts"`
	Plugin    string          `json:"plugin"`
	Stderr    string          `json:"stderr"`
	Payload   json.RawMessage `json:"payload"`       // null where raw stands
	Raw       *string         `json:"raw,omitempty"` // what could not be made an event
}

func newDLQList() *cobra.Command {
	c := &cobra.Command{
		Use:   "list [-c FILE]",
		Short: "Show the events that no sink took",
		Long: `Shows the dead letters, the oldest first: number, time of the failure, sink,
outcome, attempts, event id and reason. It only reads, and may do so beside a
daemon.`,
		Args: arguments(0, 0),
	}
	path := configFlag(c)
	asJSON := jsonFlag(c, "write one JSON object a letter, with its payload")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		file := cfg.DeadLetters.Path
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(c.ErrOrStderr(), "no dead letters")
			return nil
		}
		if err := startSQLite(cfg); err != nil {
			return err
		}
		letters, err := host.OpenDeadLettersReadOnly(file)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, letters.Close()) }()
		out := bufio.NewWriter(c.OutOrStdout())
		n := 0
		for after := int64(0); ; {
			page, err := letters.List(c.Context(), host.LetterFilter{After: after})
			if err != nil {
				return err
			}
			for i := range page {
				l := &page[i]
				after = l.DLQID
				if *asJSON {
					err = writeJSON(out, letterForJSON(l))
				} else {
					_, err = fmt.Fprintf(out, "%d  %s  %s  %s  %d attempts  %s  %s\n", l.DLQID, l.FailedAt.UTC().Format(time.RFC3339),
						plain(l.Sink), l.Outcome, l.Attempts, plain(l.Event.ID), strconv.Quote(l.Reason))
				}
				if err != nil {
					return err
				}
			}
			if n += len(page); len(page) == 0 {
				break
			}
		}
		if n == 0 {
			fmt.Fprintln(c.ErrOrStderr(), "no dead letters")
		}
		return out.Flush()
	}
	return c
}

func letterForJSON(l *host.Letter) letterJSON {
	e := &l.Event
	j := letterJSON{
		DLQID: l.DLQID, ID: e.ID, Sink: l.Sink, AgentID: e.AgentID, EventType: e.EventType, Timestamp: e.Timestamp,
		FailedAt: l.FailedAt, Outcome: l.Outcome.String(), Reason: l.Reason, Attempts: l.Attempts, Plugin: l.Plugin, Stderr: l.Stderr,
	}
	if l.Raw != nil {
		raw := string(l.Raw)
		j.Raw = &raw
	} else if json.Valid(e.Payload) {
		j.Payload = e.Payload
	}
	return j
}
