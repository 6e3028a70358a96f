package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func stopwatch() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) }
}

// daemon is a running audit-host.
type daemon struct {
	home
	address string
	cmd     *exec.Cmd
	words   bytes.Buffer
	started time.Duration // until it was ready
}

func (b *bench) daemon(ctx context.Context, dir string, e edit) (*daemon, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &daemon{address: l.Addr().String()}
	if err := l.Close(); err != nil {
		return nil, err
	}
	e.address = d.address
	if d.home, err = b.home(ctx, dir, e); err != nil {
		return nil, err
	}
	d.cmd = exec.CommandContext(ctx, b.binary, "run", "-c", d.config)
	d.cmd.Stderr = &d.words
	elapsed := stopwatch()
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for elapsed() < 30*time.Second {
		r, err := http.Get("http://" + d.address + "/-/ready")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				d.started = elapsed()
				return d, nil
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	_, err = d.stop()
	return nil, fmt.Errorf("the daemon is not ready: %w: %s", err, d.words.String())
}

// stop ends the daemon in order.
func (d *daemon) stop() (ended, error) {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return ended{}, err
	}
	e, err := running(d.cmd)
	if err != nil {
		return ended{}, fmt.Errorf("%w: %s", err, d.words.String())
	}
	return e, nil
}

// resident is the memory that the daemon has now, in MiB.
func (d *daemon) resident() float64 { return memory(d.cmd.Process.Pid, "VmRSS") }

// processor is the time that the daemon has used so far, in seconds.
func (d *daemon) processor() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold spaces; utime and stime are the 12th and
	// 13th field behind it, in hundredths.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

// idle is what the daemon does while nobody asks for anything.
func (d *daemon) idle(last time.Duration) (processor, written float64) {
	look := func() (busy, bytes float64) {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.cmd.Process.Pid))
		for _, t := range tasks {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", d.cmd.Process.Pid, t.Name()))
			ns, _, _ := strings.Cut(string(text), " ")
			n, _ := strconv.ParseFloat(ns, 64)
			busy += n / 1e9
		}
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", d.cmd.Process.Pid))
		if _, rest, found := strings.Cut(string(text), "\nwrite_bytes: "); found {
			line, _, _ := strings.Cut(rest, "\n")
			bytes, _ = strconv.ParseFloat(line, 64)
		}
		return busy, bytes
	}
	busy, bytes := look()
	time.Sleep(last)
	busy2, bytes2 := look()
	return (busy2 - busy) / last.Seconds() * 100, bytes2 - bytes
}

// requester is a client with one connection. It writes a request in one piece
// and reads no more of the answer than it must, so that the client takes little
// of the processors it shares with the server.
type requester struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

func dial(address string) (*requester, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &requester{conn: conn, r: bufio.NewReader(conn)}, nil
}

// post sends a body and returns the status.
func (c *requester) post(path string, body []byte) (int, error) {
	c.buf = fmt.Appendf(c.buf[:0], "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n", path, len(body))
	c.buf = append(c.buf, body...)
	if _, err := c.conn.Write(c.buf); err != nil {
		return 0, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length, chunked := 0, false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, v, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(v)); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if !chunked {
		_, err := c.r.Discard(length)
		return status, err
	}
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return 0, err
		}
		if _, err := c.r.Discard(int(n) + 2); err != nil {
			return 0, err
		}
		if n == 0 {
			return status, nil
		}
	}
}

// loaded is what clients saw.
type loaded struct {
	requests int
	took     time.Duration
	times    []time.Duration // sorted
}

func (l loaded) quantile(q float64) float64 {
	return float64(l.times[min(len(l.times)-1, int(q*float64(len(l.times))))].Microseconds())
}

// load has clients post bodies of so many events, each as soon as the one
// before is answered, or so that all together post rate requests a second.
func (d *daemon) load(ctx context.Context, clients, events int, ack string, rate float64, last time.Duration) (loaded, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var number atomic.Int64
	all, errs := make([][]time.Duration, clients), make([]error, clients)
	elapsed := stopwatch()
	began := time.Now()
	for i := range clients {
		wg.Go(func() {
			c, err := dial(d.address)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.conn.Close()
			var body []byte
			for elapsed() < last && ctx.Err() == nil {
				body = body[:0]
				for range events {
					body = append(append(body, native(int(number.Add(1)), "", eventSize)...), '\n')
				}
				due := time.Now()
				if rate > 0 {
					// Late answers count from when they were due.
					k := float64(len(all[i])*clients + i)
					due = began.Add(time.Duration(k / rate * 1e9))
					time.Sleep(time.Until(due))
				}
				status, err := c.post("/v1/events?ack="+ack, body)
				if err == nil && status >= 300 {
					err = fmt.Errorf("status %d", status)
				}
				if err != nil {
					errs[i] = err
					cancel()
					return
				}
				all[i] = append(all[i], time.Since(due))
			}
		})
	}
	wg.Wait()
	l := loaded{took: elapsed(), times: slices.Concat(all...)}
	l.requests = len(l.times)
	slices.Sort(l.times)
	if err := errors.Join(errs...); err != nil {
		return l, err
	}
	if l.requests == 0 {
		return l, io.ErrUnexpectedEOF
	}
	return l, nil
}

// started measures a start, with compiled plugins in the cache or without, and
// the daemon at rest.
func started(warm bool) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) ([]value, error) {
		e := edit{cold: !warm}
		d, err := b.daemon(ctx, dir, e)
		if err != nil {
			return nil, err
		}
		list := []value{{"", float64(d.started.Microseconds()) / 1000, "ms"}}
		if warm {
			processor, written := d.idle(3 * time.Second)
			list = append(list, value{".idle_cpu", processor, "%"}, value{".idle_written", written, "bytes"}, value{".resident", d.resident(), "MiB"})
		}
		_, err = d.stop()
		return list, err
	}
}

// served measures clients of a daemon.
func served(e edit, clients, events int, ack string, last time.Duration) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) ([]value, error) {
		d, err := b.daemon(ctx, dir, e)
		if err != nil {
			return nil, err
		}
		used := -d.processor()
		l, err := d.load(ctx, clients, events, ack, 0, last)
		used += d.processor()
		end, stopErr := d.stop()
		if err := errors.Join(err, stopErr); err != nil {
			return nil, err
		}
		return []value{
			perSecond(l.requests*events, l.took, "events"),
			{".p50", l.quantile(0.5), "us"}, {".p99", l.quantile(0.99), "us"}, {".p999", l.quantile(0.999), "us"},
			{".cpu_us", used * 1e6 / float64(l.requests*events), "us/event"},
			{".peak", end.peak, "MiB"},
		}, nil
	}
}
