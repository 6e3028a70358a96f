package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// Two bytes of a body are an event that is refused; what is said of such events is
// bounded, and those that were taken have their receipts nevertheless.
func TestAnswersAreBounded(t *testing.T) {
	const named = 100 // of those that were not taken
	r := newRig(t, queue.MemoryOptions{}, func(o *Options) { o.MaxBody, o.MaxEvents, o.MaxEvent, o.MaxBuffered = 1<<20, 1<<16, 1<<10, 4<<20 })
	const bad = 60_000
	body := "[" + strings.Repeat("0,", bad/2) + one("a") + "," + strings.Repeat("0,", bad/2) + one("b") + "]"
	req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/events?ack=ledger", strings.NewReader(body))
	r.commitAll()
	w := r.do(200, req)
	if n := w.Body.Len(); n > 32<<10 {
		t.Errorf("an answer of %d bytes", n)
	}
	a := answer(t, w.Body)
	if a.Accepted != 2 || a.Rejected != bad || a.Unnamed != bad-named || len(a.Events) != named+2 {
		t.Errorf("%d accepted, %d rejected, %d unnamed, %d events", a.Accepted, a.Rejected, a.Unnamed, len(a.Events))
	}
	for i, want := range map[int]int{named: bad / 2, named + 1: bad + 1} {
		if e := a.Events[i]; e.Index != want || e.Status != event.StatusAppended || e.Sequence == 0 {
			t.Errorf("event %d: %+v; wanted index %d, appended", i, e, want)
		}
	}
	if n := r.buffered.Load(); n != 0 {
		t.Errorf("%d bytes are held after the answer", n)
	}
}

// While it waits, an answer counts in its body's place.
func TestAnswersAreCounted(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, nil)
	var held int64
	r.Server.o.Lookup = func(context.Context, queue.Seq, string, [32]byte) (Landed, bool, error) {
		held = r.buffered.Load()
		return Landed{Sequence: 1}, true, nil
	}
	r.commitAll()
	r.post(200, "/v1/events?ack=ledger", "["+one("a")+","+one("b")+",0]")
	if held != 3*resultBytes {
		t.Errorf("%d bytes are counted, wanted %d", held, 3*resultBytes)
	}
}

// A client that has gone away, and a server that stops, have nothing more read.
func TestNothingIsReadForNobody(t *testing.T) {
	for _, path := range []string{"/v1/events", "/logs"} {
		parsed := 0
		ctx, cancel := context.WithCancelCause(t.Context())
		r := newRig(t, queue.MemoryOptions{}, func(o *Options) {
			o.Routes[0].Parse = func([]byte) (abi.Event, string, error) {
				if parsed++; parsed == 3 {
					cancel(errStopping)
				}
				return abi.Event{}, "", errors.New("bad")
			}
			o.Routes[1].Parse = o.Routes[0].Parse
		})
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1"+path, strings.NewReader("[0,0,0,0,0,0,0]")).WithContext(ctx))
		if parsed != 3 || w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), errStopping.Error()) {
			t.Errorf("%s: %d elements are parsed, answer %d %s", path, parsed, w.Code, w.Body)
		}
	}
}

// OPA's elements are handed to the dead letters some at a time, all of them once.
func TestOPARefusedInParts(t *testing.T) {
	const n = 2*maxRefused + 3
	r := newRig(t, queue.MemoryOptions{}, func(o *Options) {
		o.MaxBody, o.MaxEvents, o.MaxEvent, o.MaxBuffered = 1<<20, 1<<16, 1<<10, 4<<20
		put := o.DeadLetters
		o.DeadLetters = func(ctx context.Context, refused []Refused) error {
			if len(refused) > maxRefused {
				t.Errorf("%d at once", len(refused))
			}
			return put(ctx, refused)
		}
	})
	elements := make([]string, n)
	for i := range elements {
		elements[i] = fmt.Sprint(i)
	}
	w := r.upload(200, "/logs", elements...)
	if want := fmt.Sprintf(`"dead_lettered":%d`, n); !strings.Contains(w.Body.String(), want) || len(r.dead) != n {
		t.Errorf("%s; %d letters, wanted %d", w.Body, len(r.dead), n)
	}
	for i, d := range r.dead {
		if string(d.Raw) != elements[i] {
			t.Fatalf("letter %d is of %s", i, d.Raw)
		}
	}
	r.deadly = errors.New("disk full")
	if w := r.upload(503, "/logs", elements...); !strings.Contains(w.Body.String(), "disk full") {
		t.Errorf("%s", w.Body)
	}
}
