package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Sizes of SQLite's log in bytes: https://www.sqlite.org/fileformat2.html#walformat
const (
	walHeader      = 32
	walFrameHeader = 24
	walMagic       = 0x377f0682 // the lowest bit tells the byte order of checksums
)

// walFound is what a log holds.
type walFound struct {
	// frames is how many of its frames SQLite reads: those up to the last commit
	// whose checksums are right.
	frames int
	// unread tells what SQLite does not read of it: it stops at the first frame
	// whose checksum is wrong and says nothing. Frames of the same generation
	// behind it, a commit among them, are rows that were damaged, or a last
	// transaction that a power cut tore before it was acknowledged; the log does
	// not tell the two apart. "" if nothing is left out.
	unread string
}

// readWAL reads the log in a file; no file is an empty log.
func readWAL(path string) (walFound, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return walFound{}, nil
	}
	if err != nil {
		return walFound{}, err
	}
	found, err := scanWAL(bufio.NewReaderSize(f, 1<<16))
	if err := errors.Join(err, f.Close()); err != nil {
		return walFound{}, fmt.Errorf("read log %s: %w", path, err)
	}
	return found, nil
}

// walMissing returns the log's name if the database at path is written with one: a
// copy without it lacks what was not written back yet. One that was closed has none
// either. "" is a database without a log, or too short to be one.
func walMissing(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	var h [20]byte // two of its last bytes are the versions to write and to read with
	n, err := io.ReadFull(f, h[:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read database %s: %w", path, err)
	}
	if n < len(h) || h[18] != 2 {
		return "", nil
	}
	return path + "-wal", nil
}

func scanWAL(r io.Reader) (found walFound, err error) {
	be := binary.BigEndian
	var h [walHeader]byte
	if n, err := io.ReadFull(r, h[:]); err != nil {
		switch {
		case err == io.EOF:
			return found, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			found.unread = fmt.Sprintf("the log beside the file ends within its header, after %d bytes", n)
			return found, nil
		}
		return found, err
	}
	magic, page := be.Uint32(h[:]), be.Uint32(h[8:])
	var order binary.ByteOrder = binary.LittleEndian
	if magic&1 != 0 {
		order = be
	}
	sum := walSum{order: order}
	sum.add(h[:24])
	if magic&^1 != walMagic || sum != (walSum{order, be.Uint32(h[24:]), be.Uint32(h[28:])}) || page < 512 || page > 65536 {
		found.unread = "the header of the log beside the file is damaged, so none of the log was read"
		return found, nil
	}
	frame := make([]byte, walFrameHeader+int(page))
	sound, frames, unread, commits := true, 0, 0, 0
	for {
		if _, err := io.ReadFull(r, frame); err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		} else if err != nil {
			return found, err
		}
		if string(frame[8:16]) != string(h[16:24]) {
			sound = false // left over from an older generation, or damaged
			continue
		}
		if sound {
			sum.add(frame[:8])
			sum.add(frame[walFrameHeader:])
			if sum == (walSum{order, be.Uint32(frame[16:]), be.Uint32(frame[20:])}) {
				if frames++; be.Uint32(frame[4:]) != 0 {
					found.frames = frames
				}
				continue
			}
			sound = false
		}
		unread++
		if be.Uint32(frame[4:]) != 0 {
			commits++
		}
	}
	if commits > 0 {
		found.unread = fmt.Sprintf("the log beside the file has a damaged frame, and behind it %d frames with %d commits that were not read", unread, commits)
	}
	return found, nil
}

// walSum is SQLite's checksum of its log.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

// add sums b, a multiple of eight bytes.
func (w *walSum) add(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		w.s0 += w.order.Uint32(b) + w.s1
		w.s1 += w.order.Uint32(b[4:]) + w.s0
	}
}
