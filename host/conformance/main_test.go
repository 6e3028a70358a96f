package conformance_test

import (
	"os"
	"testing"

	"github.com/audit-host/audit-host/host/conformance"
	"github.com/audit-host/audit-host/internal/plugintest"
)

func TestMain(m *testing.M) { os.Exit(plugintest.Main(m, conformance.TestCache)) }
