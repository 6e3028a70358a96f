package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// rig is a server over a real memory queue. Nothing is committed until a test
// calls commit or commitAll.
type rig struct {
	t testing.TB
	*Server
	o        Options
	q        *queue.Memory
	consumer queue.Consumer
	wait     bool // Submit waits for room

	mu     sync.Mutex
	landed map[string]Landed
	order  []string   // ids, as committed
	asked  [][32]byte // payload hashes that Lookup was given
	dead   []Refused
	deadly error // what DeadLetters returns
}

// poison begins the id of an event that the rig's sink makes a dead letter of.
const poison = "poison"

func newRig(t testing.TB, m queue.MemoryOptions, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, q: queue.NewMemory(m), landed: make(map[string]Landed)}
	var err error
	if r.consumer, err = r.q.Consumer(t.Context(), "ledger", queue.ConsumerOptions{Required: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.consumer.Close() })
	r.o = Options{
		Routes:       []Route{{event.Formats[0], r, parseTest}, {event.Formats[1], r, parseTest}},
		Record:       func(d string) bool { return d == "refuse" },
		DurableLevel: queue.Committed,
		Lookup: func(_ context.Context, _ queue.Seq, id string, payload [32]byte) (Landed, bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.asked = append(r.asked, payload)
			at, ok := r.landed[id]
			return at, ok, nil
		},
		DeadLetters: func(_ context.Context, refused []Refused) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.deadly != nil {
				return r.deadly
			}
			for _, d := range refused {
				d.Raw = bytes.Clone(d.Raw)
				r.dead = append(r.dead, d)
			}
			return nil
		},
	}
	if change != nil {
		change(&r.o)
	}
	if r.Server, err = New(r.o); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) Submit(ctx context.Context, e abi.Event) (queue.Receipt, error) {
	ev := queue.Event{ID: e.ID, Payload: e.Payload}
	if r.wait {
		return r.q.SubmitBlocking(ctx, ev)
	}
	return r.q.Submit(ev)
}

// commit lands at least n events.
func (r *rig) commit(n int) {
	for n > 0 {
		b, err := r.consumer.Next(r.t.Context(), n, 1<<30)
		if err != nil {
			return // the test has ended
		}
		r.mu.Lock()
		for _, e := range b.Events {
			if strings.HasPrefix(e.ID, poison) {
				r.landed[e.ID] = Landed{DeadLetter: "the sink refused it"}
			} else if _, ok := r.landed[e.ID]; !ok {
				r.landed[e.ID] = Landed{Sequence: uint64(e.Seq), RowHash: fmt.Sprintf("%064x", e.Seq)}
				r.order = append(r.order, e.ID)
			}
		}
		r.mu.Unlock()
		if err := r.consumer.Ack(r.t.Context(), b.Last()); err != nil {
			if r.t.Context().Err() == nil {
				r.t.Errorf("acknowledge: %v", err)
			}
			return
		}
		n -= len(b.Events)
	}
}

// commitAll lands events as they come until the test ends.
func (r *rig) commitAll() {
	var done sync.WaitGroup
	done.Go(func() { r.commit(1 << 40) })
	r.t.Cleanup(done.Wait) // the test's context is done before cleanups run
}

// parseTest is a parser as strict as the tests need: {"id","decision"}.
func parseTest(raw []byte) (abi.Event, string, error) {
	var in struct{ ID, Decision string }
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return abi.Event{}, "", fmt.Errorf("decode event: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return abi.Event{}, "", errors.New("text after the event")
	}
	if in.Decision == "" {
		in.Decision = "refuse"
	}
	return abi.Event{ID: in.ID, EventType: "governance.refusal", Payload: bytes.Clone(raw)}, in.Decision, nil
}

func one(id string) string { return fmt.Sprintf(`{"id":%q}`, id) }

func zip(t testing.TB, text string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	io.WriteString(z, text)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func request(method, target, body string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8480"
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// do serves a request and checks its status.
func (r *rig) do(want int, req *http.Request) *httptest.ResponseRecorder {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, req)
	if w.Code != want {
		r.t.Fatalf("%s %s: status %d, want %d: %s", req.Method, req.URL, w.Code, want, w.Body)
	}
	if got := r.buffered.Load(); got != 0 {
		r.t.Fatalf("%s %s: %d bytes of bodies still counted", req.Method, req.URL, got)
	}
	return w
}

func (r *rig) post(want int, target, body string, headers ...string) event.Report {
	r.t.Helper()
	return answer(r.t, r.do(want, request("POST", target, body, headers...)).Body)
}

func answer(t testing.TB, from io.Reader) event.Report {
	t.Helper()
	var a event.Report
	dec := json.NewDecoder(from)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		t.Fatalf("decode answer: %v", err)
	}
	if a.Accepted+a.Rejected+a.Skipped+a.Retry != len(a.Events)+a.Unnamed {
		t.Fatalf("the counts do not add up to %d events: %+v", len(a.Events), a)
	}
	for i, e := range a.Events {
		if e.Index != i && a.Unnamed == 0 {
			t.Fatalf("event %d has the index %d", i, e.Index)
		}
	}
	return a
}

func statuses(a event.Report) string {
	var out []string
	for _, e := range a.Events {
		out = append(out, strings.TrimSuffix(e.ID+":"+string(e.Status), ":"))
	}
	return strings.Join(out, " ")
}

func TestNewChecksOptions(t *testing.T) {
	good := newRig(t, queue.MemoryOptions{}, nil).o
	for name, change := range map[string]func(*Options){
		"Routes, ":             func(o *Options) { o.Routes = nil },
		"needs Intake and Par": func(o *Options) { o.Routes = []Route{{Format: event.Formats[0], Intake: o.Routes[0].Intake}} },
		"DurableLevel 1":       func(o *Options) { o.DurableLevel = queue.Accepted },
		"MaxBody is negative":  func(o *Options) { o.MaxBody = -1 },
		"IdleTimeout is negat": func(o *Options) { o.IdleTimeout = -1 },
		"MaxEvent 9, MaxBody ": func(o *Options) { o.MaxEvent, o.MaxBody = 9, 8 },
		"MaxBuffered 8 do not": func(o *Options) { o.MaxBuffered, o.MaxBody = 8, 8 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New: %v, want %q", err, name)
		}
	}
}
