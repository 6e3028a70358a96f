package ingest

import (
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/audit-host/audit-host/event"
)

// body is a request's body in memory. What it holds is counted against
// Options.MaxBuffered until free.
type body struct {
	s     *Server
	bytes []byte
	held  int64
	media string
	split func(event.Request) event.Elements
}

// free may be called again.
func (b *body) free() {
	b.s.buffered.Add(-b.held)
	b.bytes, b.held = nil, 0
}

// become gives the bytes up and has n bytes counted in their place, until free. It
// may pass the limit: other bodies have to wait then.
func (b *body) become(n int64) {
	b.s.buffered.Add(n - b.held)
	b.bytes, b.held = nil, n
}

// grow makes room for at least one byte more, up to limit bytes in all. While
// the bytes are copied both blocks exist and only the new one is counted.
func (b *body) grow(limit int) *failure {
	n := max(2*cap(b.bytes), 4<<10)
	if n >= limit-1 { // and not once more for the byte beyond
		n = limit
	}
	more := int64(n) - b.held
	if b.s.buffered.Add(more) > int64(b.s.o.MaxBuffered) {
		b.s.buffered.Add(-more)
		return fail(http.StatusServiceUnavailable, "too many bodies at once; nothing of this one was accepted").
			with("Retry-After", retryAfter)
	}
	b.held = int64(n)
	bigger := make([]byte, len(b.bytes), n)
	copy(bigger, b.bytes)
	b.bytes = bigger
	return nil
}

// mediaOf returns the media type of a Content-Type and the row it is read by; nil
// if it is not served.
func mediaOf(contentType string, rows []event.Media) (media string, row *event.Media) {
	if contentType == "" {
		return rows[0].Types[0], &rows[0]
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", nil
	}
	if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") {
		return "", nil
	}
	for i := range rows {
		if slices.Contains(rows[i].Types, media) {
			return media, &rows[i]
		}
	}
	return "", nil
}

// readBody reads the whole body, decompressed. It starts small and doubles, so
// that a client holds no more than twice what it really sent.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, media []event.Media) (*body, *failure) {
	of, row := mediaOf(r.Header.Get("Content-Type"), media)
	if row == nil {
		var served []string
		for _, m := range media {
			served = append(served, m.Types[0])
		}
		return nil, fail(http.StatusUnsupportedMediaType,
			"Content-Type %q is not served: send %s, in UTF-8", cut(r.Header.Get("Content-Type")), strings.Join(served, " or "))
	}
	tooLarge := func() *failure {
		return fail(http.StatusRequestEntityTooLarge,
			"the body is larger than %d bytes after decompression (http.max_body); nothing of it was accepted", s.o.MaxBody).
			with("Connection", "close")
	}
	encoded, limit := false, s.o.MaxBody+1 // one byte beyond tells a full body from one too large
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header.Values("Content-Encoding"), ","))); encoding {
	case "", "identity":
		if r.ContentLength > int64(s.o.MaxBody) {
			return nil, tooLarge()
		}
		if r.ContentLength >= 0 {
			limit = int(r.ContentLength) + 1
		}
	case "gzip", "x-gzip":
		encoded = true
	default:
		return nil, fail(http.StatusUnsupportedMediaType, "Content-Encoding %q is not served: send gzip or none", cut(encoding)).
			with("Accept-Encoding", "gzip")
	}
	// What is compressed is limited too: a gzip stream of empty members goes
	// on without ever yielding a byte. The slack is for data that grows.
	var in io.Reader = http.MaxBytesReader(w, r.Body, int64(s.o.MaxBody)+int64(s.o.MaxBody)/64+4096)
	b := &body{s: s, media: of, split: row.Split}
	var err error
	if encoded {
		in, err = gzip.NewReader(in)
	}
	for err == nil {
		if len(b.bytes) == cap(b.bytes) {
			if f := b.grow(limit); f != nil {
				b.free()
				return nil, f
			}
		}
		var n int
		n, err = in.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		if b.bytes = b.bytes[:len(b.bytes)+n]; len(b.bytes) > s.o.MaxBody {
			b.free()
			return nil, tooLarge()
		}
	}
	if err == io.EOF {
		// Read to its end, net/http takes the deadline for reading away and
		// watches whether the client goes away.
		return b, nil
	}
	b.free()
	var most *http.MaxBytesError
	switch {
	case errors.As(err, &most):
		return nil, tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fail(http.StatusRequestTimeout, "the body did not arrive within %v (http.read_timeout); nothing of it was accepted", s.o.ReadTimeout).
			with("Connection", "close")
	case encoded:
		return nil, fail(http.StatusBadRequest, "read gzip body: %v; nothing of it was accepted", err)
	}
	return nil, fail(http.StatusBadRequest, "read body: %v; nothing of it was accepted", err)
}
