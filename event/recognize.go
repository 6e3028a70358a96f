package event

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/audit-host/audit-host/abi"
)

// recognize tells that an event is one that Check takes, in one pass over its
// payload and without an allocation. It knows the events of everyday and
// nothing else: false means that check has to find out, and say why not.
//
// It may only be stricter than check. So it reads no number but an integer of
// at most 18 digits, no member name with an escape, no decision with one.
func recognize(e *abi.Event, o Options) bool {
	if len(e.Payload) > o.maxPayload() || textFault(e.ID, 1, abi.MaxIDLen, "") != "" ||
		textFault(e.AgentID, 1, abi.MaxAgentIDLen, "") != "" || strings.ContainsAny(e.AgentID, `"\`) {
		return false
	}
	s := scanner{in: e.Payload}
	if !s.skip(payloadStart) || !s.action() || !s.skip(`,"agent_id":"`) || !s.skip(e.AgentID) || !s.skip(`","decision":{"decision":`) {
		return false
	}
	var d Decision
	switch {
	case s.skip(`"refuse","reason":`):
		d.Kind = KindRefuse
	case s.skip(`"warn","reason":`):
		d.Kind = KindWarn
	case s.skip(`"allow"`):
		d.Kind = KindAllow
	default:
		return false
	}
	if d.Kind != KindAllow {
		reason, plain := s.plain()
		if !plain || textFault(reason, 0, MaxReasonLen, "\n\t") != "" || !s.skip(`,"rule_id":`) {
			return false
		}
		rule, plain := s.plain()
		if !plain || textFault(rule, 0, MaxRuleIDLen, "") != "" {
			return false
		}
	}
	if !s.skip(`},"timestamp":`) {
		return false
	}
	timestamp, plain := s.plain()
	if !plain || string(timestamp) != e.Timestamp || !s.skip("}") || s.at != len(s.in) {
		return false
	}
	m, fault := parseTimestamp(timestamp)
	var canonical [64]byte
	return fault == "" && bytes.Equal(m.append(canonical[:0]), timestamp) && typeFault(e.EventType, d) == ""
}

// scanner reads canonical JSON. Whatever returns false has met something else,
// or something that it leaves to doc.
type scanner struct {
	in []byte
	at int
}

// scanDepth is the deepest level that a scanner goes to, below MaxDepth.
const scanDepth = 32

// skip goes over text, if it stands here.
func (s *scanner) skip(text string) bool {
	if end := s.at + len(text); end <= len(s.in) && string(s.in[s.at:end]) == text {
		s.at = end
		return true
	}
	return false
}

// scanned is what is known of a value.
type scanned struct {
	kind    kind
	text    []byte // of a string without escapes, nil of one with some
	strings bool   // an array of nothing but strings
	minus   bool   // a number below 0
}

// action reads an action that needs no mending: see doc.action.
func (s *scanner) action() bool {
	type member struct {
		name  []byte
		value scanned
	}
	var few [12]member // no known kind has more than 4
	count := 0
	members := func(name []byte, v scanned) bool {
		if count == len(few) {
			return false
		}
		few[count] = member{name, v}
		count++
		return true
	}
	if !s.object(2, members) {
		return false
	}
	find := func(name string) *scanned {
		for i := range few[:count] {
			if string(few[i].name) == name {
				return &few[i].value
			}
		}
		return nil
	}
	k := find("kind")
	if k == nil || k.text == nil {
		return false
	}
	for _, m := range membersOf(k.text) {
		switch v := find(m.name); {
		case v == nil && m.optional:
		case v == nil,
			m.want == wantString && v.kind != kindString,
			m.want == wantUint64 && (v.kind != kindNumber || v.minus),
			m.want == wantStrings && !v.strings:
			return false
		}
	}
	return string(k.text) != "custom" || find("payload") != nil
}

// value reads any value on the given level.
func (s *scanner) value(level int) (v scanned, ok bool) {
	if s.at >= len(s.in) || level > scanDepth {
		return v, false
	}
	switch c := s.in[s.at]; {
	case c == '"':
		v.kind = kindString
		v.text, ok = s.str()
		return v, ok
	case c == '{':
		v.kind = kindObject
		return v, s.object(level, nil)
	case c == '[':
		v.kind = kindArray
		v.strings, ok = s.array(level)
		return v, ok
	case c == 't':
		v.kind = kindTrue
		return v, s.skip("true")
	case c == 'f':
		v.kind = kindFalse
		return v, s.skip("false")
	case c == 'n':
		v.kind = kindNull
		return v, s.skip("null")
	}
	v.kind = kindNumber
	v.minus, ok = s.integer()
	return v, ok
}

// object reads an object whose member names ascend, and tells member of each.
func (s *scanner) object(level int, member func(name []byte, v scanned) bool) bool {
	if !s.skip("{") {
		return false
	}
	if s.skip("}") {
		return true
	}
	var last []byte
	for {
		name, plain := s.plain()
		if !plain || last != nil && bytes.Compare(last, name) >= 0 || !s.skip(":") {
			return false
		}
		last = name
		v, ok := s.value(level + 1)
		if !ok || member != nil && !member(name, v) {
			return false
		}
		if s.skip("}") {
			return true
		}
		if !s.skip(",") {
			return false
		}
	}
}

// array reads an array and tells whether it holds strings only.
func (s *scanner) array(level int) (strings, ok bool) {
	if s.at++; s.skip("]") {
		return true, true
	}
	for strings = true; ; {
		v, ok := s.value(level + 1)
		if !ok {
			return false, false
		}
		strings = strings && v.kind == kindString
		if s.skip("]") {
			return strings, true
		}
		if !s.skip(",") {
			return false, false
		}
	}
}

// integer reads an integer that stands as it is written. What follows it is no
// part of a number, or nobody will take it.
func (s *scanner) integer() (minus, ok bool) {
	minus = s.skip("-")
	from := s.at
	s.at = skipDigits(s.in, from)
	digits := s.at - from
	return minus, 0 < digits && digits <= 18 && (s.in[from] != '0' || digits == 1 && !minus)
}

// plain reads a string without escapes. The text is never nil then.
func (s *scanner) plain() (text []byte, ok bool) {
	if s.at >= len(s.in) || s.in[s.at] != '"' {
		return nil, false
	}
	text, ok = s.str()
	return text, ok && text != nil
}

// str reads a string at its opening quote. The text is nil if it has escapes.
func (s *scanner) str() (text []byte, ok bool) {
	from, high, escapes := s.at+1, byte(0), false
	for i := from; i < len(s.in); i++ {
		c := s.in[i]
		if c > '\\' || ' ' <= c && c != '"' && c != '\\' {
			high |= c
			continue
		}
		switch {
		case c == '"':
			if text = s.in[from:i]; high >= utf8.RuneSelf && !utf8.Valid(text) {
				return nil, false
			}
			if s.at = i + 1; escapes {
				return nil, true
			}
			return text, true
		case c == '\\':
			size := canonicalEscape(s.in[i:])
			if size == 0 {
				return nil, false
			}
			i += size - 1
			escapes = true
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// canonicalEscape returns the length of the escape that text begins with, 0 if
// appendEscaped would not have written it.
func canonicalEscape(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return 0
	}
	r, ok := hex4(text, 2)
	var written [6]byte
	if !ok || r >= ' ' || !bytes.HasPrefix(text, appendEscaped(written[:0], byte(r))) {
		return 0
	}
	return 6
}
