package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/ledger/chain"
)

// Bounds of a [Page]: it ends with the row that reaches one of them.
const (
	pageRows  = 512
	pageBytes = 1 << 20 // of payloads
)

// rowPage is a run of rows that Reader.readPage has read. Its memory is used again for
// the next one, so of a row only the texts may be kept without a copy. The zero
// value is ready to use.
type rowPage struct {
	Rows []chain.Row
	read rowReader
}

// readPage reads the rows that follow the sequence after, or, if that is 0, the first
// ones, in order: up to the sequence last, the end of the ledger, or the end of
// the page. With an error p has the rows before it; a *[RowError] says that the
// ledger is to blame.
func (l *Reader) readPage(ctx context.Context, after, last uint64, p *rowPage) error {
	p.Rows = p.Rows[:0]
	p.read.again()
	err := l.r.Do(ctx, func(c *sqlite.Conn) (err error) {
		if l.page == nil {
			if l.page, err = c.PrepareOwn(selectRows + " WHERE sequence > ? AND sequence <= ? ORDER BY sequence"); err != nil {
				return err
			}
		}
		defer l.page.Reset()
		from := int64(math.MinInt64) // no row of a ledger, but perhaps of this file
		if after > 0 {
			from = int64(min(after, math.MaxInt64))
		}
		if err := errors.Join(l.page.Set(1, from), l.page.Set(2, int64(min(last, math.MaxInt64)))); err != nil {
			return err
		}
		for bytes := 0; len(p.Rows) < pageRows && bytes < pageBytes; {
			if ok, err := l.page.Step(); err != nil || !ok {
				return err
			}
			if len(p.Rows) == cap(p.Rows) {
				p.Rows = append(p.Rows, chain.Row{})[:len(p.Rows)]
			}
			row := &p.Rows[:len(p.Rows)+1][len(p.Rows)]
			if err := p.read.read(l.page, row); err != nil {
				return err
			}
			p.Rows = p.Rows[:len(p.Rows)+1]
			bytes += len(row.Payload)
		}
		return nil
	})
	if err != nil {
		if n := len(p.Rows); n > 0 {
			after = p.Rows[n-1].Sequence
		}
		return l.blame(err, after+1)
	}
	return nil
}

// rowReader reads rows. Their bytes lie in its blocks, one after the other, so
// that a row costs an allocation or two.
type rowReader struct {
	block []byte
	used  int // bytes since again
	texts []byte
}

// Sizes of a block in bytes: of a first one, and of the longest that again keeps.
const (
	firstBlock  = 4 << 10
	largestKept = 2 * pageBytes
)

// again has the memory of all rows that were read used again. It makes one block
// that they would have fitted into.
func (read *rowReader) again() {
	if size := min(read.used, largestKept); cap(read.block) < size || cap(read.block) > largestKept {
		read.block = make([]byte, 0, size)
	}
	read.block, read.used = read.block[:0], 0
}

// keep copies b; the copy of an empty value is not nil.
func (read *rowReader) keep(b []byte) []byte {
	if read.block == nil || cap(read.block)-len(read.block) < len(b) {
		// The rows before keep the old block.
		read.block = make([]byte, 0, max(len(b), firstBlock))
	}
	from := len(read.block)
	read.block = append(read.block, b...)
	read.used += len(b)
	return read.block[from:len(read.block):len(read.block)]
}

// Places in ledger.Columns.
const (
	columnID = iota
	columnAgentID
	columnEventType
	columnPayloadHash
	columnSignature
	columnAttestLevel
	columnTimestamp
	columnPrevHash
	columnSequence
	columnPayload
	columnKeyID
	columnRowHash
)

// read reads the present row of a statement of selectRows and checks the type of
// each column, which STRICT guarantees only as long as nobody writes to the file
// without SQLite.
func (read *rowReader) read(s *sqlite.Stmt, r *chain.Row) error {
	raw, err := s.Raw(chain.NumColumns)
	if err != nil {
		return err
	}
	n := int64(0)
	if raw.Kind(columnSequence) == sqlite.Integer {
		n = raw.Integer(columnSequence)
	}
	if r.Sequence = uint64(n); n <= 0 {
		return &RowError{Sequence: 1, Reason: fmt.Sprintf("the next row has sequence %d", n)}
	}
	for i := range chain.NumColumns {
		wanted := sqlite.Text
		switch i {
		case columnSequence:
			wanted = sqlite.Integer
		case columnPayloadHash, columnSignature, columnPrevHash, columnRowHash:
			wanted = sqlite.Blob
		}
		if got := raw.Kind(i); got != wanted && (got != sqlite.Null || i != columnSignature && i != columnKeyID) {
			return &RowError{Sequence: r.Sequence, Reason: fmt.Sprintf("column %s is of type %s, wanted %s",
				strings.Split(chain.Columns, ", ")[i], strings.Replace(got.String(), "FLOAT", "REAL", 1), wanted)}
		}
	}
	r.PayloadHash, r.PrevHash = read.keep(raw.Bytes(columnPayloadHash)), read.keep(raw.Bytes(columnPrevHash))
	r.RowHash, r.Payload = read.keep(raw.Bytes(columnRowHash)), read.keep(raw.Bytes(columnPayload))
	// Of a signature nil means something else than none.
	if r.Signature = nil; raw.Kind(columnSignature) != sqlite.Null {
		r.Signature = read.keep(raw.Bytes(columnSignature))
	}
	if key := raw.Kind(columnKeyID); (r.Signature == nil) != (key == sqlite.Null) {
		return &RowError{Sequence: r.Sequence, Reason: "only one of signature and key_id is NULL"}
	}
	// The texts are one string, cut up: they may outlive the block.
	read.texts = read.texts[:0]
	var ends [chain.NumColumns]int
	for _, i := range [...]int{columnID, columnAgentID, columnEventType, columnAttestLevel, columnTimestamp, columnKeyID} {
		if raw.Kind(i) != sqlite.Null {
			read.texts = append(read.texts, raw.Bytes(i)...)
		}
		ends[i] = len(read.texts)
	}
	texts := string(read.texts)
	r.ID = texts[:ends[columnID]]
	r.AgentID = texts[ends[columnID]:ends[columnAgentID]]
	r.EventType = texts[ends[columnAgentID]:ends[columnEventType]]
	r.AttestLevel = texts[ends[columnEventType]:ends[columnAttestLevel]]
	r.Timestamp = texts[ends[columnAttestLevel]:ends[columnTimestamp]]
	r.KeyID = texts[ends[columnTimestamp]:]
	return nil
}
