package main

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

// newLogger writes to stderr in the form that the configuration asks for.
func newLogger(cfg config.Log, stderr io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(stderr, o))
	}
	return slog.New(slog.NewTextHandler(stderr, o))
}

// Bounds of a lossyLog.
const (
	logRoom  = 1 << 20     // bytes of lines that wait to be read
	logFlush = time.Second // for what waits at the end
)

// lossyLog stands between the daemon and its stderr: no event and no stop waits
// for whoever reads the log. Lines wait in memory, in their order; what finds no
// room there, or fails to be written, is dropped and counted. The log tells how
// many were, in their place, as soon as it can be written again.
type lossyLog struct {
	out    io.Writer
	notice func(lines uint64) []byte // tells that they were dropped
	ended  chan struct{}

	mu      sync.Mutex
	changed sync.Cond // of what follows; guarded by mu
	lines   [][]byte
	bytes   int
	missed  uint64 // dropped after the last of lines
	dropped uint64 // in all
	closed  bool
}

// newLossyLog begins to write what it is given to stderr. Close ends it.
func newLossyLog(cfg config.Log, stderr io.Writer) *lossyLog {
	l := &lossyLog{out: stderr, ended: make(chan struct{})}
	l.changed.L = &l.mu
	l.notice = func(lines uint64) []byte {
		var b bytes.Buffer
		// Errors may be among them.
		newLogger(cfg, &b).Error("lines of this log were dropped, for it was not read", slog.Uint64("lines", lines))
		return b.Bytes()
	}
	go l.write()
	return l
}

// Write takes a line or drops it. It does not wait, and does not fail.
func (l *lossyLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// After one that was dropped no shorter one slips in before the log tells of it.
	if full := l.missed > 0 || l.bytes+len(line) > logRoom; l.closed || full && len(l.lines) > 0 {
		l.missed++
		l.dropped++
		return len(line), nil
	}
	l.lines = append(l.lines, bytes.Clone(line))
	l.bytes += len(line)
	l.changed.Signal()
	return len(line), nil
}

// write hands the lines on, and is what waits for whoever reads them.
func (l *lossyLog) write() {
	defer close(l.ended)
	untold := uint64(0) // dropped, and the log has not told of it
	tell := func() bool {
		if untold > 0 {
			if _, err := l.out.Write(l.notice(untold)); err != nil {
				return false
			}
			untold = 0
		}
		return true
	}
	for {
		l.mu.Lock()
		for len(l.lines) == 0 && !l.closed {
			l.changed.Wait()
		}
		lines, missed := l.lines, l.missed
		l.lines, l.bytes, l.missed = nil, 0, 0
		l.mu.Unlock()
		if len(lines) == 0 {
			return
		}
		failed := uint64(0)
		for _, line := range lines {
			if tell() {
				if _, err := l.out.Write(line); err == nil {
					continue
				}
			}
			untold++
			failed++
		}
		untold += missed
		tell()
		l.mu.Lock()
		l.dropped += failed
		l.mu.Unlock()
	}
}

// Dropped is how many lines were not written.
func (l *lossyLog) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Close has what waits written, within logFlush. A write that hangs is left
// behind: nothing can interrupt it, and the process ends.
func (l *lossyLog) Close() {
	l.mu.Lock()
	l.closed = true
	l.changed.Signal()
	l.mu.Unlock()
	select {
	case <-l.ended:
	case <-time.After(logFlush):
	}
}
