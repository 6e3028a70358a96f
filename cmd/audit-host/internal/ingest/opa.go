package ingest

import (
	"context"
	"log/slog"
	"net/http"
)

// maxRefused is how many elements are handed to Options.DeadLetters at once.
const maxRefused = 1024

// logs takes an upload of OPA's decision log plugin: a gzip JSON array. The
// partition in the path is OPA's way to tell uploads apart and means nothing
// here.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) *failure {
	b, f := s.readBody(w, r)
	if f != nil {
		return f
	}
	defer b.free()
	as := layoutOf(b.bytes, b.lines)
	n, f, _ := count(b.bytes, as, s.o.MaxEvents)
	if f != nil {
		return f
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.o.AckTimeout, errAckTimeout)
	defer cancel()

	var refused []Refused
	var receipts []receipt
	var stopped, lost error
	dead, skipped, index := 0, 0, 0
	// In parts, for what is said of an element is longer than it may be. A part
	// that comes again, since OPA repeats the batch, is the same letters.
	bury := func() bool {
		if len(refused) == 0 {
			return true
		}
		if lost = s.o.DeadLetters(ctx, refused); lost != nil {
			return false
		}
		s.deadOfOPA.Add(uint64(len(refused)))
		s.opaDead.warn(r, s.o.Log, "entries of OPA became dead letters", slog.Int("entries", len(refused)),
			slog.String("first_reason", refused[0].Reason))
		dead, refused = dead+len(refused), refused[:0]
		return true
	}
	broken := split(b.bytes, as, func(raw []byte, _ int) bool {
		t := s.take(ctx, raw, s.o.IntakeOPA, s.o.ParseOPA)
		switch t.status {
		case StatusAccepted:
			receipts = append(receipts, receipt{index: index, Receipt: t.receipt})
		case StatusSkipped:
			skipped++
		case StatusRetry:
			stopped = t.err
			return false
		default:
			refused = append(refused, Refused{Source: "opa", Raw: raw, Reason: cut(t.err.Error())})
			if len(refused) == maxRefused && !bury() {
				return false
			}
		}
		index++
		return true
	})
	s.accepted.Add(uint64(len(receipts)))
	s.skipped.Add(uint64(skipped))
	if stopped != nil {
		// OPA sends all of it again: the last part of the dead letters is left to
		// that time.
		s.retry.Add(uint64(n - index))
		uncounted(s.o.IntakeOPA, stopped, n-index-1)
		return fail(http.StatusServiceUnavailable, "%v; send the batch again", stopped).with("Retry-After", retryAfter)
	}
	if broken != nil && lost == nil {
		// The entries before the break are as good as any; the rest is kept.
		refused = append(refused, Refused{Source: "opa", Raw: b.bytes[broken.from:], Reason: cut(broken.text)})
	}
	if lost != nil || !bury() {
		return fail(http.StatusServiceUnavailable, "store dead letters: %v; send the batch again", lost).with("Retry-After", retryAfter)
	}
	refused = nil // points into the body
	b.free()

	var failed error
	wait(ctx, receipts, s.o.DurableLevel, func(_ *receipt, err error) {
		if err != nil && failed == nil {
			failed = err
		}
	})
	if failed != nil {
		return fail(http.StatusServiceUnavailable, "%v; send the batch again", failed).with("Retry-After", retryAfter)
	}
	writeJSON(w, http.StatusOK, struct {
		Accepted     int `json:"accepted"`
		Skipped      int `json:"skipped"`
		DeadLettered int `json:"dead_lettered"`
	}{len(receipts), skipped, dead})
	return nil
}
