// Package shape writes events as the lines of JSON that sink-file and sink-http
// hand on.
//
// Guarantee: a line is a function of the event alone, so that a second delivery
// writes the same bytes, and it is valid JSON without a line feed in it. But for
// [Payload] it carries the event's id, by which readers know it again.
package shape

import (
	"encoding/hex"
	"unicode/utf8"

	"github.com/audit-host/audit-host/abi"
)

// Shapes of a line.
const (
	// Event is the payload with what the ledger has beside it: id, type, agent,
	// timestamp, hashes, and the signature over the digest.
	Event = "event"
	// Payload is the canonical JSON alone, without the id.
	Payload = "payload"
	// CloudEvents is a CloudEvent 1.0 in its JSON format, with the payload as
	// data and hashes and signature as extension attributes.
	CloudEvents = "cloudevents"
)

// Shapes lists them.
func Shapes() []string { return []string{Event, Payload, CloudEvents} }

// Append adds the event as one line, without a line feed. source is that of a
// CloudEvent. The shape is one of [Shapes].
func Append(dst []byte, e abi.EventView, shape, source string) []byte {
	switch shape {
	case Payload:
		return append(dst, e.Payload()...)
	case CloudEvents:
		return appendCloudEvent(dst, e, source)
	}
	dst = field(append(dst, '{'), "id", e.ID())
	dst = field(append(dst, ','), "event_type", e.EventType())
	dst = field(append(dst, ','), "agent_id", e.AgentID())
	dst = field(append(dst, ','), "timestamp", e.Timestamp())
	dst = hexField(append(dst, ','), "payload_sha256", e.PayloadHash())
	dst = hexField(append(dst, ','), "digest", e.Digest())
	dst = field(append(dst, ','), "attest_level", e.AttestLevel())
	if sig := e.Signature(); sig != nil {
		dst = field(append(dst, ','), "key_id", e.KeyID())
		dst = hexField(append(dst, ','), "signature", sig)
	}
	dst = append(append(dst, `,"payload":`...), e.Payload()...)
	return append(dst, '}')
}

// appendCloudEvent writes what the specification of CloudEvents 1.0 wants:
// attribute names in lower case letters and digits, and the required ones
// specversion, id, source and type.
func appendCloudEvent(dst []byte, e abi.EventView, source string) []byte {
	dst = field(append(dst, `{"specversion":"1.0",`...), "id", e.ID())
	dst = append(append(dst, `,"source":`...), Quote(nil, []byte(source))...)
	dst = field(append(dst, ','), "type", e.EventType())
	dst = field(append(dst, ','), "subject", e.AgentID())
	dst = field(append(dst, ','), "time", e.Timestamp())
	dst = hexField(append(dst, `,"datacontenttype":"application/json",`...), "digest", e.Digest())
	if sig := e.Signature(); sig != nil {
		dst = field(append(dst, ','), "keyid", e.KeyID())
		dst = hexField(append(dst, ','), "signature", sig)
	}
	dst = append(append(dst, `,"data":`...), e.Payload()...)
	return append(dst, '}')
}

func field(dst []byte, name string, value []byte) []byte {
	return Quote(append(append(append(dst, '"'), name...), '"', ':'), value)
}

func hexField(dst []byte, name string, value []byte) []byte {
	dst = append(append(append(dst, '"'), name...), '"', ':', '"')
	return append(hex.AppendEncode(dst, value), '"')
}

// Quote adds a text as a JSON string. What is no UTF-8 becomes U+FFFD.
func Quote(dst, text []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for len(text) > 0 {
		c := text[0]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRune(text)
			dst = utf8.AppendRune(dst, r)
			text = text[n:]
			continue
		}
		text = text[1:]
	}
	return append(dst, '"')
}
