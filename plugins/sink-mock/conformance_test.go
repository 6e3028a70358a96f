//go:build !wasip1

package main

import (
	"testing"

	"github.com/audit-host/audit-host/host/conformance"
	"github.com/audit-host/audit-host/internal/plugintest"
)

// TestConformance: the plugin holds all rules of the ABI.
func TestConformance(t *testing.T) {
	plugintest.Conform(t, "sink-mock", conformance.Options{Cache: cache}, "kept order killed errors server", "")
}
