package ingest

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/queue"
)

// opaHeaders are those of OPA's decision log plugin.
var opaHeaders = []string{"Content-Type", "application/json", "Content-Encoding", "gzip", "User-Agent", "Open Policy Agent/1.22.2 (linux, amd64)"}

// upload posts entries as OPA does: an array, each entry written by Go's JSON
// encoder and so followed by a line feed, gzip.
func (r *rig) upload(want int, path string, entries ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	body := "[" + strings.Join(entries, "\n,") + "\n]"
	return r.do(want, request("POST", path, zip(r.t, body), opaHeaders...))
}

func (r *rig) deadTexts() string {
	var out []string
	for _, d := range r.dead {
		out = append(out, d.Format+" "+string(d.Raw))
	}
	return strings.Join(out, " | ")
}

// parseOPATest knows entries in the shape of OPA's, in place of package event's
// mapping.
func parseOPATest(raw []byte) (abi.Event, string, error) {
	const mark = `{"decision_id":"`
	rest, ok := strings.CutPrefix(string(raw), mark)
	id, rest, _ := strings.Cut(rest, `"`)
	if !ok {
		return abi.Event{}, "", errors.New("/decision_id is missing")
	}
	decision := "refuse"
	if strings.Contains(rest, `"result":true`) {
		decision = "allow"
	}
	return abi.Event{ID: id, EventType: "governance.refusal", Payload: []byte(string(raw))}, decision, nil
}

func entry(id string, result bool) string {
	return fmt.Sprintf(`{"decision_id":%q,"labels":{"id":"x","version":"1.22.2"},"path":"http/authz/allow","input":{"user":"] , ["},"result":%t,"requested_by":"127.0.0.1:5","timestamp":"2026-11-24T08:00:00.123456789Z","req_id":3}`, id, result)
}

func newOPARig(t *testing.T, m queue.MemoryOptions, change func(*Options)) *rig {
	return newRig(t, m, func(o *Options) {
		o.Routes[1].Parse = parseOPATest
		if change != nil {
			change(o)
		}
	})
}

func TestLogsUpload(t *testing.T) {
	r := newOPARig(t, queue.MemoryOptions{}, nil)
	r.commitAll()
	w := r.upload(200, "/logs", entry("d1", false), entry("d2", true), entry("d3", false))
	if got, want := strings.TrimSpace(w.Body.String()), `{"accepted":2,"skipped":1,"dead_lettered":0}`; got != want {
		t.Errorf("answer %s, want %s", got, want)
	}
	// OPA did not see the answer and sends the batch again, now with a
	// partition: the ids are the same.
	r.upload(200, "/logs/edge/eu", entry("d1", false), entry("d2", true), entry("d3", false))
	if got := strings.Join(r.order, " "); got != "d1 d3" {
		t.Errorf("committed %q", got)
	}
	if r.upload(200, "/logs"); len(r.dead) != 0 {
		t.Errorf("dead letters %q", r.deadTexts())
	}
}

// Whatever could be read is answered with 200, or OPA sends it for ever. What
// no event can be made of is kept with its text.
func TestLogsContentIsNeverRefused(t *testing.T) {
	for _, c := range []struct {
		name, body string
		committed  string
		dead       string
		reason     string
	}{
		{"one bad among good", "[" + entry("a", false) + `,{"decision_id":7},` + entry("b", false) + "]", "a b", `opa {"decision_id":7}`, "/decision_id is missing"},
		{"too large", "[" + entry("a", false) + `,"` + strings.Repeat("x", 500) + `"]`, "a", `opa "` + strings.Repeat("x", 500) + `"`, "the event is too large"},
		{"too large for the queue", "[" + entry(strings.Repeat("y", 100), false) + "]", "", "opa " + entry(strings.Repeat("y", 100), false), "queue: event too large"},
		{"id too long", `[{"decision_id":"` + strings.Repeat("z", 129) + `"}]`, "", `opa {"decision_id":"` + strings.Repeat("z", 129) + `"}`, "event id"},
		{"array without an end", "[" + entry("a", false) + ",", "a", "opa ,", "ends in the middle"},
		{"entry without an end", "[" + entry("a", false) + `,{"b":"]`, "a", `opa ,{"b":"]`, "element 1, at byte 211: it has no end"},
		{"text after the array", "[" + entry("a", false) + "]" + entry("b", false), "a", "opa " + entry("b", false), "text after"},
		{"brackets that do not match", "[" + entry("a", false) + `,{"b":]},` + entry("c", false) + "]", "a",
			`opa {"b":] | opa },` + entry("c", false) + "]", "/decision_id is missing"},
		{"no array", "hello", "", "opa hello", "/decision_id is missing"},
		{"one object", entry("a", false), "a", "", ""},
		{"empty", "", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newOPARig(t, queue.MemoryOptions{MaxEvent: 260}, func(o *Options) { o.MaxEvent = 400 })
			r.commitAll()
			r.do(200, request("POST", "/logs", zip(t, c.body), opaHeaders...))
			if got := strings.Join(r.order, " "); got != c.committed {
				t.Errorf("committed %q, want %q", got, c.committed)
			}
			if got := r.deadTexts(); got != c.dead {
				t.Errorf("dead letters %q, want %q", got, c.dead)
			}
			if c.dead != "" && !strings.Contains(r.dead[0].Reason, c.reason) {
				t.Errorf("reason %q, want %q", r.dead[0].Reason, c.reason)
			}
			if got, want := r.Stats().DeadLettered, uint64(len(r.dead)); got != want {
				t.Errorf("counted %d dead letters, want %d", got, want)
			}
		})
	}
}

// What can't be read is refused before anything of it is kept.
func TestLogsUnreadable(t *testing.T) {
	r := newOPARig(t, queue.MemoryOptions{}, func(o *Options) { o.MaxBody, o.MaxEvents = 4096, 3 })
	whole := zip(t, "["+entry("a", false)+"]")
	r.do(400, request("POST", "/logs", whole[:len(whole)-6], opaHeaders...))
	r.do(413, request("POST", "/logs", zip(t, "["+strings.Repeat(" ", 4096)+"]"), opaHeaders...))
	r.upload(413, "/logs", "1", "2", "3", "4")
	if got := r.Stats(); got != (Stats{}) || len(r.dead) != 0 {
		t.Errorf("stats %+v, dead letters %q", got, r.deadTexts())
	}
}

// A full queue makes OPA keep its batch. The dead letters of it wait for the
// batch that is taken, so that they are stored once.
func TestLogsQueueFull(t *testing.T) {
	r := newOPARig(t, queue.MemoryOptions{MaxEvents: 2}, nil)
	batch := []string{entry("a", false), "7", entry("b", false), entry("c", false), entry("d", false)}
	for range 3 {
		w := r.upload(503, "/logs", batch...)
		if !strings.Contains(w.Body.String(), "queue: full") || w.Header().Get("Retry-After") != "1" {
			t.Fatalf("answer %s %v", w.Body, w.Header())
		}
	}
	if got := r.Stats(); len(r.dead) != 0 || got.Accepted != 2 || got.Retry != 2+5+5 {
		t.Errorf("dead letters %q, stats %+v", r.deadTexts(), got)
	}
	r.wait = true // there is room now, and soon more
	r.commitAll()
	r.upload(200, "/logs", batch...)
	if got := strings.Join(r.order, " "); got != "a b c d" || r.deadTexts() != "opa 7" {
		t.Errorf("committed %q, dead letters %q", got, r.deadTexts())
	}
}

func TestLogsDeadLettersFail(t *testing.T) {
	r := newOPARig(t, queue.MemoryOptions{}, nil)
	r.deadly = errors.New("disk on fire")
	if w := r.upload(503, "/logs", "7"); !strings.Contains(w.Body.String(), "disk on fire") {
		t.Errorf("answer %s", w.Body)
	}
	if got := r.Stats().DeadLettered; got != 0 {
		t.Errorf("counted %d dead letters", got)
	}
}

func TestLogsAckTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOPARig(t, queue.MemoryOptions{}, nil)
		time.AfterFunc(time.Second, func() {
			if n := r.buffered.Load(); n != 0 {
				t.Errorf("a request that waits holds %d bytes of its body", n)
			}
		})
		if w := r.upload(503, "/logs", entry("a", false)); !strings.Contains(w.Body.String(), "http.ack_timeout") {
			t.Errorf("answer %s", w.Body)
		}
	})
}
