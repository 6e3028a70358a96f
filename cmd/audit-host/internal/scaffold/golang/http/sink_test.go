//go:build !wasip1

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// batch is one with an event for each payload, as a guest sees it.
func batch(t *testing.T, payloads ...string) abi.View {
	t.Helper()
	b := abi.Batch{ID: 1, Attempt: 1}
	for i, p := range payloads {
		b.Events = append(b.Events, abi.Event{ID: fmt.Sprintf(`id-"%d"\`, i), EventType: "governance.refusal", Payload: []byte(p)})
	}
	frame := make([]byte, b.Size())
	b.Encode(frame)
	view, err := abi.Parse(frame)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

// deliver has a sink send a batch to a server that answers with an HTTP status,
// or to none if the status of the call says so.
func deliver(t *testing.T, b abi.View, code uint32, status abi.Status) (guest.Answer, guest.Request) {
	t.Helper()
	var got guest.Request
	t.Cleanup(guest.UseHost(guest.Host{HTTP: func(r guest.Request) (abi.HTTPAnswer, abi.Status, string) {
		got = r
		return abi.HTTPAnswer{Status: code, Body: []byte("what the server says")}, status, "why there is no answer"
	}}))
	s := &sink{}
	if a := s.Open([]byte(`{"url": "https://collector.test/in"}`)); a.Outcome != abi.OK {
		t.Fatalf("open: %+v", a)
	}
	return s.Deliver(b), got
}

func TestDeliver(t *testing.T) {
	a, got := deliver(t, batch(t, `{"n":0}`, `{}`), 200, abi.StatusDone)
	if a != guest.OK(2) {
		t.Errorf("answer %+v", a)
	}
	if got.Method != "POST" || got.URL != "https://collector.test/in" {
		t.Errorf("request %s %s", got.Method, got.URL)
	}
	const want = `{"id":"id-\"0\"\\","n":0}` + "\n" + `{"id":"id-\"1\"\\"}` + "\n"
	if string(got.Body) != want {
		t.Errorf("body %q, wanted %q", got.Body, want)
	}
	for line := range strings.Lines(string(got.Body)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		code   uint32
		status abi.Status
		want   abi.Outcome
		says   string
	}{
		{200, abi.StatusDone, abi.OK, ""},
		{204, abi.StatusDone, abi.OK, ""},
		{400, abi.StatusDone, abi.Reject, "HTTP 400 what the server says"},
		{413, abi.StatusDone, abi.Reject, "HTTP 413"},
		{302, abi.StatusDone, abi.Busy, "HTTP 302"},
		{401, abi.StatusDone, abi.Busy, "HTTP 401"},
		{429, abi.StatusDone, abi.Busy, "HTTP 429"},
		{503, abi.StatusDone, abi.Busy, "HTTP 503"},
		{0, abi.StatusTooLarge, abi.Reject, "too large: why there is no answer"},
		{0, abi.StatusUnavailable, abi.Busy, "why there is no answer"},
		{0, abi.StatusRefused, abi.Busy, "why there is no answer"},
		{0, abi.StatusTimeout, abi.Busy, "why there is no answer"},
	} {
		if a, _ := deliver(t, batch(t, `{"n":0}`), c.code, c.status); a.Outcome != c.want || !strings.Contains(a.Message, c.says) {
			t.Errorf("HTTP %d, %v: %+v, wanted %v", c.code, c.status, a, c.want)
		}
	}
}

func TestNothingToSend(t *testing.T) {
	if a, got := deliver(t, batch(t), 500, abi.StatusDone); a != guest.OK(0) || got.Method != "" {
		t.Errorf("answer %+v, request %+v", a, got)
	}
}

func TestBadConfig(t *testing.T) {
	for _, config := range []string{``, `[]`, `null`, `{`, `{}`, `{"url": 1}`, `{"url": "ftp://a"}`, `{"url": "https://a\nb"}`, `{"url": "https://a", "urls": []}`, `{"url": "https://a"} {}`} {
		if a := new(sink).Open([]byte(config)); a.Outcome != abi.BadConfig || a.Message == "" {
			t.Errorf("open %s: %+v", config, a)
		}
	}
}
