package meter

import "fmt"

// globalNames are the exports of the globals, in the order of added.
var globalNames = [...]string{
	Reserved + "fuel",  // units beyond the current slice
	Reserved + "meter", // what is left of the slice and of the stack, see charge.go
	Reserved + "stop",  // not 0: end at the next visit
	Reserved + "cause", // why the guest ended
}

// Cause is why a metered guest trapped.
type Cause int

const (
	// CauseNone: the metering did not end the guest. A trap is its own.
	CauseNone Cause = 0
	// CauseFuel: the fuel is spent.
	CauseFuel Cause = causeFuel
	// CauseStack: the stack budget is spent.
	CauseStack Cause = causeStack
	// CauseStop: Stop was called.
	CauseStop Cause = causeStop
)

func (c Cause) String() string {
	switch c {
	case CauseNone:
		return "none"
	case CauseFuel:
		return "fuel"
	case CauseStack:
		return "stack"
	case CauseStop:
		return "stop"
	}
	return fmt.Sprintf("cause %d", int(c))
}

// MaxStack is the largest stack budget in bytes, far beyond what a runtime
// allows.
const MaxStack = 1 << 30

// Global is an exported mutable global of an instance; wazero's
// api.MutableGlobal is one.
type Global interface {
	Get() uint64
	Set(uint64)
}

// Gauge sets and reads the meter of one instance. All methods but Stop belong
// to the goroutine that calls the guest, and to the time it is not running.
type Gauge struct {
	fuel, meter, stop, cause Global
}

// Bind finds the meter of an instance of a rewritten module. The function
// lookup returns the exported global of a name, nil if there is none.
func Bind(lookup func(name string) Global) (*Gauge, error) {
	var g Gauge
	for i, dst := range []*Global{&g.fuel, &g.meter, &g.stop, &g.cause} {
		if *dst = lookup(globalNames[i]); *dst == nil {
			return nil, fmt.Errorf("bind meter: instance exports no mutable global %q, was its module rewritten?", globalNames[i])
		}
	}
	return &g, nil
}

// Reset gives the next call its fuel in units and its native stack in bytes, at
// most MaxStack.
// A pending Stop is forgotten: order Reset before whatever may call Stop. Do
// not Reset within a call that a host function makes back into the guest: it
// spends what the outer call has left.
func (g *Gauge) Reset(fuel, stack int64) {
	first := max(0, min(fuel, slice))
	g.meter.Set(uint64(min(stack, MaxStack)<<stackShift + first))
	g.fuel.Set(uint64(fuel - first))
	g.stop.Set(0)
	g.cause.Set(0)
}

// Left is the fuel that is left in units, negative after CauseFuel.
func (g *Gauge) Left() int64 { return int64(g.fuel.Get()) + int64(int32(g.meter.Get())) }

// StackLeft is the native stack that is left in bytes. After a trap it is
// what was left at that depth, negative after CauseStack.
func (g *Gauge) StackLeft() int64 {
	v := int64(g.meter.Get())
	return (v - int64(int32(v))) >> stackShift
}

// Cause says whether the metering ended the last call.
func (g *Gauge) Cause() Cause { return Cause(uint32(g.cause.Get())) }

// Stop makes a running guest trap at its next visit to the host, after at most
// 2^18 units and what bulk operation is under way. It may be called from any
// goroutine, and again.
//
// It writes a word that compiled code only ever reads, so unlike taking the
// fuel away it cannot be undone by a store of the guest that is under way. The
// reader is machine code outside Go's memory model: what makes this work is
// that an aligned 64-bit store is one store on amd64 and arm64, and that the
// guest loads the word anew at every visit. Go's race detector sees neither.
// In wazero's interpreter the reader is Go code and the same access is a data
// race in the sense of the memory model, harmless on those machines.
//
// Synchronise the last Stop with the next Reset: stop the watchdog and wait
// for it.
func (g *Gauge) Stop() { g.stop.Set(1) }
