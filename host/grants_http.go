package host

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/egress"
)

// httpRequest is the http import: head, body, answer buffer.
func (s *Sink) httpRequest(ctx context.Context, mod api.Module, stack []uint64) {
	head, body := view(mod, stack[0], stack[1]), view(mod, stack[2], stack[3])
	out := view(mod, stack[4], stack[5])
	status, n := s.exchange(ctx, head, body, out)
	stack[0] = abi.StatusAnswer(status, uint32(n))
}

// exchange makes the request and writes the answer, or why there is none, into
// out.
func (s *Sink) exchange(ctx context.Context, head, body, out []byte) (abi.Status, int) {
	c := s.grants.http
	if c == nil {
		return abi.StatusRefused, copy(out, "the capability http is not granted")
	}
	// Before anything is sent: an answer that can't be told would be in vain.
	if len(out) < abi.HTTPAnswerSize {
		return abi.StatusTooLarge, copy(out, "the answer buffer is too small")
	}
	if len(head) > abi.MaxHTTPHead {
		return abi.StatusTooLarge, copy(out, "the head of the request is too large")
	}
	r, why := parseHead(head)
	if why != "" {
		return abi.StatusInvalid, copy(out, why)
	}
	// A copy: net/http may go on reading a body when the exchange has ended,
	// and the guest's memory is then another's or gone. What is too large is
	// refused by its length alone and never read.
	if r.Body = body; int64(len(body)) <= s.maxRequest() {
		r.Body = bytes.Clone(body)
	}
	a, err := c.Do(ctx, r)
	if ctx.Err() != nil {
		panic(errStopped) // the deadline of the batch, and not that of the grant
	}
	if err != nil {
		return s.httpFailure(ctx, err), copy(out, err.Error())
	}
	answer := abi.HTTPAnswer{Status: uint32(a.Status), Redirects: uint32(a.Redirects), Header: headerLines(a.Header), Body: a.Body}
	if a.Withheld {
		answer.Flags |= abi.HTTPWithheld
	}
	return abi.StatusDone, answer.Put(out)
}

func (s *Sink) maxRequest() int64 {
	if s.o.HTTP.MaxRequest > 0 {
		return s.o.HTTP.MaxRequest
	}
	return egress.DefaultMaxRequest
}

// httpFailure turns an error into a status and logs what the operator has to
// know: a refusal, with the hop.
func (s *Sink) httpFailure(ctx context.Context, err error) abi.Status {
	var refused *egress.Refused
	var timeout *egress.Timeout
	var large *egress.TooLarge
	switch {
	case errors.As(err, &refused):
		s.complain(ctx, "plugin asked for what its http grant does not allow", slog.Any("refused", refused))
		return abi.StatusRefused
	case errors.As(err, &timeout):
		return abi.StatusTimeout
	case errors.As(err, &large) && strings.HasPrefix(large.What, "request"):
		return abi.StatusTooLarge
	}
	// An answer that is too large is none, and the server has acted.
	return abi.StatusUnavailable
}

// parseHead reads the head of a request. What method, URL and fields may be is
// checked by package egress.
func parseHead(head []byte) (egress.Request, string) {
	text := strings.TrimSuffix(string(head), "\n")
	first, rest, more := strings.Cut(text, "\n")
	method, url, ok := strings.Cut(first, " ")
	if !ok || method == "" || url == "" {
		return egress.Request{}, "the head of a request begins with METHOD URL"
	}
	r := egress.Request{Method: method, URL: url, Header: http.Header{}}
	if !more {
		return r, ""
	}
	for line := range strings.SplitSeq(rest, "\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return egress.Request{}, "a line of the request's head is not of the form NAME: VALUE"
		}
		r.Header.Add(name, strings.TrimLeft(value, " "))
	}
	return r, ""
}

// headerLines writes a header as the ABI wants it, in the order of the names.
func headerLines(h http.Header) []byte {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			b = append(append(append(append(b, strings.ToLower(name)...), ": "...), v...), '\n')
		}
	}
	return b
}
