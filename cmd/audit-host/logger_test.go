package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
)

// reader is what a lossyLog writes to. It keeps what it was given, unless it hangs
// or is gone.
type reader struct {
	hang chan struct{} // closed or nil, or it hangs

	mu   sync.Mutex
	gone bool
	got  []string
}

func (r *reader) Write(p []byte) (int, error) {
	if r.hang != nil {
		<-r.hang
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return 0, syscall.EPIPE
	}
	r.got = append(r.got, strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (r *reader) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// say writes a line of 1 KiB, of which the log has room for 1,024.
func say(t *testing.T, l *lossyLog, n int) {
	t.Helper()
	line := fmt.Sprintf("%04d%s\n", n, strings.Repeat(" ", 1019))
	if m, err := io.WriteString(l, line); m != len(line) || err != nil {
		t.Fatalf("wrote %d, %v", m, err)
	}
}

// numbers returns the lines as what say was given, and the notices between them.
func numbers(lines []string) string {
	var out []string
	first, last := 0, -1
	flush := func() {
		if last >= first {
			out = append(out, fmt.Sprintf("%d-%d", first, last))
		}
		first, last = 0, -1
	}
	for _, line := range lines {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || n != last+1 {
			flush()
			first = n
		}
		if last = n; err != nil {
			_, lost, _ := strings.Cut(line, `was not read" lines=`)
			out, first, last = append(out, "lost "+lost), 0, -1
		}
	}
	flush()
	return strings.Join(out, ", ")
}

func startLog(t *testing.T, r *reader) *lossyLog {
	t.Helper()
	l := newLossyLog(config.Log{Level: slog.LevelError, Format: "text"}, r)
	t.Cleanup(l.Close)
	return l
}

// Whatever the reader does, a line is written at once; what finds no room is
// counted, and told of where it is missing.
func TestLogThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{hang: make(chan struct{})}
		l := startLog(t, r)
		say(t, l, 1)
		synctest.Wait() // the writer hangs with this one
		for n := 2; n <= 1200; n++ {
			say(t, l, n)
		}
		io.WriteString(l, "short\n") // would find room, and stand before its turn
		if got := l.Dropped(); got != 1200-1025+1 {
			t.Errorf("%d dropped", got)
		}
		close(r.hang)
		synctest.Wait()
		say(t, l, 1201)
		synctest.Wait()
		if got, want := numbers(r.lines()), "1-1025, lost 176, 1201-1201"; got != want {
			t.Errorf("wrote %s, want %s", got, want)
		}
	})
}

// A reader that is gone costs lines and no more. One that comes instead is told.
func TestLogWhoseReaderIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		l := startLog(t, r)
		say(t, l, 1)
		synctest.Wait()
		r.gone = true
		for n := 2; n <= 5; n++ {
			say(t, l, n)
			synctest.Wait()
		}
		if got := l.Dropped(); got != 4 {
			t.Errorf("%d dropped", got)
		}
		r.gone = false
		say(t, l, 6)
		synctest.Wait()
		if got, want := numbers(r.lines()), "1-1, lost 4, 6-6"; got != want {
			t.Errorf("wrote %s, want %s", got, want)
		}
	})
}

// At the end what waits is written, unless that takes too long.
func TestLogEnds(t *testing.T) {
	for _, c := range []struct {
		hangs, most time.Duration
		want        string
	}{{logFlush / 2, logFlush / 2, "1-3"}, {time.Hour, logFlush, ""}} {
		synctest.Test(t, func(t *testing.T) {
			r := &reader{hang: make(chan struct{})}
			l := startLog(t, r)
			for n := 1; n <= 3; n++ {
				say(t, l, n)
			}
			begin := time.Now()
			time.AfterFunc(c.hangs, func() { close(r.hang) })
			l.Close()
			if took := time.Since(begin); took != c.most {
				t.Errorf("it took %v, want %v", took, c.most)
			}
			if got := numbers(r.lines()); got != c.want {
				t.Errorf("wrote %q, want %q", got, c.want)
			}
			time.Sleep(2 * time.Hour) // of the bubble
			say(t, l, 4)              // and is dropped
			if got := numbers(r.lines()); got != "1-3" || l.Dropped() != 1 {
				t.Errorf("in the end %q, %d dropped", got, l.Dropped())
			}
		})
	}
}
