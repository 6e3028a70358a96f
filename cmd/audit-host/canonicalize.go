package main

import (
	"bufio"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/visible"
	"github.com/audit-host/audit-host/event"
)

func newCanonicalize() *cobra.Command {
	return &cobra.Command{
		Use:   "canonicalize [FILE|-]",
		Short: "Show the canonical bytes of native events and their hashes",
		Long: `Reads one native event, or one payload, a line and writes "SHA-256 TAB canonical
bytes" a line: what the ledger holds as payload_hash and payload. A line that
is no event is named by its number and left out; the exit code is then 1.`,
		Args: arguments(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			name := "-"
			if len(args) > 0 {
				name = args[0]
			}
			in, _, err := openInput(name, c.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			out := bufio.NewWriterSize(visible.Data(c.OutOrStdout()), 64<<10)
			bad := complaints{stderr: c.ErrOrStderr()}
			const most = 8 * event.MaxPayload // no longer text is read as an event
			err = readLines(c.Context(), in, most, &bad, func(line int, raw []byte) error {
				canonical, hash, err := event.Canonicalize(raw)
				if err != nil {
					bad.add(line, err)
					return nil
				}
				out.WriteString(hex.EncodeToString(hash[:]))
				out.WriteByte('\t')
				out.Write(canonical)
				return out.WriteByte('\n') // the writer keeps an earlier error
			})
			bad.end()
			if e := out.Flush(); e != nil {
				return fmt.Errorf("write canonical bytes: %w", e)
			}
			if err == nil && bad.n > 0 {
				return exitWith(exitFailed)
			}
			return err
		},
	}
}
