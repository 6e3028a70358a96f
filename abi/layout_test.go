package abi

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// TestLayoutIsTheFrame reads an encoded frame by the listed numbers alone.
func TestLayoutIsTheFrame(t *testing.T) {
	at := map[string]uint32{}
	for _, p := range Layout() {
		if _, twice := at[p.Name]; twice {
			t.Errorf("%s is listed twice", p.Name)
		}
		at[p.Name] = p.Value
	}
	e := Event{Seq: 77, ID: "the-id", AgentID: "agent", EventType: "type", Timestamp: "time", KeyID: "key", AttestLevel: "level",
		Payload: []byte(`{"a":1}`), PayloadHash: [32]byte{1, 2}, Digest: [32]byte{3, 4}, Signature: bytes.Repeat([]byte{5}, SignatureSize), Minted: true}
	b := Batch{ID: 0x1122334455667788, Attempt: 9, Queue: [16]byte{6, 7}, Events: []Event{e, {ID: "x"}}}
	raw := make([]byte, b.Size())
	b.Encode(raw)
	le := binary.LittleEndian
	for name, want := range map[string]uint32{"HeaderMagic": at["FrameMagic"], "HeaderCount": 2, "HeaderAttempt": 9, "HeaderTotal": uint32(len(raw))} {
		if got := le.Uint32(raw[at[name]:]); got != want {
			t.Errorf("%s holds %d, wanted %d", name, got, want)
		}
	}
	for name, want := range map[string]uint32{"HeaderHeaderSize": at["HeaderSize"], "HeaderEntrySize": at["EntrySize"]} {
		if got := le.Uint16(raw[at[name]:]); uint32(got) != want {
			t.Errorf("%s holds %d, wanted %d", name, got, want)
		}
	}
	if id, seq := le.Uint64(raw[at["HeaderBatchID"]:]), le.Uint64(raw[at["HeaderFirstSeq"]:]); id != b.ID || seq != 77 {
		t.Errorf("batch %#x, first position %d", id, seq)
	}
	if q := raw[at["HeaderQueue"]:][:16]; !bytes.Equal(q, b.Queue[:]) {
		t.Errorf("queue %x", q)
	}
	span := func(from []byte) string {
		off := le.Uint32(from)
		return string(raw[off:][:le.Uint32(from[4:])])
	}
	if lines := span(raw[at["HeaderPayload"]:]); lines != "{\"a\":1}\n\n" {
		t.Errorf("payload region %q", lines)
	}
	x := raw[at["HeaderSize"]:][:at["EntrySize"]]
	for name, want := range map[string]string{"EntryID": e.ID, "EntryAgent": e.AgentID, "EntryType": e.EventType, "EntryTimestamp": e.Timestamp,
		"EntryKeyID": e.KeyID, "EntryLevel": e.AttestLevel, "EntryPayload": string(e.Payload)} {
		if got := span(x[at[name]:]); got != want {
			t.Errorf("%s holds %q, wanted %q", name, got, want)
		}
	}
	for name, want := range map[string][]byte{"EntryPayloadHash": e.PayloadHash[:], "EntryDigest": e.Digest[:], "EntrySignature": e.Signature} {
		if got := x[at[name]:][:len(want)]; !bytes.Equal(got, want) {
			t.Errorf("%s holds %x", name, got)
		}
	}
	if seq, flags := le.Uint64(x[at["EntrySeq"]:]), le.Uint32(x[at["EntryFlags"]:]); seq != 77 || flags != at["FlagSigned"]|at["FlagMinted"] {
		t.Errorf("position %d, flags %d", seq, flags)
	}
	if len(at) != 27 {
		t.Errorf("%d numbers are listed, this test reads 27", len(at))
	}
}
