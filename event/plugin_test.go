package event

import (
	"strings"
	"testing"
	"time"
)

func TestPlugin(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := Options{NewID: func() (string, error) { return "p1", nil }, Now: func() time.Time { return at }}
	e, err := Plugin{What: PluginTrapped, Sink: "ledger", Name: "sink-sqlite", Version: "1", Digest: "abc", Outcome: "TRAP",
		Detail: "<a>\x01 and \"more\"", Events: 3, Suppressed: 2}.Event(o)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"action":{"detail":"<a>\u0001 and \"more\"","events":3,"kind":"audit.plugin","outcome":"TRAP","plugin":"sink-sqlite","sha256":"abc",` +
		`"sink":"ledger","suppressed":2,"version":"1","what":"trapped"},"agent_id":"audit-host",` +
		`"decision":{"decision":"warn","reason":"the plugin of sink ledger crashed: TRAP","rule_id":"plugin_trapped"},` +
		`"timestamp":"2026-01-02T03:04:05+00:00"}`
	if string(e.Payload) != want || e.ID != "p1" || e.EventType != "audit.plugin.trapped" || !IsPlugin(&e) {
		t.Errorf("%+v\n%s\nwant\n%s", e, e.Payload, want)
	}
	for _, what := range []string{PluginLoaded, PluginTrapped, PluginParked, PluginResumed, PluginDeadLetter, PluginRolledBack} {
		e, err := Plugin{What: what, Sink: "a", Digest: "b", Detail: strings.Repeat("ä", 4000)}.Event(Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(e, Options{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if len(e.Payload) > 1024+maxPluginDetail {
			t.Errorf("%s: %d bytes", what, len(e.Payload))
		}
	}
	if _, err := (Plugin{What: "exploded"}).Event(Options{}); err == nil {
		t.Error("an unknown word was taken")
	}
	if refusal, _, err := FromRefusal("a", Bash{Command: "x"}, Decision{Kind: KindRefuse, RuleID: "r", Reason: "x"}); err != nil || IsPlugin(&refusal) {
		t.Errorf("%+v, %v", refusal, err)
	}
}
