package ingest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// LinesOptions configure [ReadLines].
type LinesOptions struct {
	// MaxLine is the length in bytes of the longest line that is handed on,
	// without its end; 0 stands for 1 MiB.
	MaxLine int
	// TooLong is told of each longer line: its number and its length in bytes
	// with its end. It is skipped, and reading goes on unless an error is
	// returned. Nil skips it without a word.
	TooLong func(line int, length int64) error
}

// ReadLines calls f with every line of r that is not blank, without its end, in
// order, with its number from 1. A line ends with LF or CRLF; the last one may
// have no end. The bytes are valid until f returns. Memory is bounded by
// about twice MaxLine, whatever r holds.
//
// It returns the first error of f or TooLong as it is, ctx's error between two
// lines once ctx is done, and the error of r with the line it happened in. It
// can't end a read of r that blocks.
func ReadLines(ctx context.Context, r io.Reader, o LinesOptions, f func(line int, raw []byte) error) error {
	if o.MaxLine <= 0 {
		o.MaxLine = 1 << 20
	}
	in := bufio.NewReaderSize(r, 64<<10)
	var long []byte // the beginning of a line that is larger than the buffer
	for line := 1; ; line++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		long = long[:0]
		var raw []byte
		var length int64
		var err error
		for {
			raw, err = in.ReadSlice('\n')
			length += int64(len(raw))
			if !errors.Is(err, bufio.ErrBufferFull) && length == int64(len(raw)) {
				break // all of it is in the buffer
			}
			// Two bytes more than a line may have, for its end.
			if room := o.MaxLine + 2 - len(long); room > 0 {
				long = append(long, raw[:min(room, len(raw))]...)
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				raw = long
				break
			}
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("read line %d: %w", line, err)
		}
		// What was cut off is too long with or without its end.
		tooLong := length > int64(len(raw))
		if !tooLong {
			raw = bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte{'\n'}), []byte{'\r'})
			tooLong = len(raw) > o.MaxLine
		}
		if tooLong {
			if o.TooLong != nil {
				if e := o.TooLong(line, length); e != nil {
					return e
				}
			}
		} else if len(bytes.TrimLeft(raw, " \t\r")) > 0 {
			if e := f(line, raw); e != nil {
				return e
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}
