package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/ingest"
)

// openInput opens a file, or stdin for "-". The size is 0 if it isn't known.
func openInput(name string, stdin io.Reader) (in io.ReadCloser, size int64, err error) {
	if name == "-" {
		return io.NopCloser(stdin), 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("open input: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	return f, size, nil
}

// maxComplaints bounds the lines that are complained of one by one: whoever
// passes the wrong file needs no more.
const maxComplaints = 20

// complaints names lines that are at fault by their numbers.
type complaints struct {
	stderr io.Writer
	n      int // all
	long   int // those of them that were too long to be read
}

func (c *complaints) add(line int, err error) {
	if c.n++; c.n <= maxComplaints {
		fmt.Fprintf(c.stderr, "line %d: %v\n", line, err)
	}
}

func (c *complaints) tooLong(line int, length int64, most int) {
	c.long++
	c.add(line, fmt.Errorf("%d bytes, at most %d are read", length, most))
}

// end tells of those that were not named.
func (c *complaints) end() {
	if more := c.n - maxComplaints; more > 0 {
		fmt.Fprintf(c.stderr, "and %d more lines\n", more)
	}
}

// readLines calls f with every line. It does not wait for a read that blocks,
// of a terminal say, once ctx is done.
func readLines(ctx context.Context, r io.Reader, most int, bad *complaints, f func(line int, raw []byte) error) error {
	return ingest.ReadLines(ctx, r, ingest.LinesOptions{MaxLine: most, TooLong: func(line int, length int64) error {
		bad.tooLong(line, length, most)
		return nil
	}}, f)
}
