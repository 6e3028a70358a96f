//go:build !wasip1

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
	"github.com/audit-host/audit-host/internal/plugintest"
)

func TestBadConfigurations(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                                  "unexpected EOF",
		`{}`:                                 "url is missing",
		`{"url":"collector.example"}`:        "begins with https://",
		`{"url":"https://a","format":"x"}`:   "wanted one of ndjson, splunk, elasticsearch, loki",
		`{"url":"https://a","shape":"x"}`:    "wanted one of event, payload, cloudevents",
		`{"url":"https://a","method":"GET"}`: "wanted one of POST, PUT",
		`{"url":"https://a","format":"elasticsearch"}`:                   "index is missing",
		`{"url":"https://a","source":""}`:                                "source is empty",
		`{"url":"https://a","index":"x"}`:                                "index is for elasticsearch and splunk only",
		`{"url":"https://a","sourcetype":"x"}`:                           "sourcetype is for splunk only",
		`{"url":"https://a","labels":{}}`:                                "labels are for loki only",
		`{"url":"https://a","headers":{"a b":"x"}}`:                      `header "a b"`,
		`{"url":"https://a","headers":{"a":"x\ny"}}`:                     `header "a"`,
		`{"url":"https://a","headers":{"content-type":"x"}}`:             "is set by the plugin",
		`{"url":"https://a","token":"x"}`:                                `unknown field "token"`,
		`{"url":"https://a","format":"splunk","labels":{"a":"b"}}`:       "labels are for loki only",
		`{"url":"https://a","format":"loki","index":"x"}`:                "index is for",
		`{"url":"https://a","headers":{"Idempotency-Key":"my own key"}}`: "is set by the plugin",
	} {
		if a := new(sink).Open([]byte(text)); a.Outcome != abi.BadConfig || !strings.Contains(a.Message, want) {
			t.Errorf("%s: %v %q, wanted %q", text, a.Outcome, a.Message, want)
		}
	}
}

func batch(types ...string) *abi.Batch {
	b := &abi.Batch{ID: 1, Attempt: 1, Queue: [16]byte{1}}
	for i, typ := range types {
		b.Events = append(b.Events, abi.Event{ID: fmt.Sprint("id-", i), AgentID: "agent", EventType: typ, Seq: uint64(i + 1),
			Timestamp: fmt.Sprintf("2026-01-01T00:00:0%d.5+00:00", i), Payload: fmt.Appendf(nil, `{"n":%d}`, i), AttestLevel: abi.AttestUnsigned})
	}
	return b
}

func TestBodies(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{`"shape":"payload"`, "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n"},
		{`"format":"splunk","shape":"payload","index":"main","sourcetype":"_json","source":"h"`,
			`{"source":"h","time":1767225600.500,"sourcetype":"_json","index":"main","event":{"n":0}}` +
				`{"source":"h","time":1767225601.500,"sourcetype":"_json","index":"main","event":{"n":1}}` +
				`{"source":"h","time":1767225602.500,"sourcetype":"_json","index":"main","event":{"n":2}}`},
		{`"format":"elasticsearch","shape":"payload","index":"audit"`,
			`{"create":{"_index":"audit","_id":"id-0"}}` + "\n{\"n\":0}\n" +
				`{"create":{"_index":"audit","_id":"id-1"}}` + "\n{\"n\":1}\n" +
				`{"create":{"_index":"audit","_id":"id-2"}}` + "\n{\"n\":2}\n"},
		{`"format":"loki","shape":"payload","labels":{"env":"te\"st"}`,
			`{"streams":[{"stream":{"env":"te\"st","event_type":"a","job":"audit-host"},"values":[["1767225600500000000","{\"n\":0}"],["1767225602500000000","{\"n\":2}"]]},` +
				`{"stream":{"env":"te\"st","event_type":"b","job":"audit-host"},"values":[["1767225601500000000","{\"n\":1}"]]}]}`},
	} {
		s := &sink{}
		if a := s.Open([]byte(`{"url":"https://a/",` + c.config + `}`)); a.Outcome != abi.OK {
			t.Fatalf("%s: %s", c.config, a.Message)
		}
		for range 2 { // the second in the same memory
			if got := string(s.encode(plugintest.View(t, batch("a", "b", "a")))); got != c.want {
				t.Errorf("%s:\n%s\nwant\n%s", c.config, got, c.want)
			}
		}
	}
	// With an id each event is one line of JSON.
	s := &sink{}
	s.Open([]byte(`{"url":"https://a/"}`))
	for i, line := range strings.Split(strings.TrimSuffix(string(s.encode(plugintest.View(t, batch("a", "b")))), "\n"), "\n") {
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.ID != fmt.Sprint("id-", i) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	const now = "date: Thu, 01 Jan 2026 00:00:00 GMT\n"
	for header, want := range map[string]time.Duration{
		"":                        7 * time.Second,
		"retry-after: 3\n":        3 * time.Second,
		"retry-after: 0\n":        0,
		"retry-after: soon\n":     7 * time.Second,
		"retry-after: -1\n":       7 * time.Second,
		"retry-after: 99999999\n": time.Hour,
		now + "retry-after: Thu, 01 Jan 2026 00:00:42 GMT\n":    42 * time.Second,
		now + "retry-after: Thursday, 01-Jan-26 00:01:00 GMT\n": time.Minute,
		now + "retry-after: Thu Jan  1 00:00:09 2026\n":         9 * time.Second,
		now + "retry-after: Wed, 31 Dec 2025 00:00:00 GMT\n":    0,
		now + "retry-after: Fri, 01 Jan 2027 00:00:00 GMT\n":    time.Hour,
		"retry-after: Thu, 01 Jan 2026 00:00:42 GMT\n":          7 * time.Second,
		"date: ?\nretry-after: Thu, 01 Jan 2026 00:00:42 GMT\n": 7 * time.Second,
		"x-retry-after: 3\n": 7 * time.Second,
	} {
		if got := retryAfter(&abi.HTTPAnswer{Header: []byte(header)}, 7*time.Second); got != want {
			t.Errorf("%q: %v, wanted %v", header, got, want)
		}
	}
}

// TestAnswers: what the collector says and what the host is told, with the
// verdicts as letters: o stored, r RETRY, x REJECT.
func TestAnswers(t *testing.T) {
	const es, hec = `"format":"elasticsearch","index":"i"`, `"format":"splunk"`
	item := func(status int) string {
		return fmt.Sprintf(`{"create":{"status":%d,"error":{"type":"t","reason":"r"}}}`, status)
	}
	items := func(errors string, statuses ...int) string {
		var list []string
		for _, s := range statuses {
			list = append(list, item(s))
		}
		return `{"errors":` + errors + `,"items":[` + strings.Join(list, ",") + `]}`
	}
	for _, c := range []struct {
		name, config string
		status       abi.Status
		http         uint32
		flags        uint32
		body         string
		want         abi.Outcome
		arg          uint32
		verdicts     string
	}{
		{"stored", ``, 0, 200, 0, "", abi.OK, 3, "ooo"},
		{"accepted", ``, 0, 202, 0, "", abi.OK, 3, "ooo"},
		{"no content", ``, 0, 204, abi.HTTPCut, "", abi.OK, 3, "ooo"},
		{"refused by the grant", ``, abi.StatusRefused, 0, 0, "", abi.Busy, 10000, "ooo"},
		{"malformed", ``, abi.StatusInvalid, 0, 0, "", abi.Busy, 10000, "ooo"},
		{"too large to send", ``, abi.StatusTooLarge, 0, 0, "", abi.Reject, 0, "ooo"},
		{"timeout", ``, abi.StatusTimeout, 0, 0, "", abi.Busy, 1000, "ooo"},
		{"no connection", ``, abi.StatusUnavailable, 0, 0, "", abi.Busy, 1000, "ooo"},
		{"unknown status", ``, 77, 0, 0, "", abi.Busy, 1000, "ooo"},
		{"400", ``, 0, 400, 0, "", abi.Reject, 0, "ooo"},
		{"413", ``, 0, 413, 0, "", abi.Reject, 0, "ooo"},
		{"422", ``, 0, 422, 0, "", abi.Reject, 0, "ooo"},
		{"401", ``, 0, 401, 0, "", abi.Busy, 10000, "ooo"},
		{"403", ``, 0, 403, 0, "", abi.Busy, 10000, "ooo"},
		{"404", ``, 0, 404, 0, "", abi.Busy, 10000, "ooo"},
		{"408", ``, 0, 408, 0, "", abi.Busy, 1000, "ooo"},
		{"425", ``, 0, 425, 0, "", abi.Busy, 1000, "ooo"},
		{"429", ``, 0, 429, 0, "", abi.Busy, 1000, "ooo"},
		{"500", ``, 0, 500, 0, "", abi.Busy, 1000, "ooo"},
		{"503", ``, 0, 503, 0, "", abi.Busy, 1000, "ooo"},
		{"307 that leads nowhere", ``, 0, 307, 0, "", abi.Busy, 10000, "ooo"},

		{"hec: one is wrong", hec, 0, 400, 0, `{"text":"Invalid data format","code":6,"invalid-event-number":1}`, abi.Partial, 0, "rxr"},
		{"hec: beyond the batch", hec, 0, 400, 0, `{"invalid-event-number":3}`, abi.Reject, 0, "ooo"},
		{"hec: negative", hec, 0, 400, 0, `{"invalid-event-number":-1}`, abi.Reject, 0, "ooo"},
		{"hec: all wrong", hec, 0, 400, 0, `{"text":"No data","code":5}`, abi.Reject, 0, "ooo"},
		{"hec: bad token", hec, 0, 403, 0, `{"text":"Invalid token","code":4}`, abi.Busy, 10000, "ooo"},
		{"hec: busy", hec, 0, 503, 0, `{"text":"Server is busy","code":9}`, abi.Busy, 1000, "ooo"},

		{"bulk: all", es, 0, 200, 0, `{"errors":false,"items":[]}`, abi.OK, 3, "ooo"},
		{"bulk: some", es, 0, 200, 0, items("true", 201, 400, 429), abi.Partial, 1, "oxr"},
		{"bulk: there already", es, 0, 200, 0, items("true", 409, 201, 409), abi.OK, 3, "ooo"},
		{"bulk: there, and one refused", es, 0, 200, 0, items("true", 409, 400, 201), abi.Partial, 2, "oxo"},
		{"bulk: all too many", es, 0, 200, 0, items("true", 429, 503, 429), abi.Busy, 1000, "ooo"},
		{"bulk: forbidden is not for good", es, 0, 200, 0, items("true", 403, 404, 201), abi.Partial, 1, "rro"},
		{"bulk: no status", es, 0, 200, 0, items("true", 0, 201, 201), abi.Partial, 2, "roo"},
		{"bulk: miscounted", es, 0, 200, 0, items("true", 201, 400), abi.Busy, 10000, "ooo"},
		{"bulk: another service", es, 0, 200, 0, `<html>`, abi.Busy, 10000, "ooo"},
		{"bulk: another JSON", es, 0, 200, 0, `{"status":"ok"}`, abi.Busy, 10000, "ooo"},
		{"bulk: cut", es, 0, 200, abi.HTTPCut, `{"errors":fal`, abi.Busy, 1000, "ooo"},
		{"bulk: withheld", es, 0, 200, abi.HTTPWithheld, ``, abi.Busy, 10000, "ooo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdicts := []byte("ooo")
			t.Cleanup(guest.UseHost(guest.Host{
				HTTP: func(guest.Request) (abi.HTTPAnswer, abi.Status, string) {
					return abi.HTTPAnswer{Status: c.http, Flags: c.flags, Body: []byte(c.body)}, c.status, "why"
				},
				Verdict: func(i uint32, code abi.Outcome, _ string) {
					verdicts[i] = map[abi.Outcome]byte{abi.Retry: 'r', abi.Reject: 'x'}[code]
				},
			}))
			config := `{"url":"https://a/"`
			if c.config != "" {
				config += "," + c.config
			}
			s := &sink{}
			if a := s.Open([]byte(config + "}")); a.Outcome != abi.OK {
				t.Fatal(a.Message)
			}
			a := s.Deliver(plugintest.View(t, batch("a", "a", "a")))
			if a.Outcome != c.want || a.Arg != c.arg || string(verdicts) != c.verdicts {
				t.Errorf("%v(%d) %q with %s, wanted %v(%d) with %s", a.Outcome, a.Arg, a.Message, verdicts, c.want, c.arg, c.verdicts)
			}
			if a.Outcome != abi.OK && a.Outcome != abi.Partial && a.Message == "" {
				t.Error("no message")
			}
		})
	}
}

// TestRequestIsTheSameEachTime: a repetition is known by its key.
func TestRequestIsTheSameEachTime(t *testing.T) {
	var keys []string
	var last guest.Request
	t.Cleanup(guest.UseHost(guest.Host{HTTP: func(r guest.Request) (abi.HTTPAnswer, abi.Status, string) {
		for _, f := range r.Header {
			if f[0] == "Idempotency-Key" {
				keys = append(keys, f[1])
			}
		}
		last = r
		return abi.HTTPAnswer{Status: 200, Body: []byte(`{"errors":false}`)}, abi.StatusDone, ""
	}}))
	s := &sink{}
	s.Open([]byte(`{"url":"https://a/_bulk","format":"elasticsearch","index":"i","headers":{"Z":"1","Authorization":"ApiKey {{secret key}}"}}`))
	for _, types := range [][]string{{"a", "b"}, {"a", "b"}, {"a"}} {
		s.Deliver(plugintest.View(t, batch(types...)))
	}
	if len(keys) != 3 || keys[0] != keys[1] || keys[0] == keys[2] || len(keys[0]) != 64 {
		t.Errorf("keys %q", keys)
	}
	want := "[[Authorization ApiKey {{secret key}}] [Z 1] [Content-Type application/x-ndjson] [Idempotency-Key " + keys[2] + "]]"
	if got := fmt.Sprint(last.Header); got != want || last.Method != "POST" || !strings.HasPrefix(last.URL, "https://a/_bulk?filter_path=errors") {
		t.Errorf("%s %s %s", last.Method, last.URL, got)
	}
}
