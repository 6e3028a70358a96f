package queue

import (
	"bytes"
	"testing"
)

// Whatever the bytes are, cutting records off them neither panics nor goes on
// for ever, and what was cut off is what would have been written.
func FuzzRecords(f *testing.F) {
	b := appendRecord(nil, Event{ID: "one", Payload: []byte("payload")})
	f.Add(b)
	f.Add(appendRecord(b, Event{ID: "two"}))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 'x'})
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			e, rest, ok := cutRecord(b)
			if !ok {
				return
			}
			ev := Event{ID: e.ID, Payload: e.Payload}
			written := appendRecord(nil, ev)
			if len(written) != recordSize(ev) {
				t.Fatalf("%d bytes, recordSize says %d", len(written), recordSize(ev))
			}
			// Lengths may be written longer than needed by others, never by us.
			if cut := b[:len(b)-len(rest)]; len(cut) == len(written) && !bytes.Equal(cut, written) {
				t.Fatalf("%x was cut off, %x would be written", cut, written)
			}
			b = rest
		}
	})
}

// The formats' bytes are fixed: a change that older directories would not
// survive fails here.
func TestDiskGoldenBytes(t *testing.T) {
	id := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	if got, err := decodeMeta(encodeMeta(id)); err != nil || got != id {
		t.Errorf("meta: %x, %v", got, err)
	}
	s := slot{gen: 7, seq: 9, required: true, name: "sink"}
	if got, ok := decodeSlot(s.encode(id), id); !ok || got != s {
		t.Errorf("slot: %+v", got)
	}
	h := segmentHeader{first: 3, batch: 2, created: 5, salt: 0xdeadbeef}
	if got, err := decodeSegmentHeader(h.encode(id), id); err != nil || got != h {
		t.Errorf("segment header: %+v, %v", got, err)
	}
	b := appendRecord(make([]byte, frameHeaderSize), Event{ID: "id", Payload: []byte("pay")})
	b = sealFrame(b, 2, 3, 5, 1, 0xdeadbeef)
	want := []byte("AQB1" + "\x08\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00" + "\x03\x00\x00\x00\x00\x00\x00\x00" +
		"\x05\x00\x00\x00\x00\x00\x00\x00" + "\x01\x00\x00\x00" + "\x6a\x72\xa8\xa0" + "\x00\x00\x00\x00" + "\xb0\xbc\x4f\xb5" +
		"\x02\x03idpay\x5a")
	if !bytes.Equal(b, want) {
		t.Errorf("frame\n%x, want\n%x", b, want)
	}
}
