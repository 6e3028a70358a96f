package abi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

func sample() *Batch {
	sig := bytes.Repeat([]byte{7}, SignatureSize)
	return &Batch{ID: 42, Attempt: 3, Queue: [16]byte{1, 15: 2}, Events: []Event{
		{ID: "a", AgentID: "agent:alice", EventType: "governance.refusal", Timestamp: "2026-01-01T00:00:00+00:00",
			Payload: []byte(`{"n":1}`), Seq: 9, PayloadHash: [32]byte{1}, Digest: [32]byte{2},
			Signature: sig, AttestLevel: AttestDaemonSigned, KeyID: "k1"},
		{ID: "b", AgentID: "ü", EventType: "governance.warn", Timestamp: "1970-01-01T00:00:00+00:00",
			Payload: []byte(`{}`), Seq: 10, AttestLevel: AttestUnsigned, Minted: true},
	}}
}

func TestFrameRoundTrip(t *testing.T) {
	b := sample()
	raw := make([]byte, b.Size())
	if n := b.Encode(raw); n != len(raw) {
		t.Fatalf("Encode wrote %d bytes, Size said %d", n, len(raw))
	}
	sameAs(t, b, raw)
}

// TestFrameOfAnotherVersion: larger headers and entries are read by the sizes in the
// header, whatever the bytes are that this version does not know; smaller ones are
// refused.
func TestFrameOfAnotherVersion(t *testing.T) {
	b := sample()
	raw := make([]byte, b.Size())
	b.Encode(raw)
	for _, header := range []int{headerSize, headerSize + 1, headerSize + 8, 1<<16 - 1} {
		for _, entry := range []int{entrySize, entrySize + 1, entrySize + 8, 1<<16 - 1} {
			for _, junk := range []byte{0, 1, 0xff} {
				sameAs(t, b, Resize(raw, header, entry, junk))
			}
		}
	}
	for _, size := range [][2]int{{headerSize, entrySize - 1}, {headerSize, entrySize - 8}, {headerSize - 8, entrySize}, {headerSize, 0}, {headerSize + 8, entrySize - 1}} {
		if _, err := Parse(Resize(raw, size[0], size[1], 0xff)); !errors.Is(err, ErrFrame) {
			t.Errorf("header of %d, entries of %d: %v", size[0], size[1], err)
		}
	}
}

// sameAs reads a frame and compares it with its batch, [sample].
func sameAs(t *testing.T, b *Batch, raw []byte) {
	t.Helper()
	v, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if v.Len() != 2 || v.BatchID() != 42 || v.Attempt() != 3 || !bytes.Equal(v.Queue(), b.Queue[:]) {
		t.Fatalf("header: %d events, batch %d, attempt %d", v.Len(), v.BatchID(), v.Attempt())
	}
	if got := string(v.Lines()); got != "{\"n\":1}\n{}\n" {
		t.Fatalf("payload region %q", got)
	}
	for i, e := range b.Events {
		w := v.At(i)
		got := Event{ID: string(w.ID()), AgentID: string(w.AgentID()), EventType: string(w.EventType()),
			Timestamp: string(w.Timestamp()), KeyID: string(w.KeyID()), AttestLevel: string(w.AttestLevel())}
		want := Event{ID: e.ID, AgentID: e.AgentID, EventType: e.EventType,
			Timestamp: e.Timestamp, KeyID: e.KeyID, AttestLevel: e.AttestLevel}
		if got.ID != want.ID || got.AgentID != want.AgentID || got.EventType != want.EventType ||
			got.Timestamp != want.Timestamp || got.KeyID != want.KeyID || got.AttestLevel != want.AttestLevel {
			t.Errorf("event %d: texts %+v, wanted %+v", i, got, want)
		}
		if w.Seq() != e.Seq || w.Minted() != e.Minted || !bytes.Equal(w.Payload(), e.Payload) ||
			!bytes.Equal(w.PayloadHash(), e.PayloadHash[:]) || !bytes.Equal(w.Digest(), e.Digest[:]) ||
			!bytes.Equal(w.Signature(), e.Signature) {
			t.Errorf("event %d: binary fields differ", i)
		}
	}
	if v.At(1).Signature() != nil {
		t.Error("an unsigned event has a signature")
	}
}

func TestEncodeAllocatesNothing(t *testing.T) {
	b := sample()
	raw := make([]byte, b.Size())
	if n := testing.AllocsPerRun(100, func() { b.Encode(raw) }); n != 0 {
		t.Fatalf("Encode allocates %v times", n)
	}
}

func TestParseRefusesEveryCut(t *testing.T) {
	b := sample()
	raw := make([]byte, b.Size())
	b.Encode(raw)
	for n := range raw {
		if _, err := Parse(raw[:n]); !errors.Is(err, ErrFrame) {
			t.Fatalf("frame cut to %d of %d bytes: %v", n, len(raw), err)
		}
	}
}

// FuzzParseFrame changes frames at will: Parse refuses them, or every span it
// gives out can be read.
func FuzzParseFrame(f *testing.F) {
	b := sample()
	raw := make([]byte, b.Size())
	b.Encode(raw)
	f.Add(raw)
	f.Add(Resize(raw, headerSize+8, entrySize+24, 0xff))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		n := len(v.Lines())
		for i := range v.Len() {
			e := v.At(i)
			n += len(e.ID()) + len(e.AgentID()) + len(e.EventType()) + len(e.Timestamp()) +
				len(e.KeyID()) + len(e.AttestLevel()) + len(e.Payload()) + len(e.Signature())
		}
		if n < 0 {
			t.Fatal("negative length")
		}
	})
}

func TestRecordRoundTripAndCuts(t *testing.T) {
	for _, e := range sample().Events {
		rec := AppendRecord(nil, &e)
		got, err := DecodeRecord(e.ID, e.Seq, rec)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != e.ID || got.Seq != e.Seq || got.AgentID != e.AgentID || got.EventType != e.EventType ||
			got.Timestamp != e.Timestamp || got.Minted != e.Minted || !bytes.Equal(got.Payload, e.Payload) {
			t.Errorf("got %+v, wanted %+v", got, e)
		}
		for n := range len(rec) - len(e.Payload) {
			if _, err := DecodeRecord(e.ID, e.Seq, rec[:n]); !errors.Is(err, ErrRecord) {
				t.Fatalf("record cut to %d bytes: %v", n, err)
			}
		}
	}
}

func TestAnswerKeepsItsParts(t *testing.T) {
	for _, why := range append(Reasons(), 1<<16-1) {
		if o, r, n := SplitAnswer(Answer(Retry, why, 1<<31)); o != Retry || r != why || n != 1<<31 {
			t.Fatalf("got %v, %d, %d", o, r, n)
		}
	}
	if a := Answer(Busy, ReasonSchema, 7); a != 10<<48|4<<32|7 {
		t.Errorf("packed as %#x", a)
	}
	for o := range outcomeNames {
		if o.HostMade() != (o >= Trap) {
			t.Errorf("%v: HostMade is %v", o, o.HostMade())
		}
	}
}

// TestStatusesAreThoseOfTheText pins the numbers that README.md gives.
func TestStatusesAreThoseOfTheText(t *testing.T) {
	for want, got := range map[uint32]SQLStatus{0: SQLDone, 0x10000: SQLGuardFailed, 0x10001: SQLTooLarge,
		0x10002: SQLTimeout, 0x10003: SQLRefused, 0x10004: SQLBroken, 0x10005: SQLReplaced, 0x10006: SQLDiskFailed} {
		if uint32(got) != want {
			t.Errorf("status %#x, the text says %#x", got, want)
		}
	}
	for want, got := range map[uint32]Outcome{0: OK, 1: Partial, 2: Retry, 3: Reject, 4: Busy, 5: BadConfig, 0x100: Trap, 0x106: BadABI} {
		if uint32(got) != want {
			t.Errorf("%v is %#x, the text says %#x", got, uint32(got), want)
		}
	}
}

// TestTextHasEveryNumber: the tables of README.md have each outcome of a guest and each
// reason.
func TestTextHasEveryNumber(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for o := range outcomeNames {
		row := fmt.Sprintf("\n| %s | %d |", o, uint32(o))
		if o.HostMade() {
			row = o.String()
		}
		if !strings.Contains(string(text), row) {
			t.Errorf("no %q", row)
		}
	}
	for _, why := range Reasons() {
		if row := fmt.Sprintf("\n| %s | %d |", why, uint16(why)); !strings.Contains(string(text), row) {
			t.Errorf("no %q", row)
		}
	}
}
