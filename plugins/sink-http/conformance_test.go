//go:build !wasip1

package main

import (
	"testing"

	"github.com/audit-host/audit-host/host/conformance"
	"github.com/audit-host/audit-host/internal/plugintest"
)

// TestConformance: the plugin holds all rules of the ABI, with each of its
// configurations.
func TestConformance(t *testing.T) {
	plugintest.Conform(t, "sink-http", conformance.Options{Cache: cache, Answer: []byte(`{"errors": false, "items": []}`)}, "",
		"",
		`{"url": "https://collector.example/in?x=1", "method": "PUT", "shape": "payload", "headers": {"Authorization": "Bearer {{secret token}}"}}`,
		`{"url": "https://splunk.example:8088/services/collector/event", "format": "splunk", "sourcetype": "audit"}`,
		`{"url": "https://elastic.example:9200/_bulk", "format": "elasticsearch", "index": "audit"}`,
		`{"url": "http://loki.example:3100/loki/api/v1/push", "format": "loki"}`)
}
