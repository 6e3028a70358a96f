// Package guest is the SDK for sink plugins written in Go. A plugin implements
// [Sink], registers it from an init function, has an empty main, and is built
// with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w" -o plugin.wasm
//	audit-host plugin manifest manifest.json plugin.wasm
//
// "audit-host plugin new NAME --lang go" makes a plugin to begin with.
//
// The package exports the functions of the ABI (package abi) and wraps those
// of the host. Guarantees: one inbox is reused for every batch, so that a
// delivery allocates nothing; every export yields once before it returns,
// without which Go's collector inside the guest would never finish a cycle;
// what is handed to the host is alive and does not move until the host has
// read it. Not guaranteed: anything of this for goroutines that a sink leaves
// running behind an answer; they stand still until the next call.
//
// Outside WebAssembly the package compiles too, so that a plugin's tests run
// natively; a [Host] of the test then stands in for audit-host.
//
// It imports the standard library only. Of the host's functions a plugin
// imports those that it calls and no others, so that it asks for no capability
// it does not use.
package guest

import (
	"math"
	"runtime"
	"time"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// Sink is what a plugin implements. The host calls it from one goroutine, and
// never again after a panic: the next batch meets a fresh instance of the
// plugin, which remembers nothing.
type Sink interface {
	// Open gets the sink's configuration as JSON, before the first batch. It
	// answers OK(0), BadConfig, Retry or Busy. The bytes are valid until it
	// returns.
	Open(config []byte) Answer
	// Deliver stores a batch. The view is valid until Deliver returns. The
	// same events may come again, in the same batch or another: storing has
	// to be idempotent on the event's id.
	Deliver(batch abi.View) Answer
}

// Flusher is implemented by a sink that holds back what it has not yet made
// durable.
type Flusher interface{ Flush() Answer }

// Closer is implemented by a sink that has something to put in order before
// its instance goes away.
type Closer interface{ Close() Answer }

// Answer is an outcome with its argument.
type Answer struct {
	Outcome abi.Outcome
	Arg     uint32
	// Reason goes with Retry, Reject, Busy and BadConfig; see [Answer.Because].
	Reason abi.Reason
	// Message is about the whole batch.
	Message string
}

// OK says that all n events are stored.
func OK(n int) Answer { return Answer{Outcome: abi.OK, Arg: uint32(n)} }

// Partial says that n events are stored and every other one got a [Verdict].
func Partial(n int) Answer { return Answer{Outcome: abi.Partial, Arg: uint32(n)} }

// Retry says that nothing was stored and asks for the same batch again after a
// pause.
func Retry(after time.Duration, message string) Answer {
	return Answer{Outcome: abi.Retry, Arg: millis(after), Message: message}
}

// Busy says that nothing was stored because what the sink writes to is not to
// be had just now, and wishes for a pause.
func Busy(after time.Duration, message string) Answer {
	return Answer{Outcome: abi.Busy, Arg: millis(after), Message: message}
}

// Reject refuses the batch for good; nothing of it was stored.
func Reject(message string) Answer { return Answer{Outcome: abi.Reject, Message: message} }

// BadConfig refuses the configuration. Only Open may answer it.
func BadConfig(message string) Answer { return Answer{Outcome: abi.BadConfig, Message: message} }

// Because adds a reason to a Retry, Reject, Busy or BadConfig: metrics and readiness
// go by it, and the message is for people.
func (a Answer) Because(why abi.Reason) Answer {
	a.Reason = why
	return a
}

// millis rounds a pause up to whole milliseconds, within what an answer holds.
func millis(d time.Duration) uint32 {
	n := d / time.Millisecond
	if d%time.Millisecond > 0 {
		n++
	}
	return uint32(min(max(0, n), math.MaxUint32))
}

// minInbox is the smallest inbox in bytes. It must not be 0: the address of
// nothing would be a refusal.
const minInbox = 4096

// A module has one sink and one inbox, as it has one memory.
var (
	registered Sink
	inbox      []byte
)

// Register makes s the plugin's sink. Call it once, from an init function.
func Register(s Sink) {
	if registered != nil {
		panic("guest: Register called twice")
	}
	registered = s
}

func reserve(n uint32) unsafe.Pointer {
	if n > abi.MaxFrame {
		return nil
	}
	if len(inbox) == 0 || uint64(len(inbox)) < uint64(n) {
		// The old one goes first, so that both need not fit. A quarter more
		// than asked for, so that slowly growing batches do not allocate each
		// time.
		inbox = nil
		inbox = make([]byte, max(minInbox, uint64(n)+uint64(n)/4))
	}
	runtime.Gosched()
	return unsafe.Pointer(unsafe.SliceData(inbox))
}

func sink() Sink {
	if registered == nil {
		panic("guest: no sink; call guest.Register from an init function")
	}
	return registered
}

func finish(a Answer) uint64 {
	if a.Message != "" {
		Verdict(abi.WholeBatch, a.Outcome, a.Message)
	}
	// The collector runs beside the program: on one thread it gets on only
	// when it is let.
	runtime.Gosched()
	return abi.Answer(a.Outcome, a.Reason, a.Arg)
}

func open(n uint32) uint64 { return finish(sink().Open(inbox[:n:n])) }

func deliver(n uint32) uint64 {
	batch, err := abi.Parse(inbox[:n:n])
	if err != nil {
		// The host wrote the frame, so this is a fault that no repetition
		// mends; the trap makes it visible.
		panic(err)
	}
	return finish(sink().Deliver(batch))
}

func flush() uint64 {
	if f, ok := sink().(Flusher); ok {
		return finish(f.Flush())
	}
	return finish(OK(0))
}

func closeSink() uint64 {
	if c, ok := sink().(Closer); ok {
		return finish(c.Close())
	}
	return finish(OK(0))
}
