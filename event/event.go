package event

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/audit-host/audit-host/abi"
)

// MaxPayload is the longest canonical payload taken, in bytes, unless Options
// says otherwise.
const MaxPayload = 1 << 20

// Options says where time and ids come from. The zero value is ready to use.
type Options struct {
	// Now is the clock; nil is the real one. Its location does not matter.
	Now func() time.Time
	// NewID mints ids; nil mints UUIDs of version 7. Those of one process
	// increase strictly in byte order, in the order of the calls, also within
	// one millisecond and when the clock goes back.
	NewID func() (string, error)
	// MaxPayload is the longest canonical payload in bytes; 0 is the constant
	// MaxPayload.
	MaxPayload int
}

func (o Options) now() (moment, *Error) {
	clock := time.Now
	if o.Now != nil {
		clock = o.Now
	}
	m, reason := momentOf(clock())
	if reason != "" {
		return m, fault(-1, "the clock's time %s; set the clock", reason).under("timestamp")
	}
	return m, nil
}

func (o Options) newID() (string, error) {
	if o.NewID == nil {
		id, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("mint id: %w", err)
		}
		return id.String(), nil
	}
	id, err := o.NewID()
	if err != nil {
		return "", fmt.Errorf("mint id: %w", err)
	}
	if reason := textFault(id, 1, abi.MaxIDLen, ""); reason != "" {
		return "", fmt.Errorf("mint id: %w", fault(-1, "%s", reason).under("id"))
	}
	return id, nil
}

func (o Options) maxPayload() int {
	if o.MaxPayload > 0 {
		return o.MaxPayload
	}
	return MaxPayload
}

// FromRefusal makes the event of a refusal, stamped with the present time and
// with a new id. It returns false and no error for any other decision.
func FromRefusal(agentID string, a Action, d Decision) (abi.Event, bool, error) {
	if !d.IsRefusal() {
		return abi.Event{}, false, nil
	}
	e, err := New(agentID, a, d, Options{})
	return e, err == nil, err
}

// New makes the event of any decision, stamped with o's time and id, with the
// event type of the decision. The error wraps an *Error unless o failed. The
// id is no part of the payload: a caller with one of its own puts it into the
// event and has Check look at it.
func New(agentID string, a Action, d Decision, o Options) (abi.Event, error) {
	c := claim{agentID: agentID, eventType: d.EventType(), decision: d, minted: true}
	payload, fail := c.typed(a, o)
	if fail != nil {
		return abi.Event{}, fmt.Errorf("make event: %w", fail)
	}
	return c.event(payload, o)
}

// claim is what a client says, checked, but for the action.
type claim struct {
	id, agentID, eventType string
	decision               Decision
	moment                 moment
	minted                 bool // the time is ours
}

// typed checks a claim made of Go values, stamps it and writes its action.
func (c *claim) typed(a Action, o Options) (payload []byte, err *Error) {
	if reason := textFault(c.agentID, 1, abi.MaxAgentIDLen, ""); reason != "" {
		return nil, fault(-1, "%s", reason).under("agent_id")
	}
	if member, reason := c.decision.check(); reason != "" {
		return nil, fault(-1, "%s", reason).under(member).under("decision")
	}
	if a == nil {
		return nil, fault(-1, "is nil").under("action")
	}
	if c.moment, err = o.now(); err != nil {
		return nil, err
	}
	payload = append(make([]byte, 0, 512), payloadStart...)
	if payload, err = a.appendAction(payload); err != nil {
		return nil, err.under("action")
	}
	return payload, nil
}

// payloadStart stands before the action, whose name sorts first.
const payloadStart = `{"action":`

// finish completes a payload that ends with the action.
func (c *claim) finish(payload []byte, o Options) (whole []byte, timestamp string, err *Error) {
	payload = append(payload, `,"agent_id":`...)
	payload = appendString(payload, c.agentID)
	payload = append(payload, `,"decision":`...)
	payload = c.decision.append(payload)
	payload = append(payload, `,"timestamp":"`...)
	from := len(payload)
	payload = c.moment.append(payload)
	timestamp = string(payload[from:])
	payload = append(payload, `"}`...)
	if most := o.maxPayload(); len(payload) > most {
		return nil, "", fault(-1, "the canonical payload is %d bytes long; at most %d are taken", len(payload), most)
	}
	return payload, timestamp, nil
}

// event completes the event whose payload ends with the action.
func (c *claim) event(payload []byte, o Options) (abi.Event, error) {
	payload, timestamp, fail := c.finish(payload, o)
	if fail != nil {
		return abi.Event{}, fmt.Errorf("make event: %w", fail)
	}
	id := c.id
	if id == "" {
		var err error
		if id, err = o.newID(); err != nil {
			return abi.Event{}, err
		}
	}
	return abi.Event{
		ID:        id,
		AgentID:   c.agentID,
		EventType: c.eventType,
		Timestamp: timestamp,
		Minted:    c.minted,
		Payload:   payload,
	}, nil
}

// Canonicalize returns the canonical payload of one native event and its
// SHA-256. The event is checked as ParseNative checks it, but must have a
// timestamp: the present time would give another hash every time. The bare
// payload object is such an event too. The error is an *Error.
func Canonicalize(line []byte) (canonical []byte, hash [sha256.Size]byte, err error) {
	d := newDoc()
	defer d.free()
	c, action, fail := d.native(line, Options{})
	if fail == nil && c.minted {
		fail = d.missing(0, "timestamp", "without one every run would give another hash")
	}
	if fail != nil {
		return nil, hash, fail
	}
	payload := append(make([]byte, 0, len(line)+64), payloadStart...)
	payload, _, fail = c.finish(d.append(payload, action), Options{})
	if fail != nil {
		return nil, hash, fail
	}
	return payload, sha256.Sum256(payload), nil
}
