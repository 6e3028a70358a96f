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
	plugintest.Conform(t, "sink-file", conformance.Options{Cache: cache}, "server",
		"",
		`{"format": "payload"}`,
		`{"format": "cloudevents", "source": "urn:check"}`)
}
