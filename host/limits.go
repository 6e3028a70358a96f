package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/meter"
)

// Defaults of the limits in [Options].
const (
	DefaultModuleSize    = 64 << 20
	DefaultTableElements = 1_000_000
	DefaultCompileCost   = meter.DefaultCompileCost
	DefaultLogLines      = 100
	DefaultLogBytes      = 64 << 10
	DefaultVerdictBytes  = 1 << 20
)

// Limit is a bound of a plugin, by the name that metrics and logs use. There
// are no others than those of [Limits].
type Limit string

// The limits of a plugin.
const (
	LimitFuel     Limit = "fuel"
	LimitDeadline Limit = "deadline"
	LimitMemory   Limit = "memory"
	LimitStack    Limit = "stack"
	LimitModule   Limit = "module_size"
	LimitTable    Limit = "table_elements"
	LimitCompile  Limit = "compile_cost"
	LimitLogLines Limit = "log_lines"
	LimitLogBytes Limit = "log_bytes"
	LimitVerdict  Limit = "verdict_bytes"
	LimitSQLTime  Limit = "sql_time"
	LimitSQLSize  Limit = "sql_size"
)

// limitKeys says which key of audit.toml moves a limit.
var limitKeys = map[Limit]string{
	LimitFuel:     "fuel in [sink.limits]",
	LimitDeadline: "deadline of this sink",
	LimitMemory:   "memory_limit of this sink",
	LimitStack:    "stack in [sink.limits]",
	LimitModule:   "module_size in [sink.limits]",
	LimitTable:    "table_elements in [sink.limits]",
	LimitCompile:  "compile_cost in [sink.limits]",
	LimitLogLines: "log_lines in [sink.limits]",
	LimitLogBytes: "log_bytes in [sink.limits]",
	LimitVerdict:  "verdict_bytes in [sink.limits]",
	LimitSQLTime:  "time_limit in [sink.grant.sql]",
	LimitSQLSize:  "max_size in [sink.grant.sql]",
}

// Limits lists all limits in the order of their names.
func Limits() []Limit { return slices.Sorted(maps.Keys(limitKeys)) }

// Key names the key of audit.toml that moves the limit, and its place.
func (l Limit) Key() string { return limitKeys[l] }

// bound is the value of a limit as a person reads it.
func (s *Sink) bound(l Limit) any {
	switch l {
	case LimitFuel:
		return s.o.Fuel
	case LimitDeadline:
		return s.o.Deadline
	case LimitMemory:
		return int64(s.pages) * wasmPage
	case LimitStack:
		return s.o.Stack
	case LimitLogLines:
		return s.o.LogLines
	case LimitLogBytes:
		return s.o.LogBytes
	case LimitVerdict:
		return s.o.VerdictBytes
	case LimitSQLTime:
		return s.sql.grant.TimeLimit
	case LimitSQLSize:
		return s.sql.grant.MaxSize
	}
	return nil
}

// LimitError is a module that was not loaded because it is beyond a limit.
type LimitError struct {
	Limit Limit
	Err   error
}

// Error ends with the key to change.
func (e *LimitError) Error() string { return fmt.Sprintf("%v; raise %s", e.Err, e.Limit.Key()) }

// Unwrap returns what was found.
func (e *LimitError) Unwrap() error { return e.Err }

// meterLimits are the options of the meter that are those of a sink.
func meterLimits(o Options) meter.Options {
	return meter.Options{MaxModuleSize: o.ModuleSize, MaxTableElements: o.TableElements, MaxCompileCost: o.CompileCost}
}

// overLimit turns a refusal of the meter that a key of audit.toml governs into
// a *LimitError.
func overLimit(err error) error {
	var refused *meter.Error
	if errors.As(err, &refused) {
		switch refused.Limit {
		case "MaxModuleSize":
			return &LimitError{LimitModule, err}
		case "MaxTableElements":
			return &LimitError{LimitTable, err}
		case "MaxCompileCost":
			return &LimitError{LimitCompile, err}
		}
	}
	return err
}

// Counts is what a sink has counted since it was opened.
type Counts struct {
	// Outcomes of calls into the guest, its answers and those the host made.
	Outcomes map[abi.Outcome]uint64
	// Breaches of limits.
	Breaches map[Limit]uint64
}

// counts guards what metrics read while a call runs.
type counts struct {
	mu       sync.Mutex
	outcomes map[abi.Outcome]uint64
	breaches map[Limit]uint64
}

// Counts may be called at any time.
func (s *Sink) Counts() Counts {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	return Counts{maps.Clone(s.counts.outcomes), maps.Clone(s.counts.breaches)}
}

// ended counts the outcome of a call.
func (s *Sink) ended(o abi.Outcome) {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	if s.counts.outcomes == nil {
		s.counts.outcomes = map[abi.Outcome]uint64{}
	}
	s.counts.outcomes[o]++
}

// breach counts that the guest reached a limit, and tells the operator which
// key moves it. A call reaches each limit once: what it logs is bounded by the
// number of limits.
func (s *Sink) breach(ctx context.Context, l Limit) {
	if slices.Contains(s.call.breaches, l) {
		return
	}
	s.call.breaches = append(s.call.breaches, l)
	s.counts.mu.Lock()
	if s.counts.breaches == nil {
		s.counts.breaches = map[Limit]uint64{}
	}
	s.counts.breaches[l]++
	s.counts.mu.Unlock()
	if s.o.Log == nil {
		return // a sink of which only a part is there
	}
	s.o.Log.LogAttrs(ctx, slog.LevelWarn, "plugin reached a limit", slog.String("sink", s.o.Name), slog.String("plugin", s.manifest.Name),
		slog.String("limit", string(l)), slog.Any("value", s.bound(l)), slog.String("raise", l.Key()))
}
