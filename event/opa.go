package event

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/abi"
)

// opa is the format of OPA's decision log plugin: a gzip JSON array. The partition
// in the path is OPA's way to tell uploads apart and means nothing here. OPA
// repeats a batch for ever until it is answered with 200.
var opa = Format{
	Name:     "opa",
	Source:   "opa",
	Paths:    []string{"/logs", "/logs/{partition...}"},
	Media:    JSON,
	Pointers: DefaultOPAPointers(),
	Compile: func(p Pointers) (Parse, error) {
		m, err := CompileOPA(p)
		if err != nil {
			return nil, err
		}
		return func(raw []byte, o Options) (abi.Event, Decision, error) { return ParseOPA(raw, m, o) }, nil
	},
	OnBad:  KeepBad,
	Answer: answerOPA,
}

func answerOPA(a *Report) Reply {
	if a.Cause != nil {
		a.Error = fmt.Sprintf("%v; send the batch again", a.Cause)
		return ReplyJSON(503, struct {
			Error string `json:"error"`
		}{a.Error})
	}
	return ReplyJSON(200, struct {
		Accepted     int `json:"accepted"`
		Skipped      int `json:"skipped"`
		DeadLettered int `json:"dead_lettered"`
	}{a.Accepted, a.Skipped, a.DeadLettered})
}

// OPAActionKind is the kind of the action made of a decision-log element.
const OPAActionKind = "opa_decision"

// Pointers says where in an element the texts of an event stand: lists of JSON pointers (RFC 6901), of which the
// first that leads to a usable value wins. A null, an empty text and a value
// of a kind that cannot be meant are not usable.
type Pointers struct {
	// Agent leads to a string. Where none is found the element is refused.
	Agent []string
	// Decision leads to a string (refuse, deny, warn or allow), a boolean
	// (true allows) or an array (a set of denials: refused unless empty).
	// /result itself counts only as a string or a boolean: an array there may
	// be anything.
	Decision []string
	// Rule and Reason lead to strings. Where none is found the rule is the
	// element's path, or "opa", and the reason the first denial of the array
	// that decided, or "denied by policy" or "warned by policy".
	Rule, Reason []string
}

// DefaultOPAPointers returns the pointers that are taken where nothing else is
// said.
func DefaultOPAPointers() Pointers {
	return Pointers{
		Agent:    []string{"/input/agent_id", "/input/user", "/input/subject", "/labels/id"},
		Decision: []string{"/result/decision", "/result/allow", "/result/deny", "/result"},
		Rule:     []string{"/result/rule_id", "/path"},
		Reason:   []string{"/result/reason"},
	}
}

// OPAMapping is a checked set of Pointers. It may be used concurrently.
type OPAMapping struct {
	agent, decision, rule, reason []pointer
}

// pointer is a JSON pointer as its tokens.
type pointer []string

// CompileOPA checks the pointers.
func CompileOPA(p Pointers) (*OPAMapping, error) {
	m := &OPAMapping{}
	for _, list := range [...]struct {
		name string
		from []string
		into *[]pointer
	}{{"agent", p.Agent, &m.agent}, {"decision", p.Decision, &m.decision}, {"rule", p.Rule, &m.rule}, {"reason", p.Reason, &m.reason}} {
		for _, text := range list.from {
			tokens, err := parsePointer(text)
			if err != nil {
				return nil, fmt.Errorf("compile %s pointers: %w", list.name, err)
			}
			*list.into = append(*list.into, tokens)
		}
	}
	return m, nil
}

func parsePointer(text string) (pointer, error) {
	if text == "" {
		return nil, nil
	}
	if text[0] != '/' {
		return nil, fmt.Errorf("pointer %s: must begin with / (RFC 6901)", show(text))
	}
	tokens := strings.Split(text[1:], "/")
	for i, t := range tokens {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(t), "~") {
			return nil, fmt.Errorf("pointer %s: ~ must be written ~0, and / in a name ~1 (RFC 6901)", show(text))
		}
		tokens[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(t)
	}
	return tokens, nil
}

// ParseOPA reads one element of OPA's decision log and returns it as an event
// with its decision. A nil mapping is that of DefaultOPAPointers.
//
// decision_id is the event's id and timestamp its time; what is absent is
// minted. All other members, erased and masked among them, stand in the
// payload as the members of an action of kind OPAActionKind.
//
// An element without a result is a refusal: its policy was undefined, which
// denies by default. An element whose result no pointer can read is refused
// with an error rather than guessed at, and so is one whose texts break a
// limit; the error wraps an *Error unless o failed. element is not kept.
func ParseOPA(element []byte, m *OPAMapping, o Options) (abi.Event, Decision, error) {
	if m == nil {
		var err error
		if m, err = CompileOPA(DefaultOPAPointers()); err != nil {
			return abi.Event{}, Decision{}, err
		}
	}
	d := newDoc()
	defer d.free()
	c, fail := d.opa(element, m, o)
	if fail == nil && c.minted {
		c.moment, fail = o.now()
	}
	if fail != nil {
		return abi.Event{}, Decision{}, fmt.Errorf("read decision-log element: %w", fail)
	}
	payload := append(make([]byte, 0, len(element)+256), payloadStart...)
	e, err := c.event(d.append(payload, 0), o)
	if err != nil {
		return abi.Event{}, Decision{}, err
	}
	return e, c.decision, nil
}

// opa parses and checks an element and makes node 0 the action.
func (d *doc) opa(element []byte, m *OPAMapping, o Options) (claim, *Error) {
	// The element stands one level deeper in the payload.
	if err := d.open(element, MaxDepth-1, o); err != nil {
		return claim{}, err
	}
	if n := d.member(0, "kind"); n != 0 {
		return claim{}, fault(int(d.nodes[n].keyAt), "stands where the kind of the action must; rename it").under("kind")
	}
	c := claim{minted: true}
	var err *Error
	if c.agentID, err = d.opaAgent(m); err != nil {
		return claim{}, err
	}
	if c.decision, err = d.opaDecision(m); err != nil {
		return claim{}, err
	}
	c.eventType = c.decision.EventType()
	if n := d.member(0, "decision_id"); n != 0 {
		if self := d.nodes[n]; self.kind != kindNull && (self.kind != kindString || len(d.text(n)) > 0) {
			if c.id, err = d.bounded(n, abi.MaxIDLen); err != nil {
				return claim{}, err.under("decision_id")
			}
		}
		d.remove(0, n)
	}
	if n := d.member(0, "timestamp"); n != 0 {
		if d.nodes[n].kind != kindNull {
			c.minted = false
			if c.moment, err = d.timestamp(n); err != nil {
				return claim{}, err.under("timestamp")
			}
		}
		d.remove(0, n)
	}
	d.insert(0, "kind", kindString, OPAActionKind)
	return c, nil
}

func (d *doc) opaAgent(m *OPAMapping) (string, *Error) {
	n, p := d.firstText(m.agent)
	if n == 0 {
		var tried []string
		for _, p := range m.agent {
			tried = append(tried, p.String())
		}
		return "", fault(0, "no agent is named at any of %s; send one of them, or configure where the agent stands", strings.Join(tried, ", "))
	}
	agent, err := d.bounded(n, abi.MaxAgentIDLen)
	if err != nil {
		err.Path = p.String()
	}
	return agent, err
}

// opaDecision finds the decision, its rule and its reason.
func (d *doc) opaDecision(m *OPAMapping) (Decision, *Error) {
	dec, denial, err := d.opaVerdict(m)
	if err != nil || dec.Kind == KindAllow {
		return dec, err
	}
	rulePath, reasonPath := pointer{"path"}, pointer{"result"}
	dec.RuleID = "opa"
	if n := d.member(0, "path"); n != 0 && d.nodes[n].kind == kindString && len(d.text(n)) > 0 {
		dec.RuleID = string(d.text(n))
	}
	if n, p := d.firstText(m.rule); n != 0 {
		dec.RuleID, rulePath = string(d.text(n)), p
	}
	switch {
	case denial != 0:
		dec.Reason = string(d.text(denial))
	case dec.Kind == KindWarn:
		dec.Reason = "warned by policy"
	default:
		dec.Reason = "denied by policy"
	}
	if n, p := d.firstText(m.reason); n != 0 {
		dec.Reason, reasonPath = string(d.text(n)), p
	}
	if name, reason := dec.check(); reason != "" {
		err := fault(-1, "the %s %s", name, reason)
		if err.Path = rulePath.String(); name == "reason" {
			err.Path = reasonPath.String()
		}
		return Decision{}, err
	}
	return dec, nil
}

// opaVerdict finds the kind of the decision, and the first denial if it was
// made by an array of texts.
func (d *doc) opaVerdict(m *OPAMapping) (Decision, int32, *Error) {
	result := d.member(0, "result")
	for _, p := range m.decision {
		n, ok := d.find(p)
		if !ok {
			continue
		}
		switch self := d.nodes[n]; self.kind {
		case kindTrue:
			return Decision{Kind: KindAllow}, 0, nil
		case kindFalse:
			return Decision{Kind: KindRefuse}, 0, nil
		case kindString:
			switch text := string(d.text(n)); text {
			case "deny":
				return Decision{Kind: KindRefuse}, 0, nil
			case KindRefuse, KindWarn, KindAllow:
				return Decision{Kind: d.decisionText(n)}, 0, nil
			default:
				err := fault(int(self.at), "must be refuse, deny, warn or allow, found %s", show(text))
				err.Path = p.String()
				return Decision{}, 0, err
			}
		case kindArray:
			switch {
			case n == result:
			case self.first == 0:
				return Decision{Kind: KindAllow}, 0, nil
			case d.nodes[self.first].kind == kindString:
				return Decision{Kind: KindRefuse}, self.first, nil
			default:
				return Decision{Kind: KindRefuse}, 0, nil
			}
		}
	}
	if result == 0 || d.nodes[result].kind == kindNull {
		return Decision{Kind: KindRefuse}, 0, nil
	}
	return Decision{}, 0, fault(int(d.nodes[result].at),
		"no decision can be read from the result; configure where the decision stands").under("result")
}

// firstText returns the first node that the pointers lead to which is a
// string of at least one byte, 0 when there is none.
func (d *doc) firstText(pointers []pointer) (int32, pointer) {
	for _, p := range pointers {
		if n, ok := d.find(p); ok && d.nodes[n].kind == kindString && len(d.text(n)) > 0 {
			return n, p
		}
	}
	return 0, nil
}

// find follows a pointer from the root.
func (d *doc) find(p pointer) (n int32, ok bool) {
	for _, token := range p {
		var next int32
		switch d.nodes[n].kind {
		case kindObject:
			next = d.member(n, token)
		case kindArray:
			next = d.element(n, token)
		}
		if next == 0 {
			return 0, false
		}
		n = next
	}
	return n, true
}

// element returns the element of an array that a pointer's token names, 0
// when there is none.
func (d *doc) element(array int32, token string) int32 {
	index, err := strconv.ParseUint(token, 10, 31)
	if err != nil || len(token) > 1 && token[0] == '0' {
		return 0
	}
	c := d.nodes[array].first
	for ; c != 0 && index > 0; index-- {
		c = d.nodes[c].next
	}
	return c
}

// String writes the pointer as RFC 6901 has it.
func (p pointer) String() string {
	var b strings.Builder
	for _, t := range p {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(t))
	}
	return b.String()
}
