package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoPluginTextWithoutToken: a plugin panics with the event that it was given.
// Whoever may not read events can't read it either: nothing that is answered over
// HTTP without the token holds it, before the sink is parked and then. With the
// token, and over the control socket, it is told.
func TestNoPluginTextWithoutToken(t *testing.T) {
	const mark, token = "mark-of-the-event", "a-token-of-16-characters"
	for _, with := range []bool{false, true} {
		config := home(t)
		if with {
			config = home(t, `#token_file = ""`, `token_file = "token"`)
			if err := os.WriteFile(filepath.Join(filepath.Dir(config), "token"), []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		appendTo(t, config, `
[[sink]]
name = "loud"
plugin = '`+zooPlugin(t, "panic-with-event")+`'
max_restarts = 1
batch_events = 1
[[sink]]
name = "waits"
plugin = "sink-mock"
config = { rules = [{ do = "busy", text = "mark-of-the-event", pause_ms = 20 }] }
`)
		d := serve(t, config)
		auth := []string{"Authorization", "Bearer " + token}
		if !with {
			auth = nil
		}
		answers := string(d.request(t, "POST", "/v1/events?ack=durable", strings.ReplaceAll(refusal("e1")+refusal("e2"), "R001", mark), 200, auth...))
		look := func() {
			for _, path := range []string{"/-/ready", "/-/healthy", "/metrics", "/", "/v1/events", "/logs"} {
				r, err := http.Get(d.url + path)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				r.Body.Close()
				answers += path + ": " + string(text) + "\n"
			}
		}
		look()
		until(t, "the sink is parked", func() bool {
			look()
			return strings.Contains(answers, "sink loud is parked") && strings.Contains(answers, "sink waits is waiting")
		})
		if strings.Contains(answers, mark) {
			t.Errorf("token %v: told to anybody: %s", with, answers)
		}
		for _, want := range []string{"sink loud is parked, its events are kept", "TRAP", "sink waits is waiting", "BUSY", "audit-host sink list"} {
			if !strings.Contains(answers, want) {
				t.Errorf("ready does not say %q: %s", want, answers)
			}
		}
		if got := must(t, 0, "", "sink", "list", "-c", config).stdout; strings.Count(got, mark) < 2 {
			t.Errorf("sink list does not tell: %s", got)
		}
		if !with {
			continue
		}
		if got := string(d.request(t, "GET", "/-/ready", "", 503, auth...)); strings.Count(got, mark) < 2 {
			t.Errorf("not told with the token: %s", got)
		}
	}
}
