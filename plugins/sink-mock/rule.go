package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/abi"
)

// rule is an action with the conditions under which it is taken. A condition
// that is absent holds.
type rule struct {
	// Do names the action, see actions.
	Do string `json:"do"`

	// Conditions on the batch: its attempt (1 is the first), its id, and how
	// often this instance was called, the present call included.
	Attempt numbers `json:"attempt"`
	Batch   numbers `json:"batch"`
	Call    numbers `json:"call"`

	// Conditions on events: the rule holds if one event of the batch meets all
	// of them. Position is that in the queue, from 1.
	Position numbers  `json:"position"`
	IDs      []string `json:"ids"`
	Contains string   `json:"contains"`

	// What the actions need.
	PauseMS uint32 `json:"pause_ms"`
	N       int    `json:"n"`
	Text    string `json:"text"`
	Retry   bool   `json:"retry"`
}

// actions lists what a rule can do.
//   - store: log the ids and answer OK, although a later rule says otherwise.
//   - reject; retry and busy, with pause_ms.
//   - verdict: REJECT (with "retry": true RETRY) for the events that the
//     conditions name, the others are stored.
//   - trap: panic, which ends a Go program with code 2. fault: an illegal
//     access to memory. store-then-trap: both, in that order.
//   - exit: with code n. spin: for ever.
//   - lie: OK with n events more than there are, at least one. garbage: the
//     outcome n.
//   - delay: wait for pause_ms. flood: log n lines. grow: allocate n MiB and
//     keep them, 0 for all there is. After these three the next rule decides.
var actions = []string{"store", "reject", "retry", "busy", "verdict", "trap", "fault", "store-then-trap", "exit", "spin",
	"lie", "garbage", "delay", "flood", "grow"}

// check returns what is wrong with a rule, "" if nothing is.
func (r *rule) check() string {
	if !slices.Contains(actions, r.Do) {
		return "do is " + strconv.Quote(r.Do) + "; wanted one of " + strings.Join(actions, ", ")
	}
	if r.N < 0 {
		return "n is negative"
	}
	return ""
}

func (r *rule) text() string {
	if r.Text == "" {
		return r.Do + ", as scripted"
	}
	return r.Text
}

// holds tells whether the conditions are met, at the given call.
func (r *rule) holds(b abi.View, call uint64) bool {
	if !r.Attempt.has(uint64(b.Attempt())) || !r.Batch.has(b.BatchID()) || !r.Call.has(call) {
		return false
	}
	for i := range b.Len() {
		if r.names(b.At(i)) {
			return true
		}
	}
	return false
}

// names tells whether an event meets the conditions on events.
func (r *rule) names(e abi.EventView) bool {
	return r.Position.has(e.Seq()) &&
		(r.IDs == nil || slices.Contains(r.IDs, string(e.ID()))) &&
		(r.Contains == "" || bytes.Contains(e.Payload(), []byte(r.Contains)))
}

// numbers is a set of numbers: 7, or a text such as "1,4,7-9", "100-" for 100
// and beyond, "*/5" for every fifth. The set that was not given has all.
type numbers []span

// span is first, first+step, … up to last.
type span struct{ first, last, step uint64 }

func (s numbers) has(n uint64) bool {
	return s == nil || slices.ContainsFunc(s, func(p span) bool {
		return n >= p.first && n <= p.last && (n-p.first)%p.step == 0
	})
}

// UnmarshalJSON reads a number or a text.
func (s *numbers) UnmarshalJSON(text []byte) error {
	var list string
	if err := json.Unmarshal(text, &list); err != nil {
		list = string(text)
	}
	*s = numbers{}
	for part := range strings.SplitSeq(list, ",") {
		p, err := parseSpan(strings.TrimSpace(part))
		if err != nil {
			return errors.New(strconv.Quote(list) + ` is no set of numbers; write 7, "1,4,7-9", "100-" or "*/5"`)
		}
		*s = append(*s, p)
	}
	return nil
}

func parseSpan(text string) (p span, err error) {
	if every, ok := strings.CutPrefix(text, "*/"); ok {
		p.step, err = strconv.ParseUint(every, 10, 64)
		if err == nil && p.step == 0 {
			err = strconv.ErrRange
		}
		p.first, p.last = p.step, ^uint64(0)
		return p, err
	}
	first, last, isRange := strings.Cut(text, "-")
	p.step = 1
	if p.first, err = strconv.ParseUint(first, 10, 64); err != nil {
		return p, err
	}
	switch {
	case !isRange:
		p.last = p.first
	case last == "":
		p.last = ^uint64(0)
	default:
		p.last, err = strconv.ParseUint(last, 10, 64)
	}
	return p, err
}
