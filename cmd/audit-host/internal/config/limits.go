package config

import (
	"math"

	"github.com/audit-host/audit-host/host"
)

// Limits bound what a plugin may use in one call, beside the sink's own keys
// for memory and time. Sizes are in bytes.
type Limits struct {
	Fuel          int  // units of the meter: at least one an instruction
	Stack         Size // native
	ModuleSize    Size // of the plugin's file
	TableElements int  // of all its tables
	CompileCost   int  // by the meter's estimate
	LogLines      int
	LogBytes      Size
	VerdictBytes  Size // of the reasons of a batch together
}

// Crashes bounds the crash bundles in <state_dir>/crashes.
type Crashes struct {
	Keep     int  // of each sink; 0 keeps none
	MaxBytes Size // of all, the plugins beside them included
}

// defaultLimits are those of package host.
func defaultLimits() Limits {
	return Limits{
		Fuel:          host.DefaultFuel,
		Stack:         host.DefaultStack,
		ModuleSize:    host.DefaultModuleSize,
		TableElements: host.DefaultTableElements,
		CompileCost:   host.DefaultCompileCost,
		LogLines:      host.DefaultLogLines,
		LogBytes:      host.DefaultLogBytes,
		VerdictBytes:  host.DefaultVerdictBytes,
	}
}

func defaultCrashes() Crashes {
	return Crashes{Keep: host.DefaultCrashesKept, MaxBytes: host.DefaultCrashesBytes}
}

// limits reads [sink.limits].
func (c *checker) limits(t *table, l *Limits) {
	// Less fuel than a Go guest needs to start is a slip of the pen.
	t.number("fuel", 1_000_000, math.MaxInt64>>1, &l.Fuel)
	t.size("stack", 64*KiB, GiB, &l.Stack)
	t.size("module_size", KiB, 256*MiB, &l.ModuleSize)
	t.number("table_elements", 1, 100_000_000, &l.TableElements)
	t.number("compile_cost", 1_000_000, math.MaxInt64>>1, &l.CompileCost)
	t.number("log_lines", 1, 1_000_000, &l.LogLines)
	t.size("log_bytes", KiB, GiB, &l.LogBytes)
	t.size("verdict_bytes", KiB, GiB, &l.VerdictBytes)
}

// crashes reads [crashes].
func (c *checker) crashes(t *table, into *Crashes) {
	t.number("keep", 0, 10_000, &into.Keep)
	t.size("max_bytes", MiB, TiB, &into.MaxBytes)
}

// limits writes [sink.limits].
func (w *renderer) limits(l Limits) {
	w.table("[sink.limits]")
	w.key("fuel", l.Fuel)
	w.key("stack", l.Stack)
	w.key("module_size", l.ModuleSize)
	w.key("table_elements", l.TableElements)
	w.key("compile_cost", l.CompileCost)
	w.key("log_lines", l.LogLines)
	w.key("log_bytes", l.LogBytes)
	w.key("verdict_bytes", l.VerdictBytes)
}

// crashes writes [crashes].
func (w *renderer) crashes(c Crashes) {
	w.table("[crashes]")
	w.key("keep", c.Keep)
	w.key("max_bytes", c.MaxBytes)
}
