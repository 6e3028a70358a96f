package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/seal"
)

// Bounds of a part of the ledger that one processor checks at a time. With as
// many parts as processors being checked, as many waiting, and one being read,
// they bound the memory.
const (
	partRows  = 512
	partBytes = 1 << 20
)

// part is a run of rows. It goes from the reader to a checker and then, in the
// order of the ledger, to walk, which hands it back to the reader.
type part struct {
	prev  seal.Link // what the first row has to be chained to
	rows  []ledger.Row
	bytes int
	// What came instead of a next row; the last part only.
	breach *seal.Break
	err    error

	found chan seal.Checked // capacity 1
}

// add copies a row, which the reader's is no longer at the next.
func (p *part) add(r *ledger.Row) {
	if len(p.rows) < cap(p.rows) {
		p.rows = p.rows[:len(p.rows)+1]
	} else {
		p.rows = append(p.rows, ledger.Row{})
	}
	mine := &p.rows[len(p.rows)-1]
	old := *mine
	*mine = *r
	mine.PayloadHash = append(old.PayloadHash[:0], r.PayloadHash...)
	mine.PrevHash = append(old.PrevHash[:0], r.PrevHash...)
	mine.RowHash = append(old.RowHash[:0], r.RowHash...)
	mine.Payload = append(old.Payload[:0], r.Payload...)
	// Of a signature nil means something else than none.
	if r.Signature != nil {
		mine.Signature = append(make([]byte, 0, abi.SignatureSize), r.Signature...)
	}
	p.bytes += len(r.Payload)
}

func (p *part) full() bool { return len(p.rows) == partRows || p.bytes >= partBytes }

// result is what walk found.
type result struct {
	head       seal.Link // the last sound row
	signatures seal.Signatures
	breach     *seal.Break
}

// walk checks all rows up to the first break: one goroutine reads them, all
// processors check them part by part, and what they found is put together in
// the order of the ledger.
func walk(ctx context.Context, l Ledger, o Options) (res result, err error) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()

	workers := runtime.GOMAXPROCS(0)
	work, ordered := make(chan *part), make(chan *part, 2*workers)
	free := make(chan *part, 2*workers+2)
	for range cap(free) {
		free <- &part{found: make(chan seal.Checked, 1)}
	}
	running.Go(func() { read(ctx, l, free, ordered, work) })
	v := seal.NewVerifier(o.Keys...)
	for range workers {
		running.Go(func() {
			for p := range work {
				p.found <- check(v, p, o.Head)
			}
		})
	}
	for p := range ordered {
		c := <-p.found
		res.head = c.Head
		res.signatures.Add(c.Signatures)
		if res.breach = c.Break; res.breach == nil {
			res.breach, err = p.breach, p.err
		}
		if res.breach != nil || err != nil {
			return res, err
		}
		if o.Progress != nil && len(p.rows) > 0 {
			o.Progress(res.head.Sequence)
		}
		free <- p
	}
	return res, ctx.Err()
}

// read cuts the ledger into parts until it ends or ctx does. Each part goes to
// ordered and to work, in this order, so that none is checked which walk will
// not ask for.
func read(ctx context.Context, l Ledger, free <-chan *part, ordered, work chan<- *part) {
	defer close(work)
	defer close(ordered)
	var p *part
	take := func(prev seal.Link) bool {
		select {
		case p = <-free:
			*p = part{prev: prev, rows: p.rows[:0], found: p.found}
			return true
		case <-ctx.Done():
			return false
		}
	}
	send := func() bool {
		for _, to := range []chan<- *part{ordered, work} {
			select {
			case to <- p:
			case <-ctx.Done():
				return false
			}
		}
		return true
	}
	if !take(seal.Link{}) {
		return
	}
	for row, err := range l.Rows(ctx) {
		var damaged *host.RowError
		switch {
		case errors.As(err, &damaged):
			p.breach = &seal.Break{Sequence: damaged.Sequence, Reason: damaged.Reason}
		case err != nil:
			p.err = err
		default:
			p.add(row)
		}
		if err != nil {
			break
		}
		if p.full() {
			// A row hash of another length is a break in this part.
			last := seal.Link{Sequence: row.Sequence}
			copy(last.RowHash[:], row.RowHash)
			if !send() || !take(last) {
				return
			}
		}
	}
	send()
}

// check checks a part.
func check(v *seal.Verifier, p *part, remembered *Head) seal.Checked {
	c := v.Check(p.prev, p.rows)
	for i := range p.rows[:c.Rows] {
		r := &p.rows[i]
		reason := content(r)
		if reason == "" && remembered != nil && r.Sequence == remembered.Sequence && hex.EncodeToString(r.RowHash) != remembered.RowHash {
			reason = fmt.Sprintf("row_hash is %x, the remembered head has %s", r.RowHash, remembered.RowHash)
		}
		if reason != "" {
			// Again, for the counts and the head before it.
			c = v.Check(p.prev, p.rows[:i])
			c.Break = &seal.Break{Sequence: r.Sequence, Reason: reason}
			return c
		}
	}
	return c
}

// content says what is wrong with the payload; "" if nothing is.
func content(row *ledger.Row) string {
	err := event.Check(abi.Event{
		ID: row.ID, AgentID: row.AgentID, EventType: row.EventType, Timestamp: row.Timestamp, Payload: row.Payload,
	}, event.Options{MaxPayload: maxPayload})
	if err != nil {
		return err.Error()
	}
	return ""
}
