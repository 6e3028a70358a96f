//go:build !wasip1

package main

import (
	"strings"
	"testing"

	"github.com/audit-host/audit-host/host/conformance"
	"github.com/audit-host/audit-host/plugins/bundled"
)

// TestConformance: the plugin holds all rules of the ABI, with each of its
// configurations. Cases that do not apply are named, so that none is left out
// unnoticed.
func TestConformance(t *testing.T) {
	wasm, err := bundled.Read("sink-http")
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{
		"",
		`{"url": "https://collector.example/in?x=1", "method": "PUT", "shape": "payload", "headers": {"Authorization": "Bearer {{secret token}}"}}`,
		`{"url": "https://splunk.example:8088/services/collector/event", "format": "splunk", "sourcetype": "audit"}`,
		`{"url": "https://elastic.example:9200/_bulk", "format": "elasticsearch", "index": "audit"}`,
		`{"url": "http://loki.example:3100/loki/api/v1/push", "format": "loki"}`,
	} {
		o := conformance.Options{Cache: cache, Batches: 500, Answer: []byte(`{"errors": false, "items": []}`)}
		if config != "" {
			o.Config = []byte(config)
		}
		r, err := conformance.Check(t.Context(), wasm, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Err(); err != nil {
			t.Errorf("%s: %v", config, err)
		}
		var not []string
		for _, r := range r.Results {
			if r.Status == conformance.Inapplicable {
				not = append(not, r.Case)
			}
		}
		if got := strings.Join(not, " "); got != "" {
			t.Errorf("%s: these cases do not apply: %s", config, got)
		}
	}
}
