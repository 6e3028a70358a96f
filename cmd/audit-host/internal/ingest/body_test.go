package ingest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/queue"
)

// cycle yields the same bytes n times.
type cycle struct {
	text []byte
	at   int
	n    int
	read int64
}

func (c *cycle) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.text[c.at:])
	c.read += int64(n)
	if c.at += n; c.at == len(c.text) {
		c.at, c.n = 0, c.n-1
	}
	return n, nil
}

// A gzip stream of 1 GiB costs no more than the limit, in memory and in reading.
func TestBodyGzipBomb(t *testing.T) {
	const limit = 16 << 20
	member := zip(t, strings.Repeat(" ", limit/2))
	bomb := &cycle{text: []byte(member), n: (1 << 30) / (limit / 2)}
	r := newRig(t, queue.MemoryOptions{}, nil)
	req := request("POST", "/v1/events", "", "Content-Encoding", "gzip")
	req.Body, req.ContentLength = io.NopCloser(bomb), -1
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.do(413, req)
	runtime.ReadMemStats(&after)
	// 4 KiB, 8 KiB, ... 16 MiB: twice the limit in all, and 1 MiB for the rest.
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(2*limit+1<<20); got > most {
		t.Errorf("allocated %d bytes in all, at most %d are due", got, most)
	}
	if most := int64(4 * len(member)); bomb.read > most {
		t.Errorf("read %d compressed bytes, at most %d are due", bomb.read, most)
	}
}

// Empty gzip members yield nothing for ever; what is compressed is bounded too.
func TestBodyGzipOfNothing(t *testing.T) {
	endless := &cycle{text: []byte(zip(t, "")), n: 1 << 30}
	r := newRig(t, queue.MemoryOptions{}, func(o *Options) { o.MaxBody = 64 << 10 })
	req := request("POST", "/v1/events", "", "Content-Encoding", "gzip")
	req.Body, req.ContentLength = io.NopCloser(endless), -1
	r.do(413, req)
	if most := int64(64<<10 + 1<<10 + 4096 + 64<<10); endless.read > most {
		t.Errorf("read %d bytes, at most %d are due", endless.read, most)
	}
}

// A claimed length costs nothing until the bytes are there.
func TestBodyClaimedLength(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, nil)
	held := int64(-1)
	req := request("POST", "/v1/events", "")
	req.ContentLength = 16 << 20
	req.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
		if held < 0 {
			held = r.buffered.Load()
			return copy(p, "["), nil
		}
		return 0, io.ErrUnexpectedEOF
	}))
	w := r.do(400, req)
	if held > 4096 || !strings.Contains(w.Body.String(), "unexpected EOF") {
		t.Errorf("%d bytes were held before the first one came; answer %s", held, w.Body)
	}
	req = request("POST", "/v1/events", "")
	req.ContentLength = 16<<20 + 1
	req.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
		t.Error("a body declared as too large was read")
		return 0, io.EOF
	}))
	r.do(413, req)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// All bodies together have a bound; beyond it a request is sent away, and once
// the others are through it is served. A request that waits for its
// acknowledgement holds no body.
func TestBodiesTogether(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{MaxEvent: 1 << 20}, func(o *Options) { o.MaxBody, o.MaxBuffered = 64<<10, 160<<10 })
	text := one(strings.Repeat("x", 20)) + strings.Repeat(" ", 60<<10)
	var clients sync.WaitGroup
	var writers []*io.PipeWriter
	var held [2]chan struct{}
	for i := range held {
		in, out := io.Pipe()
		writers = append(writers, out)
		held[i] = make(chan struct{})
		clients.Go(func() {
			req := request("POST", "/v1/events?ack=accepted", "")
			req.Body, req.ContentLength = in, -1
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, req)
			if w.Code != http.StatusAccepted {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		})
		clients.Go(func() {
			io.Copy(out, bytes.NewReader([]byte(text)))
			close(held[i])
		})
	}
	for _, h := range held {
		<-h // the server has read all of it and waits for more
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, request("POST", "/v1/events?ack=accepted", text))
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "too many bodies") {
		t.Errorf("status %d %v: %s", w.Code, w.Header(), w.Body)
	}
	for _, out := range writers {
		out.Close()
	}
	clients.Wait()
	r.post(202, "/v1/events?ack=accepted", text)
	if got := r.Stats().Accepted; got != 3 {
		t.Errorf("accepted %d events, want 3", got)
	}
}
