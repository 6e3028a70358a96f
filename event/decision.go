package event

// The kinds of a decision, as they stand in the payload.
const (
	KindRefuse = "refuse"
	KindWarn   = "warn"
	KindAllow  = "allow"
)

// The event types of the three kinds of decision. They are reserved: an event
// of another kind of decision cannot carry them.
const (
	TypeRefusal = "governance.refusal"
	TypeWarn    = "governance.warn"
	TypeAllow   = "governance.allow"
)

// Limits of the texts of a decision, in bytes.
const (
	MaxRuleIDLen = 256
	MaxReasonLen = 4096
)

// Decision is what the policy engine decided.
type Decision struct {
	// Kind is KindRefuse, KindWarn or KindAllow.
	Kind string
	// RuleID names the rule that decided, 0 to MaxRuleIDLen bytes without
	// control characters. Empty when the action was allowed.
	RuleID string
	// Reason is the operator's text, 0 to MaxReasonLen bytes without control
	// characters other than \n and \t. Empty when the action was allowed.
	Reason string
}

// IsRefusal tells whether the action was refused.
func (d Decision) IsRefusal() bool { return d.Kind == KindRefuse }

// EventType returns the event type of the decision's kind, "" for no kind.
func (d Decision) EventType() string {
	switch d.Kind {
	case KindRefuse:
		return TypeRefusal
	case KindWarn:
		return TypeWarn
	case KindAllow:
		return TypeAllow
	}
	return ""
}

// check returns what is wrong with the decision and the member it is wrong
// with; an empty reason when nothing is.
func (d Decision) check() (member, reason string) {
	switch {
	case d.EventType() == "":
		return "decision", "must be refuse, warn or allow, found " + show(d.Kind)
	case d.Kind == KindAllow && d.RuleID != "":
		return "rule_id", "must be absent from an allow decision"
	case d.Kind == KindAllow && d.Reason != "":
		return "reason", "must be absent from an allow decision"
	}
	if reason := textFault(d.RuleID, 0, MaxRuleIDLen, ""); reason != "" {
		return "rule_id", reason
	}
	if reason := textFault(d.Reason, 0, MaxReasonLen, "\n\t"); reason != "" {
		return "reason", reason
	}
	return "", ""
}

func (d Decision) append(dst []byte) []byte {
	dst = append(dst, `{"decision":`...)
	dst = appendString(dst, d.Kind)
	if d.Kind != KindAllow {
		dst = append(dst, `,"reason":`...)
		dst = appendString(dst, d.Reason)
		dst = append(dst, `,"rule_id":`...)
		dst = appendString(dst, d.RuleID)
	}
	return append(dst, '}')
}

// decision reads the decision object n.
func (d *doc) decision(n int32) (Decision, *Error) {
	if err := d.expect(n, kindObject); err != nil {
		return Decision{}, err
	}
	var dec Decision
	for c := d.nodes[n].first; c != 0; c = d.nodes[c].next {
		var into *string
		switch string(d.key(c)) {
		case "decision":
			into = &dec.Kind
		case "rule_id":
			into = &dec.RuleID
		case "reason":
			into = &dec.Reason
		default:
			return Decision{}, d.unknown(c, "decision", "rule_id", "reason")
		}
		if err := d.expect(c, kindString); err != nil {
			return Decision{}, err.under(string(d.key(c)))
		}
		*into = d.decisionText(c)
	}
	if d.member(n, "decision") == 0 {
		return Decision{}, d.missing(n, "decision", "it is refuse, warn or allow")
	}
	for _, name := range [...]string{"rule_id", "reason"} {
		switch c := d.member(n, name); {
		case dec.Kind == KindAllow && c != 0:
			return Decision{}, fault(int(d.nodes[c].keyAt), "must be absent from an allow decision").under(name)
		case (dec.Kind == KindRefuse || dec.Kind == KindWarn) && c == 0:
			return Decision{}, d.missing(n, name, "a "+dec.Kind+" decision needs it")
		}
	}
	if name, reason := dec.check(); reason != "" {
		return Decision{}, fault(int(d.nodes[d.member(n, name)].at), "%s", reason).under(name)
	}
	return dec, nil
}

// decisionText returns the text of n, without an allocation for the three kinds.
func (d *doc) decisionText(n int32) string {
	switch string(d.text(n)) {
	case KindRefuse:
		return KindRefuse
	case KindWarn:
		return KindWarn
	case KindAllow:
		return KindAllow
	}
	return string(d.text(n))
}
