//go:build !wasip1

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/egress"
	"github.com/audit-host/audit-host/internal/plugintest"
	"github.com/audit-host/audit-host/queue"
)

var cache *host.Cache

// TestMain keeps compiled code for the whole run.
func TestMain(m *testing.M) { os.Exit(plugintest.Main(m, &cache)) }

// serve starts a collector and returns its address and the rule that grants
// it.
func serve(t *testing.T, h http.HandlerFunc, secrets ...string) (string, egress.HostRule) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return server.URL, egress.HostRule{Scheme: "http", Host: u.Hostname(), Port: uint16(port), Methods: []string{"POST"}, Secrets: secrets}
}

func openHTTP(t *testing.T, config string, p egress.Policy, log io.Writer) *host.Sink {
	t.Helper()
	if p.Timeout == 0 {
		p.Timeout = 5 * time.Second
	}
	s, err := plugintest.Open(t, "sink-http", host.Options{Name: "siem", Cache: cache, Config: []byte(config), HTTP: &p,
		Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDeliversToACollector: the request as a real server sees it, secret and
// all.
func TestDeliversToACollector(t *testing.T) {
	var bodies []string
	var header http.Header
	at, rule := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies, header = append(bodies, r.URL.Path+" "+string(b)), r.Header
		// An honest server that repeats what it got.
		fmt.Fprintf(w, "hello %s", r.Header.Get("Authorization"))
	}, "token")
	var log bytes.Buffer
	s := openHTTP(t, `{"url":"`+at+`/in","shape":"payload","headers":{"Authorization":"Bearer {{secret token}}"}}`,
		egress.Policy{Hosts: []egress.HostRule{rule}, Secrets: map[string]egress.Secret{"token": egress.NewSecret("a-very-secret-value")}}, &log)
	for range 2 {
		if r := s.Deliver(t.Context(), batch("a", "b")); r.Outcome != abi.OK {
			t.Fatalf("%v %q %s", r.Outcome, r.Detail, r.Stderr)
		}
	}
	want := "/in {\"n\":0}\n{\"n\":1}\n"
	if !slices.Equal(bodies, []string{want, want}) || header.Get("Authorization") != "Bearer a-very-secret-value" ||
		header.Get("Content-Type") != "application/x-ndjson" || len(header.Get("Idempotency-Key")) != 64 {
		t.Errorf("the collector got %q with %v", bodies, header)
	}
	if strings.Contains(log.String(), "secret-value") {
		t.Errorf("the secret is in the log: %s", &log)
	}
}

// TestCollectorInTrouble: what each trouble is to the host, by a real server.
func TestCollectorInTrouble(t *testing.T) {
	at, rule := serve(t, func(w http.ResponseWriter, r *http.Request) {
		// A server notices that its client is gone once it has read the body.
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/429":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
		case "/503":
			w.Header().Set("Retry-After", time.Now().Add(90*time.Second).UTC().Format(http.TimeFormat))
			w.WriteHeader(503)
		case "/400":
			http.Error(w, "no such field", 400)
		case "/401":
			w.WriteHeader(401)
		case "/hang":
			<-r.Context().Done()
		case "/cut":
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.Close()
			}
		case "/301":
			http.Redirect(w, r, "/ok", http.StatusMovedPermanently)
		case "/307":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
		case "/elsewhere":
			http.Redirect(w, r, "http://localhost:1/steal", http.StatusTemporaryRedirect)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		case "/endless":
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		}
	})
	for path, c := range map[string]struct {
		want   abi.Outcome
		pause  time.Duration
		detail string
	}{
		"/ok":        {abi.OK, 0, ""},
		"/307":       {abi.OK, 0, ""},
		"/429":       {abi.Busy, 7 * time.Second, "HTTP 429"},
		"/503":       {abi.Busy, 90 * time.Second, "HTTP 503"},
		"/400":       {abi.Reject, 0, "HTTP 400: no such field"},
		"/401":       {abi.Busy, pauseConfig, "HTTP 401"},
		"/hang":      {abi.Busy, pauseBusy, "1s"},
		"/cut":       {abi.Busy, pauseBusy, ""},
		"/301":       {abi.Busy, pauseConfig, "refused by the grant"},
		"/elsewhere": {abi.Busy, pauseConfig, "refused by the grant"},
		"/loop":      {abi.Busy, 0, ""},
		"/endless":   {abi.Busy, pauseBusy, "response body"},
	} {
		t.Run(path, func(t *testing.T) {
			var log bytes.Buffer
			s := openHTTP(t, `{"url":"`+at+path+`"}`, egress.Policy{Hosts: []egress.HostRule{rule}, Timeout: time.Second}, &log)
			r := s.Deliver(t.Context(), batch("a", "b"))
			near := r.RetryAfter - c.pause
			if r.Outcome != c.want || !strings.Contains(r.Detail, c.detail) || c.pause != 0 && (near < -2*time.Second || near > 2*time.Second) {
				t.Errorf("%v after %v, %q; wanted %v after %v, %q", r.Outcome, r.RetryAfter, r.Detail, c.want, c.pause, c.detail)
			}
			counters, _ := s.Egress()
			if refused := path == "/301" || path == "/elsewhere" || path == "/loop"; refused != (counters.Refused == 1) || refused != strings.Contains(log.String(), "refused.hop=") {
				t.Errorf("counters %+v, log %s", counters, &log)
			}
		})
	}
}

// index is a small Elasticsearch: it keeps documents by their id, refuses those
// that hold "bad" for good and those that hold "later" twice.
type index struct {
	mu        sync.Mutex
	documents map[string]string
	later     map[string]int
	requests  int
}

func (x *index) bulk(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.requests++
	body, _ := io.ReadAll(r.Body)
	lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	answer := map[string]any{}
	items, failed := []any{}, false
	for i := 0; i+1 < len(lines); i += 2 {
		var action struct {
			Create struct {
				ID string `json:"_id"`
			}
		}
		if err := json.Unmarshal([]byte(lines[i]), &action); err != nil {
			w.WriteHeader(400)
			return
		}
		id, status := action.Create.ID, 201
		switch _, there := x.documents[id]; {
		case there:
			status = 409
		case strings.Contains(lines[i+1], "bad"):
			status = 400
		case strings.Contains(lines[i+1], "later") && x.later[id] < 2:
			x.later[id]++
			status = 429
		default:
			x.documents[id] = lines[i+1]
		}
		failed = failed || status != 201
		items = append(items, map[string]any{"create": map[string]any{"status": status, "error": map[string]string{"type": "some_exception", "reason": "because"}}})
	}
	answer["errors"], answer["items"] = failed, items
	_ = json.NewEncoder(w).Encode(answer)
}

// one is a sealer and a place for dead letters.
type letters struct {
	mu   sync.Mutex
	list []abi.DeadLetter
}

func (*letters) Seal(...*abi.Event) {}
func (l *letters) Put(_ context.Context, list []abi.DeadLetter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, list...)
	return nil
}

// record sends events through a queue and its drainer until all have a final
// outcome.
func record(t *testing.T, s *host.Sink, o queue.SinkOptions, payloads ...string) (queue.SinkMetrics, []abi.DeadLetter) {
	t.Helper()
	dead := &letters{}
	o.Name, o.Sink, o.Required = "siem", s, true
	r, err := queue.NewRecorder(t.Context(), queue.RecorderOptions{
		Queue: queue.NewMemory(queue.MemoryOptions{MaxEvents: 10_000, MaxBytes: 64 << 20, MaxEvent: 1 << 20}),
		Sinks: []queue.SinkOptions{o}, Sealer: dead, DeadLetters: dead, Check: func(abi.Event) error { return nil },
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range payloads {
		e := abi.Event{ID: fmt.Sprint("id-", i), AgentID: "a", EventType: "t", Timestamp: "2026-01-01T00:00:00+00:00", Payload: []byte(p)}
		if _, err := r.Submit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := r.DrainPending(ctx); err != nil {
		t.Error(err)
	}
	m := r.Metrics().Sinks[0]
	if _, err := r.Close(ctx); err != nil {
		t.Error(err)
	}
	return m, dead.list
}

// TestBulkVerdicts: through queue and drainer, each event gets what its item
// said: stored once, tried again, or a dead letter.
func TestBulkVerdicts(t *testing.T) {
	x := &index{documents: map[string]string{"id-3": "from before"}, later: map[string]int{}}
	at, rule := serve(t, x.bulk)
	s := openHTTP(t, `{"url":"`+at+`/_bulk","format":"elasticsearch","index":"audit","shape":"payload"}`, egress.Policy{Hosts: []egress.HostRule{rule}}, io.Discard)
	m, dead := record(t, s, queue.SinkOptions{}, `{"n":0}`, `{"n":"bad"}`, `{"n":"later"}`, `{"n":3}`, `{"n":4}`)
	if len(x.documents) != 4 || x.documents["id-2"] != `{"n":"later"}` || x.documents["id-3"] != "from before" {
		t.Errorf("documents %v", x.documents)
	}
	if m.Appended != 4 || m.DLQLanded != 1 || len(dead) != 1 || dead[0].Event.ID != "id-1" || !strings.Contains(dead[0].Reason, "HTTP 400: some_exception: because") {
		t.Errorf("%+v, dead letters %+v", m, dead)
	}
}

// TestOnlyTheGuiltyEventIsRefused: a collector that refuses whole batches is
// asked in halves, and one event becomes a dead letter.
func TestOnlyTheGuiltyEventIsRefused(t *testing.T) {
	var mu sync.Mutex
	stored := map[string]int{}
	at, rule := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte("bad")) {
			http.Error(w, "entry refused", 400)
			return
		}
		for line := range strings.Lines(string(body)) {
			stored[line]++
		}
	})
	var payloads []string
	for i := range 40 {
		payloads = append(payloads, fmt.Sprintf(`{"n":%d}`, i))
	}
	payloads[17] = `{"n":"bad"}`
	s := openHTTP(t, `{"url":"`+at+`/","shape":"payload"}`, egress.Policy{Hosts: []egress.HostRule{rule}}, io.Discard)
	m, dead := record(t, s, queue.SinkOptions{}, payloads...)
	if len(stored) != 39 || m.Appended != 39 || len(dead) != 1 || dead[0].Event.ID != "id-17" || !strings.Contains(dead[0].Reason, "HTTP 400: entry refused") {
		t.Errorf("%d stored, %+v, dead letters %+v", len(stored), m, dead)
	}
	for line, n := range stored {
		if n != 1 {
			t.Errorf("%s came %d times", line, n)
		}
	}
}

// TestAnswerThatDoesNotFit: the buffer grows, and the documents are found to
// be there.
func TestAnswerThatDoesNotFit(t *testing.T) {
	x := &index{documents: map[string]string{}, later: map[string]int{}}
	at, rule := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.Repeat(" ", 200<<10))
		x.bulk(w, r)
	})
	s := openHTTP(t, `{"url":"`+at+`/_bulk","format":"elasticsearch","index":"audit"}`, egress.Policy{Hosts: []egress.HostRule{rule}}, io.Discard)
	if r := s.Deliver(t.Context(), batch("a", "b")); r.Outcome != abi.Busy || !strings.Contains(r.Detail, "more room") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	if r := s.Deliver(t.Context(), batch("a", "b")); r.Outcome != abi.OK || len(x.documents) != 2 || x.requests != 2 {
		t.Errorf("%v %q, %d documents", r.Outcome, r.Detail, len(x.documents))
	}
}

// TestManyBatches: memory does not grow with their number.
func TestManyBatches(t *testing.T) {
	n := 0
	at, rule := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n++
	})
	s := openHTTP(t, `{"url":"`+at+`/"}`, egress.Policy{Hosts: []egress.HostRule{rule}}, io.Discard)
	types := make([]string, 9)
	big := batch(types...)
	for i := range big.Events {
		big.Events[i].Payload = []byte(`"` + strings.Repeat("x", 40_000) + `"`)
	}
	for i := range 300 {
		if r := s.Deliver(t.Context(), big); r.Outcome != abi.OK {
			t.Fatalf("batch %d: %v %q %s", i, r.Outcome, r.Detail, r.Stderr)
		}
	}
	if n != 300 {
		t.Errorf("%d requests", n)
	}
}
