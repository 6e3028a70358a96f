package event

import (
	"strings"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	g := Gap{Sources: []GapSource{
		{"http", 17, at.Add(time.Second), at.Add(time.Minute)},
		{"opa", 3, at, at.Add(time.Second)},
	}}
	o := Options{NewID: func() (string, error) { return "g1", nil }, Now: func() time.Time { return at.Add(time.Hour) }}
	e, err := g.Event(o)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"action":{"first":"2026-01-02T02:04:05.000000006+00:00","kind":"audit.gap","last":"2026-01-02T02:05:05.000000006+00:00","refused":20,` +
		`"sources":{"http":{"first":"2026-01-02T02:04:06.000000006+00:00","last":"2026-01-02T02:05:05.000000006+00:00","refused":17},` +
		`"opa":{"first":"2026-01-02T02:04:05.000000006+00:00","last":"2026-01-02T02:04:06.000000006+00:00","refused":3}}},` +
		`"agent_id":"audit-host","decision":{"decision":"warn","reason":"20 events were refused because the queue was full","rule_id":"queue_full"},` +
		`"timestamp":"2026-01-02T03:04:05.000000006+00:00"}`
	if string(e.Payload) != want {
		t.Errorf("payload\n%s\nwant\n%s", e.Payload, want)
	}
	if e.ID != "g1" || e.EventType != "audit.gap" || e.AgentID != "audit-host" {
		t.Errorf("%+v", e)
	}
	if err := Check(e, Options{}); err != nil {
		t.Error(err)
	}
	g.Recovered = true
	if e, err = g.Event(o); err != nil || !strings.Contains(string(e.Payload), `"recovered":true,"refused":20`) {
		t.Errorf("%s, %v", e.Payload, err)
	}
	if err := Check(e, Options{}); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]Gap{
		"no source":      {},
		"a source twice": {Sources: []GapSource{{"http", 1, at, at}, {"http", 1, at, at}}},
		"a bad name":     {Sources: []GapSource{{"\xff", 1, at, at}}},
		"no time":        {Sources: []GapSource{{"http", 1, time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), at}}},
	} {
		if e, err := bad.Event(o); err == nil {
			t.Errorf("%s: %s", name, e.Payload)
		}
	}
}
