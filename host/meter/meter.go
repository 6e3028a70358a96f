// Package meter makes WebAssembly guests stoppable. It rewrites a module at
// load: in goes a binary, out comes one that pays with fuel for every
// instruction and with a budget for its native stack, ends when either is spent
// or when the host says stop, and visits the host often enough that Go's garbage
// collector can run beside it. All it needs of the runtime are exported globals.
//
// # What is guaranteed
//
//   - No path through a guest executes more instructions than it is charged
//     for, in advance: at each function's entry, at the head of each loop, and at
//     labels in between. Every opcode but end and else is one unit, and so is an
//     entry. What a path is charged beyond that, for the branch it did not take,
//     is bounded for each charge (see plan).
//   - memory.fill, memory.copy and memory.init cost one unit for eight bytes,
//     memory.grow the same for what it added, table operations one unit for an
//     element; all but memory.grow pay before they run. A long fill or copy is
//     done in chunks of 1 MiB, charged one by one.
//   - Every cycle looks whether the slice of 2^18 units is spent: loop heads do,
//     and entries of functions that call or loop. Then the guest leaves compiled
//     code, yields to Go's scheduler, looks whether it shall stop, and traps if
//     the fuel is below zero. Between two looks lies no more than a function's
//     length, so a call can return with a little less than nothing left.
//   - The frames of all active functions, estimated from locals, operands and
//     assignments, never exceed the stack budget (those of up to 1 KiB of
//     functions that call nothing are free: there is one at most).
//   - The host can tell afterwards why a guest ended: Gauge.Cause.
//   - No index that the module can use moves. Types, functions, a table, globals
//     and exports are appended, never an import. Data segments close to each other
//     are joined, where nothing can name them and a fresh memory reads the same.
//     Untouched sections are copied byte for byte.
//   - A guest cannot name what is appended: a module that refers to anything
//     beyond its own index spaces is refused, and so is one that exports a name
//     of ours.
//   - What compiling the result takes was estimated, and is bounded (cost.go):
//     a compiler is superlinear, and a small module could keep it busy for hours.
//   - Names in a stack trace are short.
//   - Every count in the module has been checked against its size, so the runtime
//     that reads the result allocates no more than in proportion. wazero v1.12.0
//     alone would allocate by a made-up count of function names, which ends the
//     process.
//
// # What is not
//
// The result is not validated: types are the runtime's business, and an invalid
// module stays invalid. Time in host functions costs no fuel. One memory.init,
// table operation or memory.grow runs to its end; the limits on module, table
// and memory bound it. The native frame is an estimate: a guest made to defeat
// it reaches the runtime's own ceiling (wazero: a stack overflow error at 50 to
// 100 MB), which ends it too, without a cause of ours.
//
// WebAssembly 2.0 with fixed-width SIMD is understood, as wazero accepts it
// with api.CoreFeaturesV2. Later proposals are refused by name.
package meter

import "fmt"

// Reserved is the prefix of exports that belong to the host. A guest that
// exports such a name is refused.
const Reserved = "audit:"

// Options bounds what is accepted. The zero value means the defaults.
type Options struct {
	// Fuel and Stack are the values that a fresh instance starts with, in units
	// and bytes: what a start function may spend, as it runs before the host can
	// reach the globals. 0 means 2^26 units, some tens of milliseconds, and
	// 1 MiB.
	Fuel, Stack int64

	// MaxModuleSize bounds the module in bytes, 64 MiB by default.
	MaxModuleSize int
	// MaxFunctions bounds the functions the module defines, 200,000 by default.
	MaxFunctions int
	// MaxFunctionSize bounds one body in bytes, 2 MiB by default.
	MaxFunctionSize int
	// MaxLocals bounds parameters and locals of a function, 10,000 by default.
	MaxLocals int
	// MaxTableElements bounds all tables the module defines together,
	// 1,000,000 by default, and MaxTables their number, 100. A larger sum of
	// minimums is refused; what is left is shared out evenly, and a larger or
	// missing maximum is lowered to a table's share.
	MaxTableElements, MaxTables int
	// MaxBranches bounds the control instructions of a function, 20,000 by
	// default: the largest function of SQLite has 4,500, of Go's net/http
	// 2,600.
	MaxBranches int
	// MaxCompileCost and MaxCompileMemory bound what compiling the whole module
	// takes, by an estimate (cost.go): units of about a nanosecond of a busy
	// processor, DefaultCompileCost by default, and bytes,
	// DefaultCompileMemory by default.
	MaxCompileCost, MaxCompileMemory int64
}

// Defaults of MaxCompileCost and MaxCompileMemory. The worst module that was
// found for them compiles within five seconds of an idle processor and 500 MiB;
// a Go guest with encoding/json and an HTTP client costs half of it.
const (
	DefaultCompileCost   = 8_000_000_000
	DefaultCompileMemory = 400 << 20
)

func (o Options) withDefaults() (Options, error) {
	for _, f := range []struct {
		name string
		v    *int
		def  int
	}{
		{"MaxModuleSize", &o.MaxModuleSize, 64 << 20},
		{"MaxFunctions", &o.MaxFunctions, 200_000},
		{"MaxFunctionSize", &o.MaxFunctionSize, 2 << 20},
		{"MaxLocals", &o.MaxLocals, 10_000},
		{"MaxTableElements", &o.MaxTableElements, 1_000_000},
		{"MaxTables", &o.MaxTables, 100},
		{"MaxBranches", &o.MaxBranches, 20_000},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < 0 || *f.v > 1<<28 {
			return o, fmt.Errorf("rewrite module: option %s is %d, must be between 0 and %d", f.name, *f.v, 1<<28)
		}
	}
	if o.Fuel == 0 {
		o.Fuel = 1 << 26
	}
	if o.Stack == 0 {
		o.Stack = 1 << 20
	}
	if o.MaxCompileCost == 0 {
		o.MaxCompileCost = DefaultCompileCost
	}
	if o.MaxCompileMemory == 0 {
		o.MaxCompileMemory = DefaultCompileMemory
	}
	if o.Fuel < 0 || o.Stack < 0 || o.Stack > MaxStack {
		return o, fmt.Errorf("rewrite module: options Fuel %d and Stack %d must not be negative, and Stack at most %d", o.Fuel, o.Stack, MaxStack)
	}
	return o, nil
}

// Info says what Rewrite did.
type Info struct {
	// Functions is how many bodies were rewritten, Charges how many charges
	// were written into them.
	Functions, Charges int
	// CompileCost and CompileMemory are the estimates of what compiling takes.
	CompileCost, CompileMemory int64
	// MaxFrame is the largest frame estimate in bytes.
	MaxFrame int64
	// Dropped names the custom sections that were left out: those that tell
	// code offsets and a malformed name section.
	Dropped []string
}

// Rewrite meters a module. The binary is not changed. An error about the
// module is an *Error, and the guest is to be refused.
func Rewrite(wasm []byte, o Options) ([]byte, Info, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, Info{}, err
	}
	m, fail := parseModule(wasm, &o)
	if fail != nil {
		return nil, Info{}, fail
	}
	a := m.added()
	e := newEmitter(m, &a)
	code, fail := e.code(make([]byte, 0, len(wasm)+len(wasm)/2))
	if fail != nil {
		return nil, Info{}, fail
	}
	out, dropped := m.rebuild(&a, e, code)
	return out, Info{Functions: len(m.bodies), Charges: e.points, MaxFrame: e.most, Dropped: dropped,
		CompileCost: m.cost, CompileMemory: m.held + m.largest.n}, nil
}
