package main

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/sign"
)

func newVerify() *cobra.Command {
	c := &cobra.Command{
		Use:   "verify [-c FILE | LEDGER] [--key PUBLIC]... [--head SEQUENCE:ROW_HASH]",
		Short: "Check a ledger: chain, hashes, signatures, contents",
		Long: `Reads the ledger of the configuration, or the file LEDGER, and checks every row:
sequence, link, hashes, signature, and that the payload says what the columns
say; and the file: that its schema is a ledger's, and its indexes agree with the
rows. Nothing is written. The public key of the configuration counts as given.

Exits with
  0   verified
  3   broken: the first such row is named; or the file, if its schema was changed
      or its structure is damaged, so that rows read otherwise than they are stored
  4   nothing is broken, but there are signatures whose key was not given, or a
      key was given and there are rows without a signature; or there are no rows,
      or tables and views that are not a ledger's
  1   the ledger can't be read
A ledger that is unsigned as a whole verifies without a key, and not_checked
says so.

What that proves: a valid signature protects the text of its event, its id, agent,
type, time and payload. Which events there are, and in which order, only the chain
tells, and a chain needs no key: who can write the ledger can remove, move or cut
off rows and make it anew. Rows up to a head that was remembered elsewhere, a
receipt's, are covered by it: give it with --head. With -c the ledger must also
have the head that audit-host remembers in its state directory, which is as safe
as that. not_checked says from where on nothing covers the order.

Indexes idx_user_… on columns of the table and tables _litestream_… may be there,
and are named.`,
		Args: arguments(0, 1),
	}
	path := configFlag(c)
	keys := c.Flags().StringArray("key", nil, "public key `FILE`; may be given more than once")
	head := c.Flags().String("head", "", "a head that was remembered, as `SEQUENCE:ROW_HASH`")
	asJSON := jsonFlag(c, "write the report as one JSON object")
	c.RunE = func(c *cobra.Command, args []string) error {
		var o ledger.VerifyOptions
		if *head != "" {
			remembered, err := ledger.ParseHead(*head)
			if err != nil {
				return usageError("--%w", err)
			}
			o.Head = &remembered
		}
		file, err := ledgerFile(c, *path, args)
		if err != nil {
			return err
		}
		// Before the ledger is opened: what is remembered by then is in it. The
		// state directory is the daemon's alone, so that an auditor may have to do
		// without.
		var unreadable error
		o.Own, unreadable = file.remembered()
		for _, name := range append(file.keys(), *keys...) {
			key, err := sign.ReadPublic(name)
			if err != nil {
				return err
			}
			o.Keys = append(o.Keys, ed25519.PublicKey(key))
		}
		if err := startSQLite(file.cfg); err != nil {
			return err
		}
		var bar progress
		var begun sync.Once
		o.Progress = func(rows, total uint64) {
			begun.Do(func() { bar = newProgress(c.ErrOrStderr(), "verifying", int64(total), false) })
			bar.set(int64(rows))
		}
		report, err := ledger.Verify(c.Context(), file.path, o)
		bar.end()
		if err != nil {
			return err
		}
		if unreadable != nil {
			report.NotChecked = append(report.NotChecked, fmt.Sprintf("the head that audit-host remembers: %v", unreadable))
		}
		if *asJSON {
			err = writeJSON(c.OutOrStdout(), report)
		} else {
			err = describe(c.OutOrStdout(), file.path, report)
		}
		switch {
		case err != nil:
			return err
		case report.BrokenAt != nil:
			return exitWith(exitBroken)
		case !report.Verified:
			return exitWith(exitUnchecked)
		}
		return nil
	}
	return c
}

// describe writes the report for people.
func describe(w io.Writer, path string, r ledger.Report) error {
	p := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	text := p("verified: %s, %d rows\n", path, r.Rows)
	switch {
	case r.BrokenAt != nil && *r.BrokenAt == 0:
		text = p("BROKEN: %s: %s\n%d rows were read and are sound by themselves\n", path, r.Reason, r.Rows)
	case r.BrokenAt != nil:
		text = p("BROKEN: %s, row %d: %s\n%d rows before it are sound\n", path, *r.BrokenAt, r.Reason, r.Rows)
	case !r.Verified:
		text = p("NOT VERIFIED: %s, %d rows, nothing is broken, but could not check %s\n", path, r.Rows, r.Reason)
	}
	text += p("head: %d:%s\n", r.Head.Sequence, r.Head.RowHash)
	text += p("signatures: %d valid, %d unsigned, %d of an unknown key, %d invalid\n",
		r.Signatures.Valid, r.Signatures.Unsigned, r.Signatures.UnknownKey, r.Signatures.Invalid)
	if len(r.Allowed) > 0 {
		text += p("besides, and ignored: %s\n", strings.Join(r.Allowed, ", "))
	}
	for _, what := range r.NotChecked {
		text += p("not checked: %s\n", what)
	}
	_, err := io.WriteString(w, text)
	return err
}
