package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
)

// gate is a made-up client. It sends an envelope with entries in a media type of
// its own, says in a header who it is, is told in its own words how many entries
// were not taken, and does not send those again.
var gate = event.Format{
	Name:   "gate",
	Source: "gate",
	Paths:  []string{"/gate/{site}/log"},
	Media: []event.Media{{
		Types: []string{"application/vnd.gate", "application/vnd.gate+json"},
		Split: func(r event.Request) event.Elements {
			var envelope struct{ Entries []json.RawMessage }
			err := json.Unmarshal(r.Body, &envelope)
			return event.Elements{Blank: len(r.Body) == 0, Each: func(f func(raw []byte, line int) bool) *event.Broken {
				if err != nil {
					return &event.Broken{Text: err.Error()}
				}
				for _, entry := range envelope.Entries {
					text := fmt.Sprintf(`{"gate":%q,"entry":%s}`, http.Header(r.Header).Get("Gate-Id"), entry)
					if !f([]byte(text), 0) {
						return nil
					}
				}
				return nil
			}}
		},
	}},
	Compile: func(event.Pointers) (event.Parse, error) { return parseGate, nil },
	Answer: func(r *event.Report) event.Reply {
		status := 200
		if r.Cause != nil {
			status, r.Error = 503, r.Cause.Error()
		}
		return event.Reply{Status: status, Media: r.Media, Body: func(w io.Writer) {
			fmt.Fprintf(w, "took %d, not taken %d, of kind %s", r.Accepted+r.Skipped, r.Rejected, r.Media)
			for _, e := range r.Events {
				fmt.Fprintf(w, "; %d: %s", e.Index, e.Error)
			}
		}}
	},
}

// parseGate reads {"gate": ..., "entry": {"key": ..., "open": ...}}.
func parseGate(raw []byte, o event.Options) (abi.Event, event.Decision, error) {
	var in struct {
		Gate  string
		Entry struct {
			Key  string
			Open *bool
		}
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return abi.Event{}, event.Decision{}, &event.Error{Offset: -1, Reason: err.Error()}
	}
	if in.Entry.Open == nil {
		return abi.Event{}, event.Decision{}, &event.Error{Path: "/entry/open", Offset: -1, Reason: "is missing"}
	}
	d := event.Decision{Kind: event.KindAllow}
	if !*in.Entry.Open {
		d = event.Decision{Kind: event.KindRefuse, RuleID: "gate", Reason: "the gate stays shut"}
	}
	e, err := event.New(in.Gate, event.Bash{Command: "open"}, d, o)
	if in.Entry.Key != "" {
		e.ID = in.Entry.Key
	}
	return e, d, err
}

// hook is a made-up client that repeats what it is refused, and takes any text in
// an answer for an order: it is always answered with an empty 204.
func hook(parse event.Parse) event.Format {
	return event.Format{
		Name: "hook", Source: "hook", Paths: []string{"/hook"}, Media: event.JSON, OnBad: event.KeepBad,
		Compile: func(event.Pointers) (event.Parse, error) { return parse, nil },
		Answer: func(r *event.Report) event.Reply {
			if r.Cause != nil {
				r.Error = r.Cause.Error()
				return event.Reply{Status: 503}
			}
			return event.Reply{Status: 204}
		},
	}
}

// A row in the table is all that a client format needs: the route, its media types,
// the answers, the label of the metrics, --format with its help, the dead letters and
// their replay come with it.
func TestFormatIsARow(t *testing.T) {
	readable := false // what hook sends
	table := event.Formats
	t.Cleanup(func() { event.Formats = table })
	event.Formats = append(slices.Clip(table), gate, hook(func(raw []byte, o event.Options) (abi.Event, event.Decision, error) {
		if !readable {
			return abi.Event{}, event.Decision{}, &event.Error{Offset: -1, Reason: "not known yet"}
		}
		return parseGate(raw, o)
	}))
	config := home(t, `#backend = "disk"`, `backend = "memory"`, "#max_events = 1000000", "max_events = 1000",
		`#busy_timeout = "1s"`, `busy_timeout = "10ms"`)
	d := serve(t, config)
	post := func(path, media, body string) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", d.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", media)
		r.Header.Set("Gate-Id", "gate 7")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, answer.Header, string(text)
	}
	const media = "application/vnd.gate+json"
	for _, c := range []struct {
		path, media, body string
		status            int
		text              string
	}{
		{"/gate/north/log", media, `{"entries":[{"key":"k1","open":false},{"open":true},{"key":"k2"}]}`, 200,
			"took 2, not taken 1, of kind application/vnd.gate+json; 2: at /entry/open: is missing"},
		{"/gate/north/log", "", `{"entries":[{"key":"k1","open":false}]}`, 200, "took 1, not taken 0, of kind application/vnd.gate"},
		{"/gate/north/log", media, `{"entries":`, 400, `{"error":"unexpected end of JSON input; nothing was accepted"}` + "\n"},
		{"/gate/north/log", media, "", 400, `{"error":"the body is empty"}` + "\n"},
		{"/gate/north/log", "application/json", "{}", 415,
			`{"error":"Content-Type \"application/json\" is not served: send application/vnd.gate, in UTF-8"}` + "\n"},
		{"/gate", media, "{}", 404, `{"error":"nothing is served here: see POST /v1/events, POST /logs, ` +
			`POST /gate/{site}/log, POST /hook, GET /-/healthy, /-/ready, /metrics"}` + "\n"},
		{"/hook", "application/json", `[{"gate":"gate 8","entry":{"key":"h1","open":false}}]`, 204, ""},
	} {
		status, header, text := post(c.path, c.media, c.body)
		if status != c.status || text != c.text || status == 204 && header.Get("Content-Type") != "" {
			t.Errorf("%s %s %s: %d %s; want %d %s", c.path, c.media, c.body, status, text, c.status, c.text)
		}
	}
	// A full queue, with the made-up label.
	release := lockLedger(t, config)
	many := `{"entries":[` + strings.Repeat(`{"open":false},`, 1200) + `{"open":false}]}`
	if status, header, text := post("/gate/south/log", media, many); status != 503 || header.Get("Retry-After") != "1" {
		t.Errorf("a full queue: %d %s", status, text)
	}
	if n := d.scrape(t)[`audit_host_queue_refused_by_source_total{source="gate"}`]; n < 1 {
		t.Errorf("%v refusals of gate", n)
	}
	release()
	d.stop(t, 0)

	// What could not be read is kept and is read again.
	if out := must(t, 0, "", "dlq", "list", "-c", config, "--sink", "ingest/hook").stdout; !strings.Contains(out, "not known yet") {
		t.Errorf("dead letters: %s", out)
	}
	readable = true
	if r := must(t, 0, "", "dlq", "replay", "-c", config, "--sink", "ingest/hook"); !strings.Contains(r.stderr, "1") {
		t.Errorf("replay: %s", r.stderr)
	}
	// The command.
	file := `{"gate":"gate 9","entry":{"key":"f1","open":false}}` + "\n"
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{0, []string{"-c", config, "--format", "gate", "-"}, "read 1, accepted 1, rejected 0, skipped 0, appended 1"},
		{2, []string{"-c", config, "--format", "gat", "-"}, `must be native or opa or gate or hook, not "gat": did you mean "gate"?`},
		{0, []string{"--help"}, "[--format native|opa|gate|hook]"},
		{0, []string{"--help"}, "--format native|opa|gate|hook "},
	} {
		if r := must(t, c.code, file, append([]string{"ingest"}, c.args...)...); !strings.Contains(r.stdout+r.stderr, c.want) {
			t.Errorf("ingest %v lacks %q: %s%s", c.args, c.want, r.stdout, r.stderr)
		}
	}
	rows := must(t, 0, "", "tail", "-c", config, "--json", "-n", "100000").stdout
	for id, agent := range map[string]string{"k1": "gate 7", "h1": "gate 8", "f1": "gate 9"} {
		if n := strings.Count(rows, fmt.Sprintf(`"id":%q`, id)); n != 1 || !strings.Contains(rows, fmt.Sprintf("%q", agent)) {
			t.Errorf("%s is there %d times", id, n)
		}
	}
	verified(t, config)
}
