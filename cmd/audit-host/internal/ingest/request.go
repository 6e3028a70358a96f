package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// ack is what a client waits for.
type ack uint8

const (
	ackAccepted ack = iota
	ackDurable
	ackLedger
)

func ackOf(r *http.Request) (ack, *failure) {
	switch v := r.URL.Query().Get("ack"); v {
	case "accepted":
		return ackAccepted, nil
	case "", "durable":
		return ackDurable, nil
	case "ledger":
		return ackLedger, nil
	default:
		return 0, fail(http.StatusBadRequest, "ack=%s is none of accepted, durable, ledger", cut(v))
	}
}

var (
	errAckTimeout = errors.New("not acknowledged in time (http.ack_timeout)")
	errStopping   = errors.New("the server is shutting down")
)

// receipt is the queue's promise for an event, with its index in the report's
// events if it stands there.
type receipt struct {
	index int
	queue.Receipt
	payload [sha256.Size]byte // its hash, for ack=ledger
}

// resultBytes is what an event of a report takes in memory, about, in bytes: an
// accepted one, with its id, its receipt and a row hash.
const resultBytes = 320

// maxRefused is how many elements are handed to Options.DeadLetters at once.
const maxRefused = 1024

// take serves a route: it reads the body, has its elements taken, waits, and
// answers.
func (s *Server) take(rt *Route, w http.ResponseWriter, r *http.Request) *failure {
	asked := ackDurable
	if rt.Format.Receipts {
		var f *failure
		if asked, f = ackOf(r); f != nil {
			return f
		}
	}
	b, f := s.readBody(w, r, rt.Format.Media)
	if f != nil {
		return f
	}
	defer b.free()
	elements := b.split(event.Request{Header: r.Header, Body: b.bytes})
	// The layout of a whole body is looked at before anything of it is accepted.
	n, broken := elements.Count(s.o.MaxEvents)
	keep := rt.Format.OnBad == event.KeepBad
	switch {
	case n > s.o.MaxEvents:
		return fail(http.StatusRequestEntityTooLarge,
			"the body holds more than %d events; nothing of it was accepted, send it in parts", s.o.MaxEvents)
	case keep:
	case elements.Blank:
		return fail(http.StatusBadRequest, "the body is empty")
	case broken != nil:
		return fail(http.StatusBadRequest, "%s; nothing was accepted", broken.Text)
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.o.AckTimeout, errAckTimeout)
	defer cancel()
	a := event.Report{Unwatched: asked == ackAccepted, Media: b.media}
	receipts := s.submit(ctx, rt, r, b.bytes, elements, asked, &a)
	// It may be waited for long, and the events have memory of their own. What the
	// report holds is counted in the body's place.
	elements = event.Elements{}
	b.become(int64(len(a.Events)) * resultBytes)
	s.accepted.Add(uint64(a.Accepted))
	s.rejected.Add(uint64(a.Rejected))
	s.skipped.Add(uint64(a.Skipped))
	s.retry.Add(uint64(a.Retry))

	if rt.Format.Receipts || a.Cause == nil { // else all of it comes again
		s.acknowledge(ctx, rt, asked, receipts, &a)
	}
	reply := rt.Format.Answer(&a)
	switch {
	case reply.Status < 500:
	case keep:
		s.refused(r, reply.Status, a.Error)
	default:
		s.unacknowledged.warn(r, s.o.Log, "events not acknowledged", slog.Int("retry", a.Retry),
			slog.Int("waiting", a.Waiting), slog.String("error", a.Error))
	}
	if reply.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	write(w, reply)
	return nil
}

// submit has the elements taken and fills in the report.
func (s *Server) submit(ctx context.Context, rt *Route, r *http.Request, body []byte, elements event.Elements, asked ack,
	a *event.Report) (receipts []receipt) {
	keep := rt.Format.OnBad == event.KeepBad
	var refused []Refused
	// In parts, for what is said of an element is longer than it may be. A part
	// that comes again, since the client repeats the request, is the same letters.
	bury := func() bool {
		if len(refused) == 0 {
			return true
		}
		if err := s.o.DeadLetters(ctx, refused); err != nil {
			a.Cause = fmt.Errorf("store dead letters: %w", err)
			return false
		}
		s.deadLettered.Add(uint64(len(refused)))
		s.dead.warn(r, s.o.Log, "elements became dead letters", slog.String("format", rt.Format.Name), slog.Int("elements", len(refused)),
			slog.String("first_reason", refused[0].Reason))
		a.DeadLettered, refused = a.DeadLettered+len(refused), refused[:0]
		return true
	}
	taker := Taker{Intake: rt.Intake, Parse: rt.Parse, Record: s.o.Record, MaxEvent: s.o.MaxEvent}
	broken := taker.Run(ctx, elements, func(t *Taken) bool {
		res := event.Result{Index: t.Index, Line: t.Line, ID: t.ID, Status: t.Status}
		named := rt.Format.Receipts
		switch t.Status {
		case event.StatusAccepted:
			rc := receipt{index: len(a.Events), Receipt: t.Receipt}
			if asked == ackLedger {
				rc.payload = sha256.Sum256(t.Payload)
			}
			receipts = append(receipts, rc)
			a.Accepted++
		case event.StatusSkipped:
			a.Skipped++
		case event.StatusRetry:
			if a.Retry++; a.Retry == 1 {
				a.Cause = t.Err
			}
		case event.StatusRejected:
			if keep {
				refused = append(refused, Refused{Format: rt.Format.Name, Raw: t.Raw, Reason: cut(t.Err.Error())})
				return len(refused) < maxRefused || bury()
			}
			if named = true; errors.Is(t.Err, errEventSize) {
				a.TooLarge++
			}
			a.Rejected++
		}
		if named {
			if t.Err != nil && a.Room() {
				res.Error = cut(t.Err.Error())
			}
			a.Add(res)
		}
		return true
	})
	if !keep || a.Cause != nil {
		// The client sends all of it again: the last part of the dead letters is
		// left to that time.
		return receipts
	}
	if broken != nil {
		// What stands before the break is as good as any; the rest is kept.
		refused = append(refused, Refused{Format: rt.Format.Name, Raw: body[broken.From:], Reason: cut(broken.Text)})
	}
	bury()
	return receipts
}

// acknowledge waits until the accepted events reach the level asked for, and
// writes into the report how far each got.
func (s *Server) acknowledge(ctx context.Context, rt *Route, asked ack, receipts []receipt, a *event.Report) {
	if asked == ackAccepted {
		return
	}
	level := s.o.DurableLevel
	if asked == ackLedger {
		level = queue.Committed
	}
	wait(ctx, receipts, level, func(rc *receipt, err error) {
		if rt.Format.Receipts {
			res := &a.Events[rc.index]
			if err == nil && asked == ackLedger {
				err = s.find(ctx, a, res, rc)
			} else if err == nil {
				res.Status = event.StatusDurable
			}
			if err != nil {
				res.Error = cut(fmt.Sprintf("%v; it may be sent again under this id", err))
			}
		}
		if err != nil {
			if a.Waiting++; a.Cause == nil {
				a.Cause = err
			}
		}
	})
}

// wait calls f with every receipt and how the wait for its level ended.
// The queue keeps order, so the last one is waited for, and for the others it
// is enough to look. They are looked at because the last one may be an old
// event's repetition, and because a queue that failed may have kept the first
// ones.
func wait(ctx context.Context, receipts []receipt, level queue.Level, f func(rc *receipt, err error)) {
	if len(receipts) == 0 {
		return
	}
	_ = receipts[len(receipts)-1].Wait(ctx, level) // asked again in its turn
	for i := range receipts {
		err := receipts[i].Wait(ctx, level)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		f(&receipts[i], err)
	}
}

// find fills in where a committed event stands.
func (s *Server) find(ctx context.Context, a *event.Report, res *event.Result, rc *receipt) error {
	// Committed without being found is durable all the same.
	res.Status = event.StatusDurable
	position, _ := rc.Seq()
	at, ok, err := s.o.Lookup(ctx, position, res.ID, rc.payload)
	switch {
	case err != nil:
		return fmt.Errorf("committed, but look up row: %w", err)
	case !ok:
		return errors.New("committed, but neither in the ledger nor among the dead letters")
	case at.DeadLetter != "":
		res.Status, res.Error = event.StatusDeadLetter, "refused by the ledger: audit-host dlq show tells why"
		if s.o.Token != "" { // which the request has brought: the text may be the plugin's
			res.Error = cut(at.DeadLetter)
		}
	default:
		res.Status, res.Sequence, res.RowHash = event.StatusAppended, at.Sequence, at.RowHash
		if at.Head.Sequence > 0 && (a.Head == nil || at.Head.Sequence > a.Head.Sequence) {
			a.Head = &at.Head
		}
	}
	return nil
}
