package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

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

// count checks the layout of a whole body before anything of it is accepted,
// and returns the number of its events.
func count(text []byte, as layout, most int) (n int, f *failure, broken *layoutError) {
	broken = split(text, as, func([]byte, int) bool {
		n++
		return n <= most
	})
	if n > most {
		return n, fail(http.StatusRequestEntityTooLarge,
			"the body holds more than %d events; nothing of it was accepted, send it in parts", most), nil
	}
	return n, nil, broken
}

// receipt is the queue's promise for the event at an index of the answer's events.
type receipt struct {
	index int
	queue.Receipt
	payload [sha256.Size]byte // its hash, for ack=ledger
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) *failure {
	asked, f := ackOf(r)
	if f != nil {
		return f
	}
	b, f := s.readBody(w, r)
	if f != nil {
		return f
	}
	defer b.free()
	as := layoutOf(b.bytes, b.lines)
	n, f, broken := count(b.bytes, as, s.o.MaxEvents)
	switch {
	case f != nil:
		return f
	case broken != nil:
		return fail(http.StatusBadRequest, "%s; nothing was accepted", broken.text)
	case n == 0 && as != array:
		return fail(http.StatusBadRequest, "the body is empty")
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.o.AckTimeout, errAckTimeout)
	defer cancel()
	var a Answer
	receipts, tooLarge := s.submit(ctx, b.bytes, as, asked, &a)
	// It may be waited for long, and the events have memory of their own. What the
	// answer holds is counted in the body's place.
	b.become(int64(len(a.Events)) * resultBytes)
	s.accepted.Add(uint64(a.Accepted))
	s.rejected.Add(uint64(a.Rejected))
	s.skipped.Add(uint64(a.Skipped))
	s.retry.Add(uint64(a.Retry))

	waiting := s.acknowledge(ctx, asked, receipts, &a)
	code := a.code(asked, waiting, tooLarge)
	switch {
	case code == http.StatusServiceUnavailable:
		if a.Error == "" {
			a.Error = "some events are not acknowledged yet; they may be sent again under the same ids"
		}
		s.unacknowledged.warn(r, s.o.Log, "events not acknowledged", slog.Int("retry", a.Retry), slog.Int("waiting", waiting), slog.String("error", a.Error))
	case code >= 400:
		a.Error = "no event of this body can be accepted"
	}
	a.write(w, code)
	return nil
}

// submit parses the events and hands them to the queue, up to the first that
// the queue does not take. It fills the answer's events and counts.
func (s *Server) submit(ctx context.Context, text []byte, as layout, asked ack, a *Answer) (receipts []receipt, tooLarge int) {
	full, index := false, -1
	var stopped error
	// The layout was checked before, so there is no error here.
	_ = split(text, as, func(raw []byte, line int) bool {
		index++
		res := Result{Index: index, Line: line}
		if full {
			// Taken now, a later event would stand before an earlier one.
			res.Status = StatusRetry
			a.Retry++
			a.add(res)
			return true
		}
		t := s.take(ctx, raw, s.o.Intake, s.o.ParseNative)
		res.ID, res.Status = t.id, t.status
		if t.err != nil && a.room() {
			res.Error = cut(t.err.Error())
		}
		switch t.status {
		case StatusAccepted:
			rc := receipt{index: len(a.Events), Receipt: t.receipt}
			if asked == ackLedger {
				rc.payload = sha256.Sum256(t.payload)
			}
			receipts = append(receipts, rc)
			a.Accepted++
		case StatusSkipped:
			a.Skipped++
		case StatusRetry:
			full, stopped = true, t.err
			a.Error = cut(fmt.Sprintf("event %d and all after it were not taken, send them again: %v", res.Index, t.err))
			a.Retry++
		default:
			if errors.Is(t.err, errEventSize) {
				tooLarge++
			}
			a.Rejected++
		}
		a.add(res)
		return true
	})
	if full {
		uncounted(s.o.Intake, stopped, a.Retry-1)
	}
	return receipts, tooLarge
}

// taken is what became of one event's text.
type taken struct {
	id      string
	status  Status // accepted, skipped, rejected or retry
	receipt queue.Receipt
	payload []byte // of an accepted one
	err     error  // for rejected and retry
}

var errEventSize = errors.New("the event is too large")

// take parses one event and hands it to the queue.
func (s *Server) take(ctx context.Context, raw []byte, in Intake, parse Parse) taken {
	// A client that is gone, or a server that stops, has nothing more read.
	if ctx.Err() != nil {
		return taken{status: StatusRetry, err: context.Cause(ctx)}
	}
	if len(raw) > s.o.MaxEvent {
		return taken{status: StatusRejected,
			err: fmt.Errorf("%w: %d bytes, at most %d (http.max_event)", errEventSize, len(raw), s.o.MaxEvent)}
	}
	e, decision, err := parse(raw)
	switch {
	case errors.Is(err, ErrNotNow):
		return taken{status: StatusRetry, err: err}
	case err != nil:
		return taken{status: StatusRejected, err: err}
	}
	if !s.o.Record(decision) {
		return taken{id: e.ID, status: StatusSkipped}
	}
	rc, err := in.Submit(ctx, e)
	switch {
	case err == nil:
		return taken{id: e.ID, status: StatusAccepted, receipt: rc, payload: e.Payload}
	case errors.Is(err, queue.ErrTooLarge):
		return taken{id: e.ID, status: StatusRejected, err: fmt.Errorf("%w: %w", errEventSize, err)}
	case errors.Is(err, queue.ErrBadID):
		return taken{id: e.ID, status: StatusRejected, err: err}
	}
	return taken{id: e.ID, status: StatusRetry, err: err}
}

// uncounted tells an intake that has answered with err how many events of the same
// request were not handed to it.
func uncounted(in Intake, err error, n int) {
	if r, ok := in.(Refuser); ok && errors.Is(err, queue.ErrFull) {
		r.Refuse(n)
	}
}

// acknowledge waits until the accepted events reach the level asked for and
// writes how far each got into the answer. It returns how many did not.
func (s *Server) acknowledge(ctx context.Context, asked ack, receipts []receipt, a *Answer) (waiting int) {
	if asked == ackAccepted {
		return 0
	}
	level := s.o.DurableLevel
	if asked == ackLedger {
		level = queue.Committed
	}
	wait(ctx, receipts, level, func(rc *receipt, err error) {
		res := &a.Events[rc.index]
		if err == nil && asked == ackLedger {
			err = s.find(ctx, a, res, rc.payload)
		} else if err == nil {
			res.Status = StatusDurable
		}
		if err != nil {
			res.Error = cut(fmt.Sprintf("%v; it may be sent again under this id", err))
			waiting++
		}
	})
	return waiting
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
func (s *Server) find(ctx context.Context, a *Answer, res *Result, payload [sha256.Size]byte) error {
	// Committed without being found is durable all the same.
	res.Status = StatusDurable
	at, ok, err := s.o.Lookup(ctx, res.ID, payload)
	switch {
	case err != nil:
		return fmt.Errorf("committed, but look up row: %w", err)
	case !ok:
		return errors.New("committed, but neither in the ledger nor among the dead letters")
	case at.DeadLetter != "":
		res.Status, res.Error = StatusDeadLetter, "refused by the ledger: audit-host dlq show tells why"
		if s.o.Token != "" { // which the request has brought: the text may be the plugin's
			res.Error = cut(at.DeadLetter)
		}
	default:
		res.Status, res.Sequence, res.RowHash = StatusAppended, at.Sequence, at.RowHash
		if at.Head.Sequence > 0 && (a.Head == nil || at.Head.Sequence > a.Head.Sequence) {
			a.Head = &at.Head
		}
	}
	return nil
}
