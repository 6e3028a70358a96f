package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// tail is what lies in the last segment from the first frame on that could not
// be read.
type tail struct {
	empty bool // nothing but zeros
	torn  bool // what one interrupted write may leave
	why   string
}

// judgeTail looks at the bytes from off, where batch would stand, to the end of
// the file. The argument is at the top of disk.go.
func judgeTail(f diskFile, salt uint32, off, size int64, batch uint64) (tail, error) {
	lastByte, later, err := scanTail(f, salt, off, size, batch)
	if err != nil {
		return tail{}, err
	}
	if lastByte < 0 {
		return tail{empty: true}, nil
	}
	if later >= 0 {
		return tail{why: fmt.Sprintf("and a whole frame follows at %d", later)}, nil
	}
	head := make([]byte, frameHeaderSize)
	if err := readZeroExtended(f, head, off); err != nil {
		return tail{}, err
	}
	h, ok := decodeFrameHeader(head, salt)
	if !ok {
		// Lost with its sector, or cut within.
		if lastByte < off+frameHeaderSize || sectorMissing(head, off) {
			return tail{torn: true}, nil
		}
		return tail{why: "and it is not cut off either"}, nil
	}
	end := off + h.size()
	switch {
	case h.batch != batch:
		return tail{why: fmt.Sprintf("and it is batch %d, want %d", h.batch, batch)}, nil
	case lastByte >= end:
		return tail{why: fmt.Sprintf("and bytes that belong to nothing follow at %d", lastByte)}, nil
	case lastByte < end-1:
		return tail{torn: true}, nil
	}
	all := make([]byte, h.size()) // fits: its last byte is in the file
	if err := readZeroExtended(f, all, off); err != nil {
		return tail{}, err
	}
	if sectorMissing(all, off) {
		return tail{torn: true}, nil
	}
	return tail{why: "and it is not cut off"}, nil
}

// sectorMissing says whether the part of b, which begins at off, in some sector
// is all zeros.
func sectorMissing(b []byte, off int64) bool {
	for len(b) > 0 {
		n := min(sectorSize-int(off%sectorSize), len(b))
		if allZero(b[:n]) {
			return true
		}
		b, off = b[n:], off+int64(n)
	}
	return false
}

var zeros [4096]byte

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// scanTail finds the last byte that is not zero, and the first valid header,
// behind off, of a batch later than the given one; -1 for none.
func scanTail(f diskFile, salt uint32, off, size int64, batch uint64) (lastByte, later int64, err error) {
	lastByte, later = -1, -1
	buf := make([]byte, chunkBytes+frameHeaderSize) // chunks overlap by a header
	for from := off; from < size; from += chunkBytes {
		b := buf[:min(int64(len(buf)), size-from)]
		if err := readZeroExtended(f, b, from); err != nil {
			return 0, 0, err
		}
		if allZero(b) {
			continue
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != 0 {
				lastByte = max(lastByte, from+int64(i))
				break
			}
		}
		for i := 0; later < 0 && i+frameHeaderSize <= len(b); i += frameAlign {
			if h, ok := decodeFrameHeader(b[i:], salt); ok && from+int64(i) > off && h.batch > batch {
				later = from + int64(i)
			}
		}
	}
	return lastByte, later, nil
}

// readZeroExtended reads as if the file went on with zeros for ever.
func readZeroExtended(f diskFile, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(b[n:])
	return nil
}
