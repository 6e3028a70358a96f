package abi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The frame of a batch, little-endian, offsets from its first byte:
//
//	header   64 bytes   magic u32 "AHB1", header size u16, entry size u16,
//	                    count u32, attempt u32, batch id u64, first seq u64,
//	                    payload offset u32, payload length u32, total u32, 0 u32, queue id 16 bytes
//	index    count x 200 bytes, see the constants entry...
//	strings  id, agent, type, timestamp, key id, level of every event
//	payload  the canonical JSON of every event, each followed by one line feed
//
// The two sizes are the least there are. A later version of the ABI may make header
// and entries larger; a reader goes by the sizes in the header and ignores what it
// does not know, and refuses smaller ones.
const (
	frameMagic = 0x31424841 // "AHB1"
	headerSize = 64
	entrySize  = 200

	headerMagic      = 0
	headerHeaderSize = 4 // u16, as the next
	headerEntrySize  = 6
	headerCount      = 8
	headerAttempt    = 12
	headerBatchID    = 16 // u64, as the next
	headerFirstSeq   = 24
	headerPayload    = 32 // offset u32, length u32
	headerTotal      = 40
	headerQueue      = 48

	entrySeq       = 0
	entryID        = 8 // seven spans of (offset u32, length u32)
	entryAgent     = 16
	entryType      = 24
	entryTimestamp = 32
	entryKeyID     = 40
	entryLevel     = 48
	entryPayload   = 56
	entryFlags     = 64
	entryPayHash   = 72
	entryDigest    = 104
	entrySignature = 136
)

const (
	flagSigned = 1 << iota
	flagMinted
)

// MaxFrame is the largest frame in bytes: offsets are 32 bits wide, and a
// guest's memory is smaller still.
const MaxFrame = 1 << 30

// Batch is what one delivery hands over.
type Batch struct {
	// ID is the same for every attempt at the same batch.
	ID uint64
	// Attempt is 1 for the first delivery.
	Attempt uint32
	// Queue is the id of the queue that the positions belong to (UUID bytes).
	Queue  [16]byte
	Events []Event
}

// Size returns the number of bytes of the batch's frame.
func (b *Batch) Size() int {
	n := headerSize
	for i := range b.Events {
		n += eventSize(&b.Events[i])
	}
	return n
}

func eventSize(e *Event) int {
	return entrySize + len(e.ID) + len(e.AgentID) + len(e.EventType) + len(e.Timestamp) +
		len(e.KeyID) + len(e.AttestLevel) + len(e.Payload) + 1
}

// Encode writes the batch's frame into dst, which must have at least
// [Batch.Size] bytes, and returns how many it wrote. It allocates nothing.
func (b *Batch) Encode(dst []byte) int {
	le := binary.LittleEndian
	strings := headerSize + len(b.Events)*entrySize
	payload := strings
	for i := range b.Events {
		e := &b.Events[i]
		payload += len(e.ID) + len(e.AgentID) + len(e.EventType) + len(e.Timestamp) + len(e.KeyID) + len(e.AttestLevel)
	}
	first, payloadStart := uint64(0), payload
	if len(b.Events) > 0 {
		first = b.Events[0].Seq
	}
	for i := range b.Events {
		e := &b.Events[i]
		x := dst[headerSize+i*entrySize:][:entrySize]
		clear(x)
		le.PutUint64(x[entrySeq:], e.Seq)
		put := func(at int, s string) {
			le.PutUint32(x[at:], uint32(strings))
			le.PutUint32(x[at+4:], uint32(len(s)))
			strings += copy(dst[strings:], s)
		}
		put(entryID, e.ID)
		put(entryAgent, e.AgentID)
		put(entryType, e.EventType)
		put(entryTimestamp, e.Timestamp)
		put(entryKeyID, e.KeyID)
		put(entryLevel, e.AttestLevel)
		le.PutUint32(x[entryPayload:], uint32(payload))
		le.PutUint32(x[entryPayload+4:], uint32(len(e.Payload)))
		payload += copy(dst[payload:], e.Payload)
		dst[payload] = '\n'
		payload++
		var flags uint32
		if e.Signature != nil {
			flags |= flagSigned
			copy(x[entrySignature:], e.Signature)
		}
		if e.Minted {
			flags |= flagMinted
		}
		le.PutUint32(x[entryFlags:], flags)
		copy(x[entryPayHash:], e.PayloadHash[:])
		copy(x[entryDigest:], e.Digest[:])
	}
	h := dst[:headerSize]
	clear(h)
	le.PutUint32(h[headerMagic:], frameMagic)
	le.PutUint16(h[headerHeaderSize:], headerSize)
	le.PutUint16(h[headerEntrySize:], entrySize)
	le.PutUint32(h[headerCount:], uint32(len(b.Events)))
	le.PutUint32(h[headerAttempt:], b.Attempt)
	le.PutUint64(h[headerBatchID:], b.ID)
	le.PutUint64(h[headerFirstSeq:], first)
	le.PutUint32(h[headerPayload:], uint32(payloadStart))
	le.PutUint32(h[headerPayload+4:], uint32(payload-payloadStart))
	le.PutUint32(h[headerTotal:], uint32(payload))
	copy(h[headerQueue:], b.Queue[:])
	return payload
}

// Resize returns a frame that [Batch.Encode] wrote with a header and entries of
// other sizes in bytes: as a later version of the ABI writes them, with junk in
// what this one does not know, or cut off. For tests of what reads frames.
func Resize(frame []byte, header, entry int, junk byte) []byte {
	le := binary.LittleEndian
	n := int(le.Uint32(frame[headerCount:]))
	index := headerSize + n*entrySize
	more := header + n*entry - index
	part := func(dst, b []byte, size int) []byte {
		dst = append(dst, b[:min(size, len(b))]...)
		return append(dst, bytes.Repeat([]byte{junk}, max(0, size-len(b)))...)
	}
	h := bytes.Clone(frame[:headerSize])
	le.PutUint16(h[headerHeaderSize:], uint16(header))
	le.PutUint16(h[headerEntrySize:], uint16(entry))
	le.PutUint32(h[headerPayload:], uint32(int(le.Uint32(h[headerPayload:]))+more))
	le.PutUint32(h[headerTotal:], uint32(len(frame)+more))
	out := part(make([]byte, 0, len(frame)+max(0, more)), h, header)
	for i := range n {
		x := bytes.Clone(frame[headerSize+i*entrySize:][:entrySize])
		for at := entryID; at <= entryPayload; at += 8 {
			le.PutUint32(x[at:], uint32(int(le.Uint32(x[at:]))+more))
		}
		out = part(out, x, entry)
	}
	return append(out, frame[index:]...)
}

// ErrFrame is wrapped by every error of [Parse].
var ErrFrame = errors.New("malformed batch frame")

// View reads a frame in place; it stays valid as long as the bytes do.
type View struct {
	raw           []byte
	count         int
	header, entry int // their sizes in bytes
}

// Parse checks a frame and returns a view of it. Every span of every event
// lies within raw, behind the index, when Parse succeeds. The sizes of the header
// and of an entry are the frame's own; smaller ones than this package knows are an
// error, and the bytes beyond those are ignored.
func Parse(raw []byte) (View, error) {
	le := binary.LittleEndian
	if len(raw) < headerSize {
		return View{}, fmt.Errorf("%w: %d bytes, the header alone has %d", ErrFrame, len(raw), headerSize)
	}
	if m := le.Uint32(raw[headerMagic:]); m != frameMagic {
		return View{}, fmt.Errorf("%w: magic %#08x, wanted %#08x", ErrFrame, m, uint32(frameMagic))
	}
	header, entry := uint64(le.Uint16(raw[headerHeaderSize:])), uint64(le.Uint16(raw[headerEntrySize:]))
	if header < headerSize || entry < entrySize {
		return View{}, fmt.Errorf("%w: header of %d bytes and entries of %d, wanted at least %d and %d",
			ErrFrame, header, entry, headerSize, entrySize)
	}
	n, total := uint64(le.Uint32(raw[headerCount:])), uint64(le.Uint32(raw[headerTotal:]))
	if total != uint64(len(raw)) {
		return View{}, fmt.Errorf("%w: says it has %d bytes, there are %d", ErrFrame, total, len(raw))
	}
	index := header + n*entry // where it ends
	if index > total {
		return View{}, fmt.Errorf("%w: an index of %d entries does not fit into %d bytes", ErrFrame, n, total)
	}
	po, pl := uint64(le.Uint32(raw[headerPayload:])), uint64(le.Uint32(raw[headerPayload+4:]))
	if po < index || po+pl != total {
		return View{}, fmt.Errorf("%w: payload region %d+%d does not end the frame of %d bytes", ErrFrame, po, pl, total)
	}
	v := View{raw: raw, count: int(n), header: int(header), entry: int(entry)}
	for i := range v.count {
		x := v.entryAt(i)
		for at := entryID; at <= entryPayload; at += 8 {
			off, l := uint64(le.Uint32(x[at:])), uint64(le.Uint32(x[at+4:]))
			end := off + l
			if at == entryPayload {
				end++ // its line feed
			}
			if off < index || end > total {
				return View{}, fmt.Errorf("%w: event %d: span %d+%d lies outside the frame", ErrFrame, i, off, l)
			}
		}
	}
	return v, nil
}

func (v View) entryAt(i int) []byte { return v.raw[v.header+i*v.entry:][:entrySize] }

// Len returns the number of events.
func (v View) Len() int { return v.count }

// BatchID returns the batch's id, the same for every attempt.
func (v View) BatchID() uint64 { return binary.LittleEndian.Uint64(v.raw[headerBatchID:]) }

// Attempt returns 1 for the first delivery of this batch.
func (v View) Attempt() uint32 { return binary.LittleEndian.Uint32(v.raw[headerAttempt:]) }

// Queue returns the id of the queue that the positions belong to, 16 bytes.
func (v View) Queue() []byte { return v.raw[headerQueue:headerSize] }

// Lines returns the payload region: one canonical JSON event per line.
func (v View) Lines() []byte { return v.raw[binary.LittleEndian.Uint32(v.raw[headerPayload:]):] }

// At returns event i, 0 <= i < Len.
func (v View) At(i int) EventView { return EventView{raw: v.raw, x: v.entryAt(i)} }

// EventView reads one event of a frame in place. The slices it returns are
// parts of the frame and must not be changed or kept beyond the delivery.
type EventView struct{ raw, x []byte }

func (e EventView) span(at int) []byte {
	off := binary.LittleEndian.Uint32(e.x[at:])
	return e.raw[off : off+binary.LittleEndian.Uint32(e.x[at+4:])]
}

// Seq returns the event's position in the queue.
func (e EventView) Seq() uint64 { return binary.LittleEndian.Uint64(e.x[entrySeq:]) }

// ID returns the idempotency key.
func (e EventView) ID() []byte { return e.span(entryID) }

// AgentID returns who was refused.
func (e EventView) AgentID() []byte { return e.span(entryAgent) }

// EventType returns for example governance.refusal.
func (e EventView) EventType() []byte { return e.span(entryType) }

// Timestamp returns the RFC 3339 text.
func (e EventView) Timestamp() []byte { return e.span(entryTimestamp) }

// KeyID returns the name of the signing key, empty for an unsigned event.
func (e EventView) KeyID() []byte { return e.span(entryKeyID) }

// AttestLevel returns the attestation level.
func (e EventView) AttestLevel() []byte { return e.span(entryLevel) }

// Payload returns the canonical JSON without its line feed.
func (e EventView) Payload() []byte { return e.span(entryPayload) }

// Minted tells that the timestamp was stamped by the host.
func (e EventView) Minted() bool {
	return binary.LittleEndian.Uint32(e.x[entryFlags:])&flagMinted != 0
}

// PayloadHash returns the SHA-256 of Payload, 32 bytes.
func (e EventView) PayloadHash() []byte { return e.x[entryPayHash : entryPayHash+HashSize] }

// Digest returns the event digest, 32 bytes.
func (e EventView) Digest() []byte { return e.x[entryDigest : entryDigest+HashSize] }

// Signature returns 64 bytes, or nil for an unsigned event.
func (e EventView) Signature() []byte {
	if binary.LittleEndian.Uint32(e.x[entryFlags:])&flagSigned == 0 {
		return nil
	}
	return e.x[entrySignature : entrySignature+SignatureSize]
}
