// Command sink-mock is the bundled plugin that does what its configuration
// says: it stores nothing, logs what it was handed, and misbehaves on command.
// It is the test double of this project and the example of a plugin in Go.
//
// The configuration is a list of rules. For each batch the first rule whose
// conditions all hold decides; if there is none the batch is stored, that is,
// logged and answered with OK.
//
//	{"rules": [{"do": "trap", "position": 7, "attempt": 1}]}
//
// traps when event 7 is delivered for the first time. A plugin that trapped is
// replaced by a fresh instance, which remembers nothing: so conditions are on
// what a batch brings along (its attempt, its id, its events and their
// positions in the queue), and those on what this instance has seen (call)
// begin anew with each instance. rule.go has the conditions and the actions,
// manifest.json describes them for a person who writes a configuration.
//
// What a test reads back is the log, at level info: "stored" and then the ids
// in order, one a line, 50 to an entry.
package main

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

func main() {}

func init() { guest.Register(&sink{}) }

// sink is the state of one instance.
type sink struct {
	config config
	calls  uint64 // deliveries to this instance
	hoard  [][]byte
}

// config is what audit.toml has under config for this sink.
type config struct {
	// Open is the action at audit_open: "" for OK, or bad-config, retry,
	// busy, trap, exit, spin.
	Open  string `json:"open"`
	Rules []rule `json:"rules"`
}

// Open reads the configuration and does what it says about opening.
func (s *sink) Open(text []byte) guest.Answer {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.config); err != nil {
		return guest.BadConfig(err.Error())
	}
	for i := range s.config.Rules {
		if why := s.config.Rules[i].check(); why != "" {
			return guest.BadConfig("rule " + strconv.Itoa(i+1) + ": " + why)
		}
	}
	r := rule{Do: s.config.Open}
	switch r.Do {
	case "":
		return guest.OK(0)
	case "bad-config":
		return guest.BadConfig("as scripted")
	case "retry", "busy", "trap", "exit", "spin":
		a, _ := s.perform(&r, abi.View{})
		return a
	}
	return guest.BadConfig("open is " + strconv.Quote(r.Do) + "; wanted bad-config, retry, busy, trap, exit or spin")
}

// Deliver finds the rule for a batch and does what it says.
func (s *sink) Deliver(b abi.View) guest.Answer {
	s.calls++
	for i := range s.config.Rules {
		r := &s.config.Rules[i]
		if !r.holds(b, s.calls) {
			continue
		}
		if a, decided := s.perform(r, b); decided {
			return a
		}
	}
	store(b, func(int) bool { return true })
	return guest.OK(b.Len())
}

// perform does what a rule says. It returns false after an action that leaves
// the decision to the rules that follow.
func (s *sink) perform(r *rule, b abi.View) (guest.Answer, bool) {
	pause := time.Duration(r.PauseMS) * time.Millisecond
	switch r.Do {
	case "delay":
		time.Sleep(pause)
		return guest.Answer{}, false
	case "flood":
		for i := range r.N {
			guest.Log(abi.LogInfo, "line "+strconv.Itoa(i+1)+" of a flood")
		}
		return guest.Answer{}, false
	case "grow":
		// Go gives up with "out of memory" when the host gives no more.
		for i := 0; r.N == 0 || i < r.N; i++ {
			block := make([]byte, 1<<20)
			block[0] = 1
			s.hoard = append(s.hoard, block)
		}
		return guest.Answer{}, false

	case "store":
		store(b, func(int) bool { return true })
		return guest.OK(b.Len()), true
	case "reject":
		return guest.Reject(r.text()), true
	case "retry":
		return guest.Retry(pause, r.text()), true
	case "busy":
		return guest.Busy(pause, r.text()), true
	case "verdict":
		return s.verdicts(r, b), true

	case "trap":
		panic("sink-mock: " + r.text())
	case "fault":
		// A trap of WebAssembly itself, which Go's runtime does not see.
		*(*byte)(unsafe.Add(unsafe.Pointer(s), 3<<30)) = 1
	case "store-then-trap":
		store(b, func(int) bool { return true })
		panic("sink-mock: stored, then " + r.text())
	case "exit":
		os.Exit(r.N)
	case "spin":
		//lint:ignore SA5002 this is what it is asked for
		for {
		}
	case "lie":
		store(b, func(int) bool { return true })
		return guest.OK(b.Len() + max(1, r.N)), true
	case "garbage":
		return guest.Answer{Outcome: abi.Outcome(r.N), Arg: uint32(b.Len())}, true
	}
	panic("sink-mock: check let the action " + r.Do + " pass")
}

// verdicts refuses the events that the rule names and stores the others.
func (s *sink) verdicts(r *rule, b abi.View) guest.Answer {
	code := abi.Reject
	if r.Retry {
		code = abi.Retry
	}
	refused := 0
	for i := range b.Len() {
		if r.names(b.At(i)) {
			guest.Verdict(uint32(i), code, r.text())
			refused++
		}
	}
	store(b, func(i int) bool { return !r.names(b.At(i)) })
	return guest.Partial(b.Len() - refused)
}

// idsPerEntry keeps a log entry within its bound: an id has 128 bytes at most
// and mostly 36; what a test makes up is short.
const idsPerEntry = 50

// store logs the ids of the chosen events.
func store(b abi.View, chosen func(int) bool) {
	var entry strings.Builder
	n := 0
	flush := func() {
		if n > 0 {
			guest.Log(abi.LogInfo, entry.String())
		}
		entry.Reset()
		n = 0
	}
	for i := range b.Len() {
		if !chosen(i) {
			continue
		}
		id := b.At(i).ID()
		if n == idsPerEntry || entry.Len()+1+len(id) > abi.MaxLogText {
			flush()
		}
		if n == 0 {
			entry.WriteString("stored")
		}
		entry.WriteByte('\n')
		entry.Write(id)
		n++
	}
	flush()
}
