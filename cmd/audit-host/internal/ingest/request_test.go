package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

const ndjson = "application/x-ndjson"

func TestEventsAnswers(t *testing.T) {
	long := one(strings.Repeat("x", 300))
	for _, c := range []struct {
		name, target, body string
		headers            []string
		want               int
		statuses           string // of a Report
		text               string // anywhere in the body
	}{
		{"object", "/v1/events", one("a"), nil, 200, "a:durable", `"accepted":1,"rejected":0,"skipped":0,"retry":0,"events":[{"index":0,"id":"a","status":"durable"}]}`},
		{"object with a type", "/v1/events", " " + one("a") + "\n", []string{"Content-Type", "application/json; charset=UTF-8"}, 200, "a:durable", ""},
		{"array", "/v1/events", "[" + one("a") + " ,\n" + one("b") + "]", nil, 200, "a:durable b:durable", ""},
		{"empty array", "/v1/events", " [ ] ", nil, 200, "", `"events":[]`},
		{"lines", "/v1/events", one("a") + "\r\n\n" + one("b"), []string{"Content-Type", ndjson}, 200, "a:durable b:durable", `"line":3`},
		{"lines by content", "/v1/events", one("a") + "\n" + one("b") + "\n", nil, 200, "a:durable b:durable", `"line":2`},
		{"bad line in the middle", "/v1/events", one("a") + "\n{\"id\":\n" + one("b") + "\n", []string{"Content-Type", ndjson}, 200, "a:durable :rejected b:durable", `"index":1,"line":2,`},
		{"bad element in the middle", "/v1/events", "[" + one("a") + `,{"nope":[1,"]"]},17,` + one("b") + "]", nil, 200, "a:durable :rejected :rejected b:durable", "unknown field"},
		{"gzip", "/v1/events", zip(t, one("a")), []string{"Content-Encoding", "gzip"}, 200, "a:durable", ""},
		{"skipped", "/v1/events", `[{"id":"a","decision":"allow"},` + one("b") + "]", nil, 200, "a:skipped b:durable", `"skipped":1`},
		{"only skipped", "/v1/events?ack=accepted", `{"id":"a","decision":"allow"}`, nil, 200, "a:skipped", ""},
		{"accepted", "/v1/events?ack=accepted", one("a"), nil, 202, "a:accepted", ""},
		{"ledger", "/v1/events?ack=ledger", one("a"), nil, 200, "a:appended", `"sequence":1,"row_hash":"0000`},
		{"dead letter", "/v1/events?ack=ledger", one(poison), nil, 200, poison + ":dead_letter", "refused by the ledger"},
		{"too large among others", "/v1/events", "[" + long + "," + one("b") + "]", nil, 200, ":rejected b:durable", "http.max_event"},
		{"too large alone", "/v1/events", long, nil, 413, ":rejected", "http.max_event"},
		{"too large for the queue", "/v1/events", one(strings.Repeat("x", 110)), nil, 413, strings.Repeat("x", 110) + ":rejected", "too large"},
		{"no id", "/v1/events", one(""), nil, 400, ":rejected", "event id"},
		{"all malformed", "/v1/events", `[1,{"x":2}]`, nil, 400, ":rejected :rejected", "no event of this body"},
		{"not JSON", "/v1/events", "hello", nil, 400, ":rejected", ""},
		{"two objects", "/v1/events", one("a") + one("b"), nil, 400, ":rejected", "text after"},
		{"cut off object", "/v1/events", `{"id":"a"`, nil, 400, ":rejected", ""},
		{"empty", "/v1/events", "", nil, 400, "", "the body is empty"},
		{"blank lines", "/v1/events", "\n \r\n", []string{"Content-Type", ndjson}, 400, "", "the body is empty"},
		{"cut off array", "/v1/events", "[" + one("a") + ",", nil, 400, "", "ends in the middle, after 1"},
		{"text after the array", "/v1/events", "[" + one("a") + "]]", nil, 400, "", "at byte 12: text after"},
		{"too many", "/v1/events", "[" + strings.Repeat("1,", 50) + "1]", nil, 413, "", "more than 50 events"},
		{"body too large", "/v1/events", strings.Repeat(" ", 4097), nil, 413, "", "http.max_body"},
		{"gzip body too large", "/v1/events", zip(t, strings.Repeat(" ", 4097)), []string{"Content-Encoding", "gzip"}, 413, "", "http.max_body"},
		{"gzip cut off", "/v1/events", zip(t, one("a"))[:20], []string{"Content-Encoding", "gzip"}, 400, "", "read gzip body: unexpected EOF"},
		{"not gzip", "/v1/events", one("a"), []string{"Content-Encoding", "gzip"}, 400, "", "gzip: invalid header"},
		{"ack unknown", "/v1/events?ack=maybe", one("a"), nil, 400, "", "ack=maybe"},
		{"a form's text", "/v1/events", "id=a&agent_id=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, "", ""},
		{"an upload", "/v1/events", one("a"), []string{"Content-Type", "multipart/form-data; boundary=x"}, 415, "", "application/json"},
		{"another charset", "/v1/events", one("a"), []string{"Content-Type", "application/json; charset=latin1"}, 415, "", "UTF-8"},
		{"broken type", "/v1/events", one("a"), []string{"Content-Type", "application/"}, 415, "", ""},
		{"brotli", "/v1/events", one("a"), []string{"Content-Encoding", "br"}, 415, "", "gzip"},
		{"unknown path", "/v2/events", one("a"), nil, 404, "", "POST /v1/events"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, queue.MemoryOptions{MaxEvent: 100}, func(o *Options) { o.MaxBody, o.MaxEvent, o.MaxEvents = 4096, 200, 50 })
			r.commitAll()
			w := r.do(c.want, request("POST", c.target, c.body, c.headers...))
			if !strings.Contains(w.Body.String(), c.text) {
				t.Errorf("the answer lacks %q: %s", c.text, w.Body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %q", got)
			}
			if c.statuses == "" && !strings.Contains(c.text, "events") {
				if n := r.Stats().Accepted; n != 0 {
					t.Errorf("%d events were accepted by a refused request", n)
				}
				return
			}
			if c.statuses != "" {
				if got := statuses(answer(t, w.Body)); got != c.statuses {
					t.Errorf("statuses %q, want %q", got, c.statuses)
				}
			}
		})
	}
}

func TestEventsTenThousand(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, nil)
	r.commitAll()
	var body strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&body, ",%s", one(fmt.Sprint("e", i)))
	}
	a := r.post(200, "/v1/events?ack=ledger", "["+body.String()[1:]+"]")
	if a.Accepted != 10_000 {
		t.Fatalf("accepted %d", a.Accepted)
	}
	for i, e := range a.Events {
		if e.ID != fmt.Sprint("e", i) || e.Status != event.StatusAppended || e.Sequence != uint64(i+1) {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	if got := r.Stats(); got != (Stats{Accepted: 10_000}) {
		t.Errorf("stats %+v", got)
	}
}

// An event beyond the first that found no room is not taken although there may
// be room by then: it would stand before an earlier one.
func TestEventsQueueFull(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{MaxEvents: 2}, nil)
	w := r.do(503, request("POST", "/v1/events?ack=accepted", `[`+one("a")+`,{"id":"s","decision":"allow"},1,`+one("b")+`,`+one("c")+`,`+one("d")+`]`))
	if got := w.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After %q", got)
	}
	a := answer(t, w.Body)
	if got, want := statuses(a), "a:accepted s:skipped :rejected b:accepted c:retry :retry"; got != want {
		t.Errorf("statuses %q, want %q", got, want)
	}
	if !strings.Contains(a.Error, "event 4 and all after it were not taken") || !strings.Contains(a.Error, "queue: full") {
		t.Errorf("error %q", a.Error)
	}
	r.commit(2)
	if got := strings.Join(r.order, " "); got != "a b" {
		t.Errorf("committed %q", got)
	}
	r.post(202, "/v1/events?ack=accepted", one("c"))
	if got, want := r.Stats(), (Stats{Accepted: 3, Rejected: 1, Skipped: 1, Retry: 2}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestEventsQueueFullWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, queue.MemoryOptions{MaxEvents: 1}, func(o *Options) { o.AckTimeout = 10 * time.Second })
		r.wait = true
		time.AfterFunc(3*time.Second, func() { r.commit(1) })
		begin := time.Now()
		a := r.post(503, "/v1/events", "["+one("a")+","+one("b")+","+one("c")+"]")
		if got := time.Since(begin); got != 10*time.Second {
			t.Errorf("waited %v", got)
		}
		// The first was committed while the third waited for room.
		if got, want := statuses(a), "a:durable b:accepted c:retry"; got != want {
			t.Errorf("statuses %q, want %q", got, want)
		}
	})
}

func TestEventsQueueClosed(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, nil)
	if err := r.q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := r.post(503, "/v1/events", one("a")); statuses(a) != "a:retry" || !strings.Contains(a.Error, "closed") {
		t.Errorf("answer %+v", a)
	}
}

func TestEventsAckTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, queue.MemoryOptions{}, nil)
		time.AfterFunc(time.Second, func() { r.commit(1) })
		begin := time.Now()
		w := r.do(503, request("POST", "/v1/events", "["+one("a")+","+one("b")+"]"))
		if got := time.Since(begin); got != 30*time.Second {
			t.Errorf("waited %v", got)
		}
		a := answer(t, w.Body)
		if got, want := statuses(a), "a:durable b:accepted"; got != want || w.Header().Get("Retry-After") == "" {
			t.Errorf("statuses %q, want %q; headers %v", got, want, w.Header())
		}
		if !strings.Contains(a.Events[1].Error, "http.ack_timeout") || !strings.Contains(a.Error, "same ids") {
			t.Errorf("answer %+v", a)
		}
	})
}

// A repeated request under the same ids is what the answer to a timeout asks
// for: it gets its receipt.
func TestEventsRepeatedAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, queue.MemoryOptions{}, nil)
		r.post(503, "/v1/events?ack=ledger", one("a"))
		r.commitAll()
		a := r.post(200, "/v1/events?ack=ledger", one("a"))
		if statuses(a) != "a:appended" || a.Events[0].Sequence != 1 || len(r.order) != 1 {
			t.Errorf("answer %+v, committed %q", a, r.order)
		}
	})
}

func TestEventsClientGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, queue.MemoryOptions{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		r.do(503, request("POST", "/v1/events", one("a")).WithContext(ctx))
		if got := time.Since(begin); got != time.Second {
			t.Errorf("waited %v for a client that was gone", got)
		}
		r.commit(1) // still queued
		if len(r.order) != 1 {
			t.Errorf("committed %q", r.order)
		}
	})
}

// What is looked up is the event with its content, not just its id.
func TestEventsLookupTellsTheContent(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, nil)
	r.commitAll()
	e, _, err := parseTest([]byte(one("a")))
	if err != nil {
		t.Fatal(err)
	}
	r.post(200, "/v1/events?ack=ledger", one("a"))
	if want := sha256.Sum256(e.Payload); len(r.asked) != 1 || r.asked[0] != want {
		t.Errorf("asked for %x, want %x", r.asked, want)
	}
}

func TestEventsLookupFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{{errors.New("disk on fire"), "disk on fire"}, {nil, "neither in the ledger"}} {
		r := newRig(t, queue.MemoryOptions{}, func(o *Options) {
			o.Lookup = func(context.Context, queue.Seq, string, [32]byte) (Landed, bool, error) {
				return Landed{}, false, c.err
			}
		})
		r.commitAll()
		a := r.post(503, "/v1/events?ack=ledger", one("a"))
		if statuses(a) != "a:durable" || !strings.Contains(a.Events[0].Error, c.want) {
			t.Errorf("answer %+v, want %q", a, c.want)
		}
	}
}

// A fault of ours in parsing is no fault of the event: nothing is rejected or
// made a dead letter for it.
func TestParseNotNow(t *testing.T) {
	parse := func([]byte) (abi.Event, string, error) {
		return abi.Event{}, "", fmt.Errorf("mint id: %w", ErrNotNow)
	}
	r := newRig(t, queue.MemoryOptions{}, func(o *Options) { o.Routes[0].Parse, o.Routes[1].Parse = parse, parse })
	if a := r.post(503, "/v1/events", one("a")); statuses(a) != ":retry" || !strings.Contains(a.Error, "mint id") {
		t.Errorf("answer %+v", a)
	}
	if r.do(503, request("POST", "/logs", "["+one("a")+"]")); len(r.dead) != 0 {
		t.Errorf("dead letters %q", r.deadTexts())
	}
}

// With a queue whose events are durable before they are committed, each ack
// waits for its own level.
func TestEventsAckLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, queue.MemoryOptions{}, func(o *Options) { o.DurableLevel = queue.Durable })
		time.AfterFunc(time.Second, func() { r.commit(3) })
		for _, c := range []struct {
			ack    string
			code   int
			status event.Status
			took   time.Duration
		}{
			{"accepted", 202, event.StatusAccepted, 0},
			{"durable", 200, event.StatusDurable, 0},
			{"ledger", 200, event.StatusAppended, time.Second},
		} {
			begin := time.Now()
			a := r.post(c.code, "/v1/events?ack="+c.ack, one(c.ack))
			if took := time.Since(begin); a.Events[0].Status != c.status || took != c.took {
				t.Errorf("ack=%s: %+v after %v", c.ack, a.Events[0], took)
			}
		}
	})
}

// partly is a queue that kept the first two events and then failed.
type partly struct{ n uint64 }

func (p *partly) Submit(context.Context, abi.Event) (queue.Receipt, error) {
	p.n++
	return queue.NewReceipt(p, p.n), nil
}

func (p *partly) TicketSeq(n uint64) (queue.Seq, bool) { return queue.Seq(n), true }

func (p *partly) WaitTicket(_ context.Context, n uint64, l queue.Level) error {
	if l != queue.Durable {
		return fmt.Errorf("asked for %v", l)
	}
	if n > 2 {
		return fmt.Errorf("fsync: %w", queue.ErrFailed)
	}
	return nil
}

func TestEventsQueueFails(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, func(o *Options) { o.Routes[0].Intake, o.DurableLevel = &partly{}, queue.Durable })
	a := r.post(503, "/v1/events", "["+one("a")+","+one("b")+","+one("c")+"]")
	if got, want := statuses(a), "a:durable b:durable c:accepted"; got != want {
		t.Errorf("statuses %q, want %q", got, want)
	}
	if !strings.Contains(a.Events[2].Error, "fsync") || a.Error == "" {
		t.Errorf("answer %+v", a)
	}
}

func TestGuards(t *testing.T) {
	const token = "correct horse battery"
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "numbers") })
	open := newRig(t, queue.MemoryOptions{}, func(o *Options) { o.Metrics = metrics })
	secret := newRig(t, queue.MemoryOptions{}, func(o *Options) { o.Metrics, o.Token = metrics, token })
	auth := func(v string) []string { return []string{"Authorization", v} }
	for _, c := range []struct {
		name         string
		r            *rig
		want         int
		method, path string
		host         string
		headers      []string
		key, value   string
	}{
		{"get events", open, 405, "GET", "/v1/events", "", nil, "Allow", "POST"},
		{"delete logs", open, 405, "DELETE", "/logs/a/b", "", nil, "Allow", "POST"},
		{"post metrics", open, 405, "POST", "/metrics", "", nil, "Allow", "GET, HEAD"},
		{"head healthy", open, 200, "HEAD", "/-/healthy", "", nil, "", ""},
		{"root", open, 404, "GET", "/", "", nil, "", ""},
		{"metrics without a token", open, 200, "GET", "/metrics", "", nil, "", ""},
		{"localhost", open, 200, "GET", "/metrics", "LocalHost:8480", nil, "", ""},
		{"ipv6", open, 200, "GET", "/metrics", "[::1]:8480", nil, "", ""},
		{"ipv6 without a port", open, 200, "GET", "/metrics", "[::1]", nil, "", ""},
		{"another name", open, 421, "POST", "/v1/events", "evil.example:8480", nil, "", ""},
		{"another name with a token", secret, 202, "POST", "/v1/events?ack=accepted", "audit.example", auth("Bearer " + token), "", ""},
		{"another origin", open, 403, "POST", "/v1/events", "", []string{"Origin", "https://evil.example"}, "", ""},
		{"another site", secret, 403, "POST", "/logs", "", []string{"Sec-Fetch-Site", "cross-site", "Authorization", "Bearer " + token}, "", ""},
		{"no token", secret, 401, "POST", "/v1/events", "", nil, "WWW-Authenticate", `Bearer realm="audit-host"`},
		{"no token for OPA", secret, 401, "POST", "/logs", "", nil, "WWW-Authenticate", `Bearer realm="audit-host"`},
		{"no token for metrics", secret, 401, "GET", "/metrics", "", nil, "WWW-Authenticate", `Bearer realm="audit-host"`},
		{"wrong token", secret, 401, "POST", "/v1/events", "", auth("Bearer " + token + "x"), "WWW-Authenticate", `Bearer realm="audit-host", error="invalid_token"`},
		{"beginning of the token", secret, 401, "POST", "/v1/events", "", auth("Bearer " + token[:5]), "", ""},
		{"empty token", secret, 401, "POST", "/v1/events", "", auth("Bearer "), "", ""},
		{"another scheme", secret, 401, "POST", "/v1/events", "", auth("Basic " + token), "", ""},
		{"token", secret, 202, "POST", "/v1/events?ack=accepted", "", auth("bearer  " + token), "", ""},
		{"token for metrics", secret, 200, "GET", "/metrics", "", auth("Bearer " + token), "", ""},
		{"healthy needs none", secret, 200, "GET", "/-/healthy", "", nil, "", ""},
		{"ready needs none", secret, 200, "GET", "/-/ready", "", nil, "", ""},
	} {
		req := request(c.method, c.path, one("a"), c.headers...)
		if c.host != "" {
			req.Host = c.host
		}
		w := httptest.NewRecorder()
		c.r.Handler().ServeHTTP(w, req)
		if w.Code != c.want {
			t.Errorf("%s: status %d, want %d: %s", c.name, w.Code, c.want, w.Body)
		}
		if got := w.Header().Get(c.key); c.key != "" && got != c.value {
			t.Errorf("%s: %s is %q, want %q", c.name, c.key, got, c.value)
		}
	}
	if o, s := open.Stats().Accepted, secret.Stats().Accepted; o != 0 || s != 2 {
		t.Errorf("accepted %d and %d events, want 0 and 2", o, s)
	}
}

func TestReady(t *testing.T) {
	var reasons []string
	r := newRig(t, queue.MemoryOptions{}, func(o *Options) {
		o.Ready = func(bool) (bool, []string) { return reasons == nil, reasons }
	})
	if got := r.do(200, request("GET", "/-/ready", "")).Body.String(); got != `{"ready":true,"reasons":[]}`+"\n" {
		t.Errorf("answer %s", got)
	}
	reasons = []string{`sink "ledger" is parked`}
	if got := r.do(503, request("GET", "/-/ready", "")).Body.String(); got != `{"ready":false,"reasons":["sink \"ledger\" is parked"]}`+"\n" {
		t.Errorf("answer %s", got)
	}
	r.do(404, request("GET", "/metrics", ""))
}

// The text of a plugin goes to those who have brought the token.
func TestPluginTextNeedsTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	for _, with := range []string{"", token} {
		r := newRig(t, queue.MemoryOptions{}, func(o *Options) {
			o.Token = with
			o.Ready = func(told bool) (bool, []string) { return false, []string{fmt.Sprint("told ", told)} }
		})
		r.commitAll()
		for _, given := range []string{"", "Bearer " + token, "Bearer 0123456789abcdeX"} {
			want := fmt.Sprint("told ", with != "" && given == "Bearer "+token)
			if got := r.do(503, request("GET", "/-/ready", "", "Authorization", given)).Body.String(); !strings.Contains(got, want) {
				t.Errorf("token %q, given %q: %s", with, given, got)
			}
		}
		got := r.do(200, request("POST", "/v1/events?ack=ledger", one(poison), "Authorization", "Bearer "+token)).Body.String()
		if told := strings.Contains(got, "the sink refused it"); told != (with != "") {
			t.Errorf("token %q: %s", with, got)
		}
	}
}
