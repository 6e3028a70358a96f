// Package audit verifies a ledger: on all processors, in constant memory, with
// public keys only.
//
// Checked are, for every row: its sequence, the link to the row before, the
// hash of its payload, its row hash, its signature; that its payload is the
// canonical JSON of one event; and that agent, time and event type in the
// payload are those of the columns. At the end: that no row is missing after
// the last one, as far as SQLite's own counter and a head that was remembered
// elsewhere tell; and that the file holds no row beside those that were read.
//
// # Verified, broken, not checked
//
// A [Report] is verified if nothing is broken and all that was asked could be
// checked. Three things are asked for without a word: the signatures, if there
// are any, and a key was given or not; signatures on all rows, if a key was
// given; and all of the ledger's log. So a signed ledger without a key, rows
// signed by a key that was not given, unsigned rows in spite of a key, and a log
// with a damaged frame make a report incomplete. NotChecked names these and,
// besides, what nobody asked for: no key and no signature at all, and no
// remembered head.
//
// Not guaranteed: that rows were not cut off the end by somebody who also set
// SQLite's counter back. Only a remembered head shows that.
package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/seal"
)

// Ledger is what is verified; *host.Ledger implements it. An error that wraps
// *host.RowError is a break.
type Ledger interface {
	// Page reads rows that follow the sequence after, from the first one if that
	// is 0, in order, up to last or until the page is full. With an error the
	// page has those before it.
	Page(ctx context.Context, after, last uint64, p *host.Page) error
	// Last returns the largest sequence, and Count the number of rows.
	Last(ctx context.Context) (uint64, error)
	Count(ctx context.Context) (uint64, error)
	// HighWater returns the largest sequence that there ever was.
	HighWater(ctx context.Context) (uint64, error)
}

// Head is a row that the chain was known to have.
type Head struct {
	Sequence uint64 `json:"sequence"`
	RowHash  string `json:"row_hash"` // hexadecimal, lower case
}

// ParseHead reads SEQUENCE:ROW_HASH.
func ParseHead(text string) (Head, error) {
	number, hash, found := strings.Cut(text, ":")
	sequence, err := strconv.ParseUint(number, 10, 63)
	raw, hexErr := hex.DecodeString(hash)
	if !found || err != nil || sequence == 0 || hexErr != nil || len(raw) != ledger.HashSize {
		return Head{}, fmt.Errorf("head %q is not of the form SEQUENCE:ROW_HASH, a number from 1 and %d hexadecimal digits", text, 2*ledger.HashSize)
	}
	return Head{sequence, hex.EncodeToString(raw)}, nil
}

// Options say what is asked for.
type Options struct {
	// Readers read the same ledger beside the one that is given, each on a
	// goroutine of its own: as many as there are other processors.
	Readers []Ledger
	Keys    []ed25519.PublicKey
	// Head is one that was remembered elsewhere, Own the one that the ledger's
	// writer remembers, which is as safe as its disk. nil: there is none.
	Head, Own *Head
	// Unread is what of the ledger's log could not be read; empty if nothing.
	Unread string
	// Progress is told the number of rows from time to time; nil is not.
	Progress func(rows uint64)
}

func (o Options) heads() (all []Head) {
	for _, h := range []*Head{o.Head, o.Own} {
		if h != nil {
			all = append(all, *h)
		}
	}
	return all
}

// Report is what was found.
type Report struct {
	Verified   bool            `json:"verified"`
	Rows       uint64          `json:"rows"`      // that were verified
	Head       Head            `json:"head"`      // the last of them; zeros if there is none
	BrokenAt   *uint64         `json:"broken_at"` // the sequence; nil if nothing is broken
	Reason     string          `json:"reason"`    // why it is not verified; empty if it is
	Signatures seal.Signatures `json:"signatures"`
	NotChecked []string        `json:"not_checked"`
}

// maxPayload is beyond every payload that a configuration admits.
const maxPayload = 128 << 20

// Verify reads the whole ledger. The error is that of reading or of ctx, and
// never a break.
func Verify(ctx context.Context, l Ledger, o Options) (Report, error) {
	found, err := walk(ctx, l, o)
	if err != nil {
		return Report{}, err
	}
	head, breach := Head{found.head.Sequence, hex.EncodeToString(found.head.RowHash[:])}, found.breach
	if breach == nil {
		if breach, err = end(ctx, l, found, o.heads()); err != nil {
			return Report{}, err
		}
	}
	r := Report{Rows: head.Sequence, Head: head, Signatures: found.signatures}
	var asked []string
	asked, r.NotChecked = unchecked(r.Signatures, o)
	switch {
	case breach != nil:
		r.BrokenAt, r.Reason = &breach.Sequence, breach.Reason
		r.NotChecked = append([]string{fmt.Sprintf("the rows from %d on", breach.Sequence)}, r.NotChecked...)
	case len(asked) > 0:
		r.Reason = strings.Join(asked, "; ")
	default:
		r.Verified = true
	}
	return r, nil
}

// end looks for rows that are missing after the last one.
func end(ctx context.Context, l Ledger, found result, heads []Head) (*seal.Break, error) {
	rows := found.head.Sequence
	missing := func(format string, args ...any) (*seal.Break, error) {
		return &seal.Break{Sequence: rows + 1, Reason: fmt.Sprintf(format, args...)}, nil
	}
	high, err := l.HighWater(ctx)
	if err != nil {
		return nil, err
	}
	if found.count == nil {
		n, err := l.Count(ctx)
		if damaged := (*host.RowError)(nil); errors.As(err, &damaged) {
			return missing("%s; it shows where the rows are counted", damaged.Reason)
		}
		if err != nil {
			return nil, err
		}
		found.count = &n
	}
	beyond := slices.IndexFunc(heads, func(h Head) bool { return h.Sequence > rows })
	switch {
	case high > rows:
		return missing("missing at the end, with all up to %d: SQLite's counter has come so far", high)
	case high < rows:
		return missing("SQLite's counter stands at %d and the last row is %d: it was set back, and rows after the last one may be missing", high, rows)
	case beyond >= 0:
		return missing("missing at the end, with all up to the remembered head %d", heads[beyond].Sequence)
	case *found.count != rows:
		// Pages that are out of order hide rows from whoever looks for the next
		// sequence, and show them to whoever reads all.
		return missing("the file holds %d rows, and %d by their sequences: it is damaged", *found.count, rows)
	}
	return nil, nil
}

// unchecked returns what was asked for and could not be checked, and all that
// was not checked.
func unchecked(s seal.Signatures, o Options) (asked, all []string) {
	all = []string{}
	add := func(format string, args ...any) { asked = append(asked, fmt.Sprintf(format, args...)) }
	if o.Unread != "" {
		add("rows that were committed and may be missing at the end: %s", o.Unread)
	}
	switch {
	case s.UnknownKey > 0 && len(o.Keys) == 0:
		add("the signatures of %d rows: no public key was given", s.UnknownKey)
	case s.UnknownKey > 0:
		add("the signatures of %d rows: their key is none of those given", s.UnknownKey)
	}
	switch {
	case s.Unsigned > 0 && len(o.Keys) > 0:
		add("who wrote %d rows: they are unsigned, although a public key was given", s.Unsigned)
	case s.Unsigned > 0:
		all = append(all, fmt.Sprintf("who wrote %d rows: they are unsigned", s.Unsigned))
	}
	all = append(append([]string{}, asked...), all...)
	switch {
	case o.Head == nil && o.Own != nil:
		all = append(all, fmt.Sprintf("whether rows after %d are missing at the end, or before it if the state directory was set back with the ledger: no head remembered elsewhere was given", o.Own.Sequence))
	case o.Head == nil:
		all = append(all, "whether rows are missing at the end in spite of SQLite's counter: no remembered head was given")
	}
	return asked, all
}
