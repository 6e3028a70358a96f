package queue

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	segmentSuffix = ".seg"
	// A place is remembered for every so many bytes or so much time.
	placeBytes = 256 << 10
	placeEvery = int64(10 * time.Second)
	chunkBytes = 256 << 10 // what a reader reads at once
)

// segment is one file of the log.
type segment struct {
	segmentHeader
	file string

	// Guarded by core.mu once the queue is open.
	end    int64   // its durable bytes; all bytes in one of an earlier opening
	places []place // sparse, in order, the first one is that of the first frame
}

// place is where a frame begins.
type place struct {
	first Seq
	batch uint64
	off   int64
	at    int64 // Unix ns
}

func segmentFile(first Seq) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func parseSegmentFile(name string) (Seq, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return Seq(n), err == nil
}

func newSegment(h segmentHeader) *segment {
	return &segment{
		segmentHeader: h, file: segmentFile(h.first), end: segmentHeaderSize,
		places: []place{{first: h.first, batch: h.batch, off: segmentHeaderSize, at: h.created}},
	}
}

// note remembers where a frame begins, unless the last place is near.
func (s *segment) note(p place) {
	last := &s.places[len(s.places)-1]
	if p.off == last.off {
		last.at = p.at
	}
	if p.off-last.off >= placeBytes || p.at-last.at >= placeEvery {
		s.places = append(s.places, p)
	}
}

// place is the last one remembered that is not behind seq.
func (s *segment) place(seq Seq) place {
	i := sort.Search(len(s.places), func(i int) bool { return s.places[i].first > seq })
	return s.places[max(i-1, 0)]
}

// openSegment opens a segment for reading and reads its header.
func openSegment(d diskFS, id [16]byte, name string) (diskFile, segmentHeader, error) {
	f, err := d.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, segmentHeader{}, fmt.Errorf("segment %s is missing: %w", d.Path(name), ErrDamaged)
	}
	if err != nil {
		return nil, segmentHeader{}, fmt.Errorf("open segment: %w", err)
	}
	b := make([]byte, segmentHeaderSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, segmentHeader{}, errors.Join(fmt.Errorf("read segment %s: %w", d.Path(name), err), f.Close())
	}
	h, err := decodeSegmentHeader(b[:n], id)
	if err == nil && segmentFile(h.first) != name {
		err = fmt.Errorf("the header is that of %s", segmentFile(h.first))
	}
	if err != nil {
		return nil, segmentHeader{}, errors.Join(fmt.Errorf("segment %s, offset 0: %w: %w", d.Path(name), ErrDamaged, err), f.Close())
	}
	return f, h, nil
}

// frame is one batch as it is read.
type frame struct {
	frameHeader
	body []byte
	file string // where it stands, for messages; empty: in memory
	off  int64
}

// frameReader reads one segment from frame to frame. What it hands out is not
// overwritten.
type frameReader struct {
	fs    diskFS
	f     diskFile
	seg   *segment
	salt  uint32
	next  place // the frame that comes next; its time is not known
	limit int64 // nothing is read from here on
	chunk []byte
	from  int64 // of chunk in the file
}

// read returns the next frame, all of it checked.
func (r *frameReader) read() (frame, error) {
	b, err := r.bytes(frameHeaderSize)
	if err != nil {
		return frame{}, err
	}
	h, ok := decodeFrameHeader(b, r.salt)
	switch {
	case !ok:
		return frame{}, r.bad("the frame's header is not right")
	case h.batch != r.next.batch || h.first != r.next.first:
		return frame{}, r.bad(fmt.Sprintf("the frame is batch %d at position %d, want batch %d at %d", h.batch, h.first, r.next.batch, r.next.first))
	case h.events == 0 || h.body == 0:
		return frame{}, r.bad("the frame is empty")
	}
	if b, err = r.bytes(h.size()); err != nil {
		return frame{}, err
	}
	body := b[frameHeaderSize:]
	if crc32.Update(r.salt, castagnoli, body) != h.bodyCRC {
		return frame{}, r.bad("the frame's checksum is not right")
	}
	f := frame{frameHeader: h, body: body, file: r.seg.file, off: r.next.off}
	r.next = place{first: h.last() + 1, batch: h.batch + 1, off: r.next.off + h.size()}
	return f, nil
}

// bytes returns n bytes from the next frame's beginning.
func (r *frameReader) bytes(n int64) ([]byte, error) {
	off := r.next.off
	if off < r.from || off+n > r.from+int64(len(r.chunk)) {
		if off+n > r.limit {
			return nil, r.bad(fmt.Sprintf("the frame ends at %d, the data at %d", off+n, r.limit))
		}
		// A new chunk each time: entries refer to the old ones.
		chunk := make([]byte, min(max(n, chunkBytes), r.limit-off))
		got, err := r.f.ReadAt(chunk, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read segment %s at %d: %w", r.fs.Path(r.seg.file), off, err)
		}
		r.chunk, r.from = chunk[:got], off
		if int64(got) < n {
			return nil, r.bad(fmt.Sprintf("the file ends at %d", off+int64(got)))
		}
	}
	return r.chunk[off-r.from:][:n:n], nil
}

func (r *frameReader) bad(why string) error {
	return fmt.Errorf("segment %s, offset %d: %w: %s", r.fs.Path(r.seg.file), r.next.off, ErrDamaged, why)
}
