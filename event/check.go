package event

import (
	"bytes"
	"fmt"

	"github.com/audit-host/audit-host/abi"
)

// DecisionOf reads the decision back from an event's payload.
func DecisionOf(e abi.Event) (Decision, error) {
	dec, err := decisionOf(e)
	if err != nil {
		return Decision{}, fmt.Errorf("read decision of event %s: %w", show(e.ID), err)
	}
	return dec, nil
}

func decisionOf(e abi.Event) (Decision, *Error) {
	d := newDoc()
	defer d.free()
	if err := d.parse(e.Payload, MaxDepth); err != nil {
		return Decision{}, err
	}
	if err := d.expect(0, kindObject); err != nil {
		return Decision{}, err
	}
	n := d.member(0, "decision")
	if n == 0 {
		return Decision{}, d.missing(0, "decision", "the payload of an event has one")
	}
	dec, err := d.decision(n)
	if err != nil {
		return Decision{}, err.under("decision")
	}
	return dec, nil
}

// RuleID returns the rule that refused the action; false for an event that is
// no refusal.
func RuleID(e abi.Event) (string, bool) {
	d, err := decisionOf(e)
	if err != nil || !d.IsRefusal() {
		return "", false
	}
	return d.RuleID, true
}

// Reason returns why the action was refused; false for an event that is no
// refusal.
func Reason(e abi.Event) (string, bool) {
	d, err := decisionOf(e)
	if err != nil || !d.IsRefusal() {
		return "", false
	}
	return d.Reason, true
}

// Check tells whether an event is one that this package could have made: its
// texts keep their limits, its payload is canonical, and payload, agent,
// timestamp and event type agree. An event made by hand that calls an allowed
// action a refusal is so refused. Sequence, hashes and signature are not
// looked at.
func Check(e abi.Event, o Options) error {
	if recognize(&e, o) {
		return nil
	}
	if err := check(e, o); err != nil {
		return fmt.Errorf("check event %s: %w", show(e.ID), err)
	}
	return nil
}

func check(e abi.Event, o Options) *Error {
	if reason := textFault(e.ID, 1, abi.MaxIDLen, ""); reason != "" {
		return fault(-1, "%s", reason).under("id")
	}
	d := newDoc()
	defer d.free()
	c, action, err := d.native(e.Payload, o)
	if err != nil {
		return err
	}
	for _, name := range [...]string{"id", "event_type"} {
		if n := d.member(0, name); n != 0 {
			return fault(int(d.nodes[n].keyAt), "is no member of a payload").under(name)
		}
	}
	if c.minted {
		return d.missing(0, "timestamp", "the payload of an event has one")
	}
	payload := append(make([]byte, 0, len(e.Payload)), payloadStart...)
	payload, timestamp, err := c.finish(d.append(payload, action), o)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(payload, e.Payload):
		return fault(firstDifference(payload, e.Payload), "the payload is not in canonical form")
	case c.agentID != e.AgentID:
		return fault(-1, "is %s in the event and %s in its payload", show(e.AgentID), show(c.agentID)).under("agent_id")
	case timestamp != e.Timestamp:
		return fault(-1, "is %s in the event and %s in its payload", show(e.Timestamp), timestamp).under("timestamp")
	}
	if reason := typeFault(e.EventType, c.decision); reason != "" {
		return fault(-1, "%s", reason).under("event_type")
	}
	return nil
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
