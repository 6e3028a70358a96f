package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrRecord is wrapped by every error of [DecodeRecord].
var ErrRecord = errors.New("malformed event record")

const recordVersion = 1

// AppendRecord appends the accepted part of e, all but ID and Seq, in the
// form in which a queue stores it: version u8 (1), flags u8 (1: timestamp
// minted), then agent id, event type and timestamp, each with its length as
// a u16 before it (little-endian), and the payload to the end.
func AppendRecord(dst []byte, e *Event) []byte {
	var flags byte
	if e.Minted {
		flags = 1
	}
	dst = append(dst, recordVersion, flags)
	for _, s := range [...]string{e.AgentID, e.EventType, e.Timestamp} {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(s)))
		dst = append(dst, s...)
	}
	return append(dst, e.Payload...)
}

// DecodeRecord is the inverse of [AppendRecord]. The event's Payload is a
// part of rec.
func DecodeRecord(id string, seq uint64, rec []byte) (Event, error) {
	bad := func(why string) (Event, error) {
		return Event{}, fmt.Errorf("%w: event %q at queue position %d: %s", ErrRecord, id, seq, why)
	}
	if len(rec) < 2 || rec[0] != recordVersion || rec[1] > 1 {
		return bad("unknown version or flags")
	}
	e := Event{ID: id, Seq: seq, Minted: rec[1] == 1}
	rec = rec[2:]
	// One string holds the three texts, so that an event costs one
	// allocation here and not three.
	var lens [3]int
	n := 0
	for i := range lens {
		if len(rec) < n+2 {
			return bad("cut short")
		}
		lens[i] = int(binary.LittleEndian.Uint16(rec[n:]))
		n += 2 + lens[i]
		if len(rec) < n {
			return bad("cut short")
		}
	}
	head := string(rec[:n])
	for i, p := range [...]*string{&e.AgentID, &e.EventType, &e.Timestamp} {
		*p = head[2 : 2+lens[i]]
		head = head[2+lens[i]:]
	}
	e.Payload = rec[n:]
	return e, nil
}
