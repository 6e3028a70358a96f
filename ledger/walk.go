package ledger

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/ledger/chain"
	"github.com/audit-host/audit-host/sign"
)

// partRows is how many sequences a reader takes at a time: a page, if the payloads
// are not longer than usual.
const partRows = pageRows

// checker is one reader of the ledger and what checks its rows. Each has a page in
// memory, which bounds it.
type checker struct {
	source
	v     *sign.Verifier
	heads []Head
	page  rowPage
}

// result is what was found, up to the last sound row or the first break.
type result struct {
	head       sign.Link // the last sound row
	signatures sign.Signatures
	breach     *sign.Break
	problems   []string // of the first reader's file, if it was checked
	checked    bool
}

// walk checks all rows up to the first break.
//
// The readers take parts of the ledger in turn and check them, each part as if
// the row before it were sound: it is, if the parts before are. What they find is
// put together in the order of the ledger. At the first that is not as it should
// be, a break, a gap, a part that does not begin where the one before ended, the
// first reader goes on from there alone: its word counts, and names the row.
func walk(ctx context.Context, l source, o VerifyOptions) (result, error) {
	v := sign.NewVerifier(o.Keys...)
	last, err := l.lastSequence(ctx)
	var damaged *RowError
	if err != nil && !errors.As(err, &damaged) {
		return result{}, err
	}
	var res result
	if err == nil {
		if res, err = together(ctx, l, v, o, last); err != nil {
			return res, err
		}
	}
	first := &checker{source: l, v: v, heads: o.heads()}
	if !first.has(ctx, res.head) {
		res = result{}
	}
	return res, first.rest(ctx, &res, o)
}

// has says whether the reader sees the row too. The other readers may have found
// all parts sound without it, and in another file.
func (c *checker) has(ctx context.Context, row sign.Link) bool {
	if row.Sequence == 0 {
		return true
	}
	err := c.readPage(ctx, row.Sequence-1, row.Sequence, &c.page)
	return err == nil && len(c.page.Rows) == 1 && bytes.Equal(c.page.Rows[0].RowHash, row.RowHash[:])
}

// part is what a reader found in its part of the ledger.
type part struct {
	result
	prev  sign.Link // what the first row was taken to be chained to
	sound bool      // every row up to the last sequence of the part is there and is sound
}

// together has all readers check the sequences up to last, and returns what is
// sound from the first row on.
func together(ctx context.Context, l source, v *sign.Verifier, o VerifyOptions, last uint64) (res result, err error) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	var problems []string
	checked := false
	defer func() { res.problems, res.checked = problems, checked }()
	defer running.Wait()
	defer stop()

	readers := append([]source{l}, o.readers...)
	// A reader that is faster is at most a few parts ahead of what was put together.
	ordered := make(chan chan part, 2*len(readers))
	var next sync.Mutex // a part is taken and put into ordered in one step
	var taken uint64
	take := func() (from uint64, found chan part) {
		next.Lock()
		defer next.Unlock()
		if taken >= last {
			return 0, nil
		}
		found = make(chan part, 1)
		select {
		case ordered <- found:
		case <-ctx.Done():
			return 0, nil
		}
		from = taken
		taken += min(partRows, last-taken)
		return from, found
	}
	var left atomic.Int32
	left.Store(int32(len(readers)))
	for i, reader := range readers {
		c := &checker{source: reader, v: v, heads: o.heads()}
		running.Go(func() {
			if i == 0 {
				// While the others begin. It is the state of the file in which the
				// last row is looked for at the end. What goes wrong is seen there too.
				if found, err := l.integrity(ctx); err == nil {
					problems, checked = found, true
				}
			}
			for from, found := take(); found != nil; from, found = take() {
				found <- c.part(ctx, from, from+min(partRows, last-from))
			}
			if left.Add(-1) == 0 {
				close(ordered)
			}
		})
	}
	for found := range ordered {
		p := <-found
		if !p.sound || p.prev != res.head {
			return res, ctx.Err()
		}
		res.head = p.head
		res.signatures.Add(p.signatures)
		if o.Progress != nil {
			o.Progress(res.head.Sequence, o.total)
		}
	}
	return res, ctx.Err()
}

// part checks the rows behind from up to the sequence to. That the row before them
// has the hash which they are chained to is for the caller to see.
func (c *checker) part(ctx context.Context, from, to uint64) (p part) {
	for p.head.Sequence = from; p.head.Sequence < to; {
		if err := c.readPage(ctx, p.head.Sequence, to, &c.page); err != nil || len(c.page.Rows) == 0 {
			return p
		}
		if first := &c.page.Rows[0]; p.head.Sequence == from && from > 0 && len(first.PrevHash) == chain.HashSize {
			p.head.RowHash = [chain.HashSize]byte(first.PrevHash)
			p.prev = p.head
		}
		if c.add(&p.result); p.breach != nil {
			return p
		}
	}
	p.sound = true
	return p
}

// rest checks the rows from res on, with one reader.
func (c *checker) rest(ctx context.Context, res *result, o VerifyOptions) error {
	for {
		err := c.readPage(ctx, res.head.Sequence, math.MaxUint64, &c.page)
		var damaged *RowError
		if err != nil && !errors.As(err, &damaged) {
			return err
		}
		if c.add(res); res.breach != nil {
			return nil
		}
		if damaged != nil {
			res.breach = &sign.Break{Sequence: damaged.Sequence, Reason: damaged.Reason}
			return nil
		}
		if len(c.page.Rows) == 0 {
			return ctx.Err()
		}
		if o.Progress != nil {
			o.Progress(res.head.Sequence, o.total)
		}
	}
}

// add checks the rows of the page, which follow res, and adds what it finds.
func (c *checker) add(res *result) {
	found := c.check(res.head, c.page.Rows)
	res.head = found.Head
	res.signatures.Add(found.Signatures)
	res.breach = found.Break
}

// check checks rows that are chained to prev.
func (c *checker) check(prev sign.Link, rows []chain.Row) sign.Checked {
	found := c.v.Check(prev, rows)
	for i := range rows[:found.Rows] {
		r := &rows[i]
		reason := content(r)
		for _, h := range c.heads {
			if reason == "" && r.Sequence == h.Sequence && hex.EncodeToString(r.RowHash) != h.RowHash {
				reason = fmt.Sprintf("row_hash is %x, the remembered head has %s", r.RowHash, h.RowHash)
			}
		}
		if reason != "" {
			// Again, for the counts and the head before it.
			found = c.v.Check(prev, rows[:i])
			found.Break = &sign.Break{Sequence: r.Sequence, Reason: reason}
			return found
		}
	}
	return found
}

// content says what is wrong with the payload; "" if nothing is.
func content(row *chain.Row) string {
	err := event.Check(abi.Event{
		ID: row.ID, AgentID: row.AgentID, EventType: row.EventType, Timestamp: row.Timestamp, Payload: row.Payload,
	}, event.Options{MaxPayload: maxPayload})
	if err != nil {
		return err.Error()
	}
	return ""
}
