package host

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
)

// Defaults of [Options].
const (
	DefaultMemory   = 64 << 20
	DefaultDeadline = 30 * time.Second
	// DefaultFuel is in units of the meter: at least one an instruction is
	// charged, but a tight loop in a Go guest was charged 50 units a nanosecond,
	// since the meter charges the longest way through its jump table. So much
	// fuel lasts such a loop 20 s; for the rest the deadline comes first.
	DefaultFuel  = 1 << 40
	DefaultStack = 8 << 20
)

const wasmPage = 64 << 10

// Options configures a sink. The zero value grants nothing.
type Options struct {
	// Name is the sink's name in logs and errors.
	Name string
	// Config is handed to the guest's audit_open as JSON; nil is {}.
	Config json.RawMessage
	// Memory is the most linear memory of the guest in bytes, rounded up to
	// 64 KiB.
	Memory int64
	// Deadline bounds one call into the guest, host functions included.
	Deadline time.Duration
	// Fuel bounds the instructions of one call, Stack the native stack it
	// may use in bytes. Compiling is bounded before it begins, by CompileCost
	// and the meter's limits on a module.
	Fuel, Stack int64
	// ModuleSize bounds the plugin's file in bytes, TableElements its tables
	// together.
	ModuleSize, TableElements int
	// CompileCost bounds what compiling the plugin takes, in units of about a
	// nanosecond by the meter's estimate.
	CompileCost int64
	// LogLines and LogBytes bound what one call may log: text beyond is
	// dropped. VerdictBytes bounds the reasons of one batch together.
	LogLines, LogBytes, VerdictBytes int
	// SQL grants the sql capability on one database.
	SQL *SQLGrant
	// Append grants the append capability on one file, HTTP the http capability
	// on the hosts of a policy, KV a small store of the sink's own. A secret of
	// the policy never reaches the guest, a log or an error.
	Append *appendfile.Options
	HTTP   *egress.Policy
	KV     *KVGrant
	// Now and Random grant the real clock and real randomness; without them
	// a guest sees a clock that only its own waiting moves, and the same
	// pseudo-random bytes in every instance.
	Now, Random bool
	// Cache keeps compiled code; nil compiles anew.
	Cache *Cache
	// Crashes keeps a bundle of each crash of the guest; nil keeps none. File
	// names where the plugin came from, for bundles.
	Crashes *Crashes
	File    string
	// Probe stands between the guest and its capabilities, for conformance
	// tests; nil is nobody.
	Probe Probe
	// growth is what instances may grow by in bytes, 0 as Memory says; see
	// Bench.Limit.
	growth int64
	// Log gets the guest's log lines and the host's own; nil drops them.
	Log *slog.Logger
	// Interpreter runs the guest without compiling it: slow, for tests and
	// for machines that forbid executable memory.
	Interpreter bool
}

func (o *Options) setDefaults() {
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	if o.Deadline <= 0 {
		o.Deadline = DefaultDeadline
	}
	if o.Fuel <= 0 {
		o.Fuel = DefaultFuel
	}
	if o.Stack <= 0 {
		o.Stack = DefaultStack
	}
	if o.CompileCost <= 0 {
		o.CompileCost = DefaultCompileCost
	}
	for _, l := range []struct {
		value  *int
		preset int
	}{
		{&o.ModuleSize, DefaultModuleSize}, {&o.TableElements, DefaultTableElements},
		{&o.LogLines, DefaultLogLines}, {&o.LogBytes, DefaultLogBytes}, {&o.VerdictBytes, DefaultVerdictBytes},
	} {
		if *l.value <= 0 {
			*l.value = l.preset
		}
	}
	if len(o.Config) == 0 {
		o.Config = json.RawMessage("{}")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// ConfigError is returned by [Open] when the guest refuses its configuration.
type ConfigError struct{ Sink, Detail string }

// Error names the sink and what it said.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("sink %s: the plugin refuses its configuration: %s; change config of this sink", e.Sink, e.Detail)
}

// maxPages is a page less than 4 GiB, whose size has 33 bits.
const maxPages = 1<<16 - 1

// pagesOf is a limit in bytes as one in pages of 64 KiB.
func pagesOf(bytes int64) uint32 {
	if bytes <= 0 {
		bytes = DefaultMemory
	}
	return uint32(min((bytes-1)/wasmPage+1, maxPages))
}
