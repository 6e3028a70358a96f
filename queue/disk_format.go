package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unsafe"
)

// The layouts are described at the top of disk.go.
const (
	metaMagic    = "AQMETA\x00\x01"
	slotMagic    = "AQSLOT\x00\x01"
	segmentMagic = "AQSEG\x00\x00\x01"
	frameMagic   = 0x31425141 // "AQB1"

	metaSize          = 64
	slotSize          = 256
	slotDistance      = 4096
	refusedAt         = 176 // in a slot
	refusedSize       = 32
	segmentHeaderSize = 512
	frameHeaderSize   = 48
	frameAlign        = 8
	framePad          = 0x5a
	sectorSize        = 512
	pageSize          = 4096 // of the page cache; larger ones are cut within
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// seal puts the CRC of everything before it into the last four bytes.
func sealBlock(b []byte) { le.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli)) }

// blockOK checks size, magic and CRC.
func blockOK(b []byte, size int, magic string) bool {
	return len(b) == size && string(b[:len(magic)]) == magic &&
		le.Uint32(b[size-4:]) == crc32.Checksum(b[:size-4], castagnoli)
}

func encodeMeta(id [16]byte) []byte {
	b := make([]byte, metaSize)
	copy(b, metaMagic)
	copy(b[8:], id[:])
	sealBlock(b)
	return b
}

func decodeMeta(b []byte) (id [16]byte, err error) {
	if len(b) >= 8 && bytes.Equal(b[:7], []byte(metaMagic)[:7]) && b[7] != metaMagic[7] {
		return id, fmt.Errorf("%w, or written by another version: format %d, this program knows %d", ErrDamaged, b[7], metaMagic[7])
	}
	if !blockOK(b, metaSize, metaMagic) {
		return id, ErrDamaged
	}
	return [16]byte(b[8:24]), nil
}

// slot is the content of a slot file.
type slot struct {
	gen      uint64
	seq      Seq
	required bool
	name     string
	refused  refusedSlots // of the mark
}

// refusedSlots is what a mark keeps of refusals: those that no record tells, and
// those that a record tells which may not be durable.
type refusedSlots [2]refusedSlot

type refusedSlot struct {
	count       uint64
	first, last int64 // Unix ns
	before      Seq   // nothing tells them if the log ends before this; 0: in any case
}

func (s slot) encode(id [16]byte) []byte {
	b := make([]byte, slotSize)
	copy(b, slotMagic)
	copy(b[8:], id[:])
	le.PutUint64(b[24:], s.gen)
	le.PutUint64(b[32:], uint64(s.seq))
	if s.required {
		b[40] = 1
	}
	b[41] = byte(len(s.name))
	copy(b[42:], s.name)
	for i, r := range s.refused {
		at := refusedAt + i*refusedSize
		le.PutUint64(b[at:], r.count)
		le.PutUint64(b[at+8:], uint64(r.first))
		le.PutUint64(b[at+16:], uint64(r.last))
		le.PutUint64(b[at+24:], uint64(r.before))
	}
	sealBlock(b)
	return b
}

func decodeSlot(b []byte, id [16]byte) (slot, bool) {
	if !blockOK(b, slotSize, slotMagic) || [16]byte(b[8:24]) != id || b[41] > MaxID {
		return slot{}, false
	}
	s := slot{
		gen: le.Uint64(b[24:]), seq: Seq(le.Uint64(b[32:])), required: b[40]&1 != 0,
		name: string(b[42 : 42+int(b[41])]),
	}
	for i := range s.refused {
		at := refusedAt + i*refusedSize
		s.refused[i] = refusedSlot{
			count: le.Uint64(b[at:]), first: int64(le.Uint64(b[at+8:])), last: int64(le.Uint64(b[at+16:])),
			before: Seq(le.Uint64(b[at+24:])),
		}
	}
	return s, true
}

// segmentHeader is what a segment begins with.
type segmentHeader struct {
	first   Seq
	batch   uint64
	created int64 // Unix ns
	salt    uint32
}

func (h segmentHeader) encode(id [16]byte) []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	copy(b[8:], id[:])
	le.PutUint64(b[24:], uint64(h.first))
	le.PutUint64(b[32:], h.batch)
	le.PutUint64(b[40:], uint64(h.created))
	le.PutUint32(b[48:], h.salt)
	sealBlock(b)
	return b
}

func decodeSegmentHeader(b []byte, id [16]byte) (segmentHeader, error) {
	if !blockOK(b, segmentHeaderSize, segmentMagic) {
		return segmentHeader{}, errors.New("the header is not right")
	}
	if [16]byte(b[8:24]) != id {
		return segmentHeader{}, errors.New("the segment belongs to another queue")
	}
	return segmentHeader{
		first: Seq(le.Uint64(b[24:])), batch: le.Uint64(b[32:]),
		created: int64(le.Uint64(b[40:])), salt: le.Uint32(b[48:]),
	}, nil
}

// frameHeader is what a frame begins with.
type frameHeader struct {
	body    int
	batch   uint64
	first   Seq
	at      int64
	events  int
	bodyCRC uint32
}

func (h frameHeader) size() int64 { return frameHeaderSize + int64(h.body) }
func (h frameHeader) last() Seq   { return h.first + Seq(h.events) - 1 }

func decodeFrameHeader(b []byte, salt uint32) (frameHeader, bool) {
	if le.Uint32(b) != frameMagic || le.Uint32(b[44:]) != crc32.Update(salt, castagnoli, b[:44]) {
		return frameHeader{}, false
	}
	return frameHeader{
		body: int(le.Uint32(b[4:])), batch: le.Uint64(b[8:]), first: Seq(le.Uint64(b[16:])),
		at: int64(le.Uint64(b[24:])), events: int(le.Uint32(b[32:])), bodyCRC: le.Uint32(b[36:]),
	}, true
}

// sealFrame pads the body in b and fills in the header before it.
func sealFrame(b []byte, batch uint64, first Seq, at int64, events int, salt uint32) []byte {
	for n := frameAlign - len(b)%frameAlign; n > 0; n-- {
		b = append(b, framePad)
	}
	body := b[frameHeaderSize:]
	le.PutUint32(b, frameMagic)
	le.PutUint32(b[4:], uint32(len(body)))
	le.PutUint64(b[8:], batch)
	le.PutUint64(b[16:], uint64(first))
	le.PutUint64(b[24:], uint64(at))
	le.PutUint32(b[32:], uint32(events))
	le.PutUint32(b[36:], crc32.Update(salt, castagnoli, body))
	le.PutUint32(b[40:], 0)
	le.PutUint32(b[44:], crc32.Update(salt, castagnoli, b[:44]))
	return b
}

// recordSize is how many bytes the event takes in a frame.
func recordSize(ev Event) int {
	return uvarintSize(len(ev.ID)) + uvarintSize(len(ev.Payload)) + len(ev.ID) + len(ev.Payload)
}

func uvarintSize(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

func appendRecord(b []byte, ev Event) []byte {
	b = binary.AppendUvarint(b, uint64(len(ev.ID)))
	b = binary.AppendUvarint(b, uint64(len(ev.Payload)))
	b = append(b, ev.ID...)
	return append(b, ev.Payload...)
}

// cutRecord takes the first record off body. The entry refers to body's memory,
// which is never changed afterwards: an entry costs no allocation.
func cutRecord(body []byte) (e Entry, rest []byte, ok bool) {
	id, n := binary.Uvarint(body)
	if n <= 0 || id > MaxID {
		return Entry{}, nil, false
	}
	size, m := binary.Uvarint(body[n:])
	body = body[n+max(m, 0):]
	if m <= 0 || size > uint64(len(body)) || id+size > uint64(len(body)) {
		return Entry{}, nil, false
	}
	e.ID = unsafe.String(unsafe.SliceData(body), int(id))
	e.Payload = body[id : id+size : id+size]
	return e, body[id+size:], true
}
