package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/ledger/chain"
)

// rowJSON is a row for machines. Hashes and signature are hexadecimal.
type rowJSON struct {
	Sequence    uint64          `json:"sequence"`
	ID          string          `json:"id"`
	AgentID     string          `json:"agent_id"`
	EventType   string          `json:"event_type"`
	Timestamp   string          `json:"timestamp"`
	Payload     json.RawMessage `json:"payload"`
	PayloadHash string          `json:"payload_hash"`
	AttestLevel string          `json:"attest_level"`
	Signature   *string         `json:"signature"` // null if unsigned
	KeyID       *string         `json:"key_id"`
	PrevHash    string          `json:"prev_hash"`
	RowHash     string          `json:"row_hash"`
}

func newTail() *cobra.Command {
	c := &cobra.Command{
		Use:   "tail [-c FILE | LEDGER] [-n N]",
		Short: "Show the last rows of a ledger",
		Long: `Shows the last rows, the oldest first: sequence, time, type, agent, rule, reason
and id. It only reads, and may do so beside a daemon. What it shows is not
verified.`,
		Args: arguments(0, 1),
	}
	path := configFlag(c)
	n := c.Flags().IntP("lines", "n", 10, "how many `N`")
	asJSON := jsonFlag(c, "write one JSON object a row, with all columns")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if *n < 0 {
			return usageError("-n must not be negative")
		}
		file, err := ledgerFile(c, *path, args)
		if err != nil {
			return err
		}
		l, closeLedger, err := file.open(c.Context())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeLedger()) }()
		rows, err := l.Tail(c.Context(), *n)
		if err != nil {
			return err
		}
		w := c.OutOrStdout()
		if *asJSON {
			w = visible.Data(w) // a payload is what its hash says, byte for byte
		}
		out := bufio.NewWriter(w)
		for i := range rows {
			if *asJSON {
				err = writeJSON(out, rowForJSON(&rows[i]))
			} else {
				_, err = fmt.Fprintln(out, rowForPeople(&rows[i]))
			}
			if err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		tellUndurable(c, l.OnDisk())
		return nil
	}
	return c
}

func rowForJSON(r *chain.Row) rowJSON {
	j := rowJSON{
		Sequence: r.Sequence, ID: r.ID, AgentID: r.AgentID, EventType: r.EventType, Timestamp: r.Timestamp,
		Payload: r.Payload, PayloadHash: hex.EncodeToString(r.PayloadHash), AttestLevel: r.AttestLevel,
		PrevHash: hex.EncodeToString(r.PrevHash), RowHash: hex.EncodeToString(r.RowHash),
	}
	if !json.Valid(r.Payload) { // somebody changed it; verify says more
		j.Payload, _ = json.Marshal(string(r.Payload))
	}
	if r.Signature != nil {
		signature := hex.EncodeToString(r.Signature)
		j.Signature, j.KeyID = &signature, &r.KeyID
	}
	return j
}

func rowForPeople(r *chain.Row) string {
	text := fmt.Sprintf("%d  %s  %s  %s", r.Sequence, visible.Word(r.Timestamp), visible.Word(r.EventType), visible.Word(r.AgentID))
	d, err := event.DecisionOf(abi.Event{ID: r.ID, Payload: r.Payload})
	switch {
	case err != nil:
		text += "  (unreadable payload)"
	case d.Kind != event.KindAllow:
		text += fmt.Sprintf("  %s  %s", visible.Word(d.RuleID), strconv.Quote(d.Reason))
	}
	return text + "  " + visible.Word(r.ID)
}
