package event

import (
	"fmt"
	"strings"

	"github.com/audit-host/audit-host/abi"
)

// native is audit-host's own format.
var native = Format{
	Name:     "native",
	Source:   "http",
	Paths:    []string{"/v1/events"},
	Media:    JSON,
	Compile:  func(Pointers) (Parse, error) { return ParseNative, nil },
	Receipts: true,
	Answer:   answerNative,
}

// maxBlowUp bounds a line by the payload's limit: an escape such as \u0041 is
// six times as long as what it stands for, the rest is room for white space.
const maxBlowUp = 8

// ParseNative reads a native event,
//
//	{"id"?, "agent_id", "action": {"kind": …}, "decision": {"decision": …,
//	 "rule_id", "reason"}, "timestamp"?, "event_type"?}
//
// and returns it with its decision. Without an id one is minted; without a
// timestamp the present time is stamped and Minted is set; without an event
// type the decision's is taken. An optional member that is null counts as
// absent. A member that is not named here is refused, with a suggestion where
// one is near. The error wraps an *Error unless o failed. line is not kept.
func ParseNative(line []byte, o Options) (abi.Event, Decision, error) {
	d := newDoc()
	defer d.free()
	c, action, fail := d.native(line, o)
	if fail == nil && c.minted {
		c.moment, fail = o.now()
	}
	if fail != nil {
		return abi.Event{}, Decision{}, fmt.Errorf("read event: %w", fail)
	}
	payload := append(make([]byte, 0, len(line)+64), payloadStart...)
	e, err := c.event(d.append(payload, action), o)
	if err != nil {
		return abi.Event{}, Decision{}, err
	}
	return e, c.decision, nil
}

// native parses and checks a native event. It returns all but the action,
// and the action's node. Without a timestamp the claim is marked minted, but
// has no time yet.
func (d *doc) native(line []byte, o Options) (claim, int32, *Error) {
	if err := d.open(line, MaxDepth, o); err != nil {
		return claim{}, 0, err
	}
	c := claim{minted: true}
	var action, agent, decision, eventType int32
	for n := d.nodes[0].first; n != 0; n = d.nodes[n].next {
		var err *Error
		null := d.nodes[n].kind == kindNull
		switch string(d.key(n)) {
		case "action":
			action, err = n, d.action(n)
		case "agent_id":
			agent = n
			c.agentID, err = d.bounded(n, abi.MaxAgentIDLen)
		case "decision":
			decision = n
			c.decision, err = d.decision(n)
		case "event_type":
			if !null {
				eventType = n
				c.eventType, err = d.bounded(n, abi.MaxEventTypeLen)
			}
		case "id":
			if !null {
				c.id, err = d.bounded(n, abi.MaxIDLen)
			}
		case "timestamp":
			if !null {
				c.minted = false
				c.moment, err = d.timestamp(n)
			}
		default:
			return claim{}, 0, d.unknown(n, "action", "agent_id", "decision", "event_type", "id", "timestamp")
		}
		if err != nil {
			return claim{}, 0, err.under(string(d.key(n)))
		}
	}
	switch {
	case action == 0:
		return claim{}, 0, d.missing(0, "action", `it is an object with a "kind"`)
	case agent == 0:
		return claim{}, 0, d.missing(0, "agent_id", "it says whose action was decided on")
	case decision == 0:
		return claim{}, 0, d.missing(0, "decision", `it is an object such as {"decision":"refuse","rule_id":"R1","reason":"…"}`)
	}
	if eventType == 0 {
		c.eventType = c.decision.EventType()
	} else if reason := typeFault(c.eventType, c.decision); reason != "" {
		return claim{}, 0, fault(int(d.nodes[eventType].at), "%s", reason).under("event_type")
	}
	return c, action, nil
}

// open parses a client's object, bounding it first.
func (d *doc) open(text []byte, depth int, o Options) *Error {
	if most := o.maxPayload() * maxBlowUp; len(text) > most {
		return fault(0, "the event is %d bytes long; at most %d are read", len(text), most)
	}
	// A value takes two bytes at least in canonical form, with its separator.
	// The few that are not written, such as the id, are allowed for. So a text
	// of values alone costs no more memory than the payload's limit justifies.
	d.most = o.maxPayload()/2 + 16
	if err := d.parse(text, depth); err != nil {
		return err
	}
	return d.expect(0, kindObject)
}

// typeFault says why an event type cannot stand with a decision, "" if it can.
func typeFault(eventType string, d Decision) string {
	if reason := textFault(eventType, 1, abi.MaxEventTypeLen, ""); reason != "" {
		return reason
	}
	for i := range len(eventType) {
		switch c := eventType[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Sprintf("may hold a-z, 0-9, dot, underscore and hyphen only, found %s", show(eventType))
		}
	}
	switch own := d.EventType(); eventType {
	case own:
	case TypeRefusal, TypeWarn, TypeAllow:
		return fmt.Sprintf("%s cannot name a decision of kind %s; leave event_type out, or give %s or a type of your own",
			eventType, d.Kind, own)
	}
	return ""
}

// bounded reads a text of 1 to most bytes without control characters.
func (d *doc) bounded(n int32, most int) (string, *Error) {
	if err := d.expect(n, kindString); err != nil {
		return "", err
	}
	s := string(d.text(n))
	if reason := textFault(s, 1, most, ""); reason != "" {
		return "", fault(int(d.nodes[n].at), "%s", reason)
	}
	return s, nil
}

func (d *doc) timestamp(n int32) (moment, *Error) {
	if err := d.expect(n, kindString); err != nil {
		return moment{}, err
	}
	m, reason := parseTimestamp(d.text(n))
	if reason != "" {
		return moment{}, fault(int(d.nodes[n].at), "%s", reason)
	}
	return m, nil
}

// unknown refuses a member whose name is none of the known ones.
func (d *doc) unknown(n int32, known ...string) *Error {
	name := string(d.key(n))
	hint := "known are " + strings.Join(known, ", ")
	if near := nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	return fault(int(d.nodes[n].keyAt), "unknown member %s; %s", show(name), hint).under(name)
}

// nearest returns the known name that name was probably meant to be, "" when
// none is near: after dropping case, hyphens and underscores, at most two
// bytes to insert, delete or change, and fewer than half of them all.
func nearest(name string, known []string) string {
	const longest = 32
	if len(name) > longest {
		return ""
	}
	plain := func(s string) string { return joiners.Replace(strings.ToLower(s)) }
	best, least := "", 3
	name = plain(name)
	for _, k := range known {
		if cost := distance(name, plain(k)); cost < least && 2*cost < len(k) {
			best, least = k, cost
		}
	}
	return best
}

var joiners = strings.NewReplacer("_", "", "-", "")

// distance counts the bytes to insert, delete or change to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
