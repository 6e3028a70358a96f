package ledger

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// source is what is verified; *Reader implements it. An error that wraps *[RowError]
// is a break.
type source interface {
	// Page reads rows that follow the sequence after, from the first one if that
	// is 0, in order, up to last or until the page is full. With an error the
	// page has those before it.
	readPage(ctx context.Context, after, last uint64, p *rowPage) error
	// Last returns the largest sequence.
	lastSequence(ctx context.Context) (uint64, error)
	// Integrity returns what is wrong with the file's structure: nil is nothing.
	integrity(ctx context.Context) ([]string, error)
	// HighWater returns the largest sequence that there ever was.
	highWater(ctx context.Context) (uint64, error)
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
	if !found || err != nil || sequence == 0 || hexErr != nil || len(raw) != chain.HashSize {
		return Head{}, fmt.Errorf("head %q is not of the form SEQUENCE:ROW_HASH, a number from 1 and %d hexadecimal digits", text, 2*chain.HashSize)
	}
	return Head{sequence, hex.EncodeToString(raw)}, nil
}

// VerifyOptions say what is asked for.
type VerifyOptions struct {
	Keys []ed25519.PublicKey
	// Head is one that was remembered elsewhere, Own the one that the ledger's
	// writer remembers, which is as safe as its disk. nil: there is none.
	Head, Own *Head
	// Progress is told the number of rows from time to time, of total; nil is not.
	Progress func(rows, total uint64)

	// readers read the same ledger beside the one that is given, each on a
	// goroutine of its own: as many as there are other processors.
	readers []source
	// unread is what of the ledger's log could not be read; empty if nothing.
	unread string
	// noLog is where the log would be that is not there; empty if there need not be
	// one.
	noLog string
	// foreign are objects in the file that are no ledger's, allowed those that may
	// be there.
	foreign, allowed []string
	// onDisk is asked after reading why it is not known that what was read is on
	// disk; nil if all is.
	onDisk func() error
	total  uint64 // rows, as far as it is known
}

func (o VerifyOptions) heads() (all []Head) {
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
	BrokenAt   *uint64         `json:"broken_at"` // the sequence, 0 for the file itself; nil if nothing is broken
	Reason     string          `json:"reason"`    // why it is not verified; empty if it is
	Signatures sign.Signatures `json:"signatures"`
	NotChecked []string        `json:"not_checked"`
	Allowed    []string        `json:"allowed"` // objects in the file that are not the ledger's and may be there
}

// changed is the report on a ledger of which no row was read, because its schema
// was changed; how is what the error says.
func changed(err *FormatError) Report {
	r := Report{BrokenAt: new(uint64), Reason: "its schema was changed, by which rows may read otherwise than they are stored: " + err.Reason, NotChecked: []string{"the rows: mend the schema first"}, Allowed: []string{}}
	r.Head.RowHash = hex.EncodeToString(make([]byte, chain.HashSize))
	return r
}

// Readers beside the first: each is an instance of SQLite, some megabytes, and takes
// some milliseconds to start.
const (
	maxReaders    = 15
	rowsPerReader = 8 * pageRows
)

// Verify checks the ledger in a file and everything in it. The report says what was
// found: a break is no error. The error is that of reading the file, or of ctx; one
// that wraps *[FormatError] says that it is no ledger. It writes nothing.
func Verify(ctx context.Context, path string, o VerifyOptions) (r Report, err error) {
	l, err := Open(path)
	if e := (*FormatError)(nil); errors.As(err, &e) && e.Changed {
		return changed(e), nil
	}
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	// The counter of a sound ledger is its number of rows, without counting.
	total, err := l.highWater(ctx)
	if err != nil && !errors.As(err, new(*RowError)) {
		return r, err
	}
	o.total = total
	// A reader for each processor, if there is something to do for it.
	for range min(runtime.GOMAXPROCS(0)-1, maxReaders, int(total/rowsPerReader)) {
		other, openErr := l.another()
		if openErr != nil {
			return r, openErr
		}
		defer func() { err = errors.Join(err, other.Close()) }()
		o.readers = append(o.readers, other)
	}
	o.unread, o.noLog, o.foreign, o.allowed, o.onDisk = l.notRead(), l.noLog(), l.Foreign(), l.allowed, l.OnDisk
	r, err = verifyAll(ctx, l, o)
	if e := (*FormatError)(nil); errors.As(err, &e) && e.Changed {
		return changed(e), nil
	}
	return r, err
}

// maxPayload is beyond every payload that a configuration admits.
const maxPayload = 128 << 20

// verifyAll reads the whole ledger. The error is that of reading or of ctx, and
// never a break.
func verifyAll(ctx context.Context, l source, o VerifyOptions) (Report, error) {
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
	r := Report{Rows: head.Sequence, Head: head, Signatures: found.signatures, Allowed: append([]string{}, o.allowed...)}
	var asked []string
	asked, r.NotChecked = unchecked(r, o)
	if o.onDisk != nil {
		if err := o.onDisk(); err != nil {
			r.NotChecked = append(r.NotChecked, fmt.Sprintf("whether its last rows are on disk: %v", err))
		}
	}
	switch {
	case breach != nil && breach.Sequence == 0:
		r.BrokenAt, r.Reason = &breach.Sequence, breach.Reason
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

// end looks for rows that are missing after the last one, and for damage of the
// file that no row shows.
func end(ctx context.Context, l source, found result, heads []Head) (*sign.Break, error) {
	rows := found.head.Sequence
	missing := func(format string, args ...any) (*sign.Break, error) {
		return &sign.Break{Sequence: rows + 1, Reason: fmt.Sprintf(format, args...)}, nil
	}
	high, err := l.highWater(ctx)
	if damaged := (*RowError)(nil); errors.As(err, &damaged) {
		return &sign.Break{Reason: "SQLite's counter can't be read: " + damaged.Reason}, nil
	}
	if err != nil {
		return nil, err
	}
	if !found.checked {
		if found.problems, err = l.integrity(ctx); err != nil {
			return nil, err
		}
	}
	beyond := slices.IndexFunc(heads, func(h Head) bool { return h.Sequence > rows })
	switch {
	case high > rows:
		return missing("missing at the end, with all up to %d: SQLite's counter has come so far", high)
	case high < rows:
		return missing("SQLite's counter stands at %d and the last row is %d: it was set back, and rows after the last one may be missing", high, rows)
	case beyond >= 0:
		return missing("missing at the end, with all up to the remembered head %d", heads[beyond].Sequence)
	case len(found.problems) > 0:
		// Rows that are out of order on their pages, or an index that tells of
		// others than are there: who looks for one does not see what was checked.
		return &sign.Break{Reason: "the file is damaged, or was made to show other rows to who looks for one: " + strings.Join(found.problems, "; ")}, nil
	}
	return nil, nil
}

// unchecked returns what was asked for and could not be checked, and all that
// was not checked.
func unchecked(r Report, o VerifyOptions) (asked, all []string) {
	s := r.Signatures
	all = []string{}
	add := func(format string, args ...any) { asked = append(asked, fmt.Sprintf(format, args...)) }
	switch {
	case r.Rows == 0 && o.noLog != "":
		add("any rows: it has none; if it is the copy of one that is in use, they stand in its log %s, which is not beside it: copy both", o.noLog)
	case r.Rows == 0:
		add("any rows: it has none")
	}
	if o.unread != "" {
		add("rows that were committed and may be missing at the end: %s", o.unread)
	}
	if len(o.foreign) > 0 {
		add("what is not a ledger's and does not belong into the file: %s", strings.Join(o.foreign, "; "))
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
		all = append(all, fmt.Sprintf("who wrote %d rows, and whether their text was changed and the chain made anew: they are unsigned", s.Unsigned))
	}
	all = append(append([]string{}, asked...), all...)
	const lost = "were removed, moved or cut off the end and the chain made anew, for which no key is needed"
	switch given, own := sequenceOf(o.Head), sequenceOf(o.Own); {
	case given == 0 && own == 0:
		all = append(all, "whether rows "+lost+": no remembered head was given")
	case given >= own:
		all = append(all, fmt.Sprintf("whether rows after %d, the remembered head, %s", given, lost))
	default:
		all = append(all, fmt.Sprintf("whether rows after %d %s; nor those from %d on, if the state directory was set back with the ledger: no later head remembered elsewhere was given",
			own, lost, given+1))
	}
	return asked, all
}

func sequenceOf(h *Head) uint64 {
	if h == nil {
		return 0
	}
	return h.Sequence
}
