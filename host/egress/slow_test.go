package egress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answerWith makes the client's connections pipes, at whose other end answer
// runs once the request has been read. The function it returns waits for the
// other ends.
func answerWith(c *Client, answer func(net.Conn)) (wait func()) {
	var running sync.WaitGroup
	c.dial = func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		running.Go(func() {
			defer there.Close()
			if r, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
				if _, err := io.Copy(io.Discard, r.Body); err == nil {
					answer(there)
				}
			}
		})
		return here, nil
	}
	return running.Wait
}

// TestSlow: whatever a server takes its time for, a request ends at its
// timeout, to the nanosecond of the bubble's clock.
func TestSlow(t *testing.T) {
	drip := func(first, each string) func(net.Conn) {
		return func(conn net.Conn) {
			_, err := io.WriteString(conn, first)
			for err == nil {
				time.Sleep(time.Second) // the bubble's clock
				_, err = io.WriteString(conn, each)
			}
		}
	}
	for name, answer := range map[string]func(net.Conn){
		"says nothing":          func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
		"status drips":          drip("HTTP/1.1 200 ", "x"),
		"header drips":          drip("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
		"body drips":            drip("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "x"),
		"chunks drip":           drip("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
		"body without an end":   drip("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "x"),
		"each answer continues": drip("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
	} {
		synctest.Test(t, func(t *testing.T) {
			c, err := New(Policy{Hosts: []HostRule{{Scheme: "http", Host: "collector.example", Methods: []string{"GET"}}}, Timeout: 30 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			wait := answerWith(c, answer)
			start := time.Now()
			_, err = c.Do(t.Context(), Request{Method: "GET", URL: "http://collector.example/"})
			var timeout *Timeout
			if !errors.As(err, &timeout) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if d := time.Since(start); d != 30*time.Second {
				t.Errorf("%s: it took %v", name, d)
			}
			c.Close()
			wait()
		})
	}
}

// TestTimeoutCoversRedirects: a chain of slow redirects has one timeout, and
// waiting for a slot counts.
func TestTimeoutCoversRedirects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Policy{Hosts: []HostRule{{Scheme: "http", Host: "collector.example", Methods: []string{"GET"}}},
			Timeout: 10 * time.Second, Concurrency: 1, MaxRedirects: 100})
		if err != nil {
			t.Fatal(err)
		}
		wait := answerWith(c, func(conn net.Conn) {
			time.Sleep(3 * time.Second)
			_, _ = io.WriteString(conn, "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})
		start := time.Now()
		errs := make(chan error)
		for range 2 {
			go func() {
				_, err := c.Do(t.Context(), Request{Method: "GET", URL: "http://collector.example/"})
				errs <- err
			}()
		}
		hops := 0
		for range 2 {
			var timeout *Timeout
			if err := <-errs; !errors.As(err, &timeout) {
				t.Errorf("%v", err)
			} else {
				hops += timeout.Hop
			}
		}
		if d := time.Since(start); d != 10*time.Second || hops != 3 {
			t.Errorf("it took %v and %d hops, want 10s and 3", d, hops)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Do(ctx, Request{Method: "GET", URL: "http://collector.example/"})
		if timeout := (*Timeout)(nil); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) {
			t.Errorf("the caller's deadline: %v", err)
		}
		c.Close()
		wait()
	})
}

// TestQuiet: what comes before the first Write is read after it.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Policy{})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		c.dial = func(context.Context, string, string) (net.Conn, error) { return here, nil }
		conn, err := c.connect(t.Context(), "tcp", "granted.example:80")
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		var all sync.WaitGroup
		all.Go(func() { _, _ = io.WriteString(there, "early"); _, _ = io.Copy(io.Discard, there) })
		all.Go(func() { got = make([]byte, 5); _, err = io.ReadFull(conn, got) })
		synctest.Wait()
		if string(got) != "\x00\x00\x00\x00\x00" {
			t.Errorf("read %q before anything was written", got)
		}
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if string(got) != "early" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		conn.Close()
		all.Wait()
		// Closing lets a reader go as well.
		idle := &quiet{Conn: here, asked: make(chan struct{})}
		all.Go(func() { _, err = idle.Read(got) })
		idle.Close()
		all.Wait()
		if err == nil {
			t.Error("read from a closed connection")
		}
	})
}

// TestBadAnswers: none of them is more than an error, in our words.
func TestBadAnswers(t *testing.T) {
	for _, answer := range []string{
		"",
		"SSH-2.0-OpenSSH\r\n",
		"HTTP/1.1 abc\r\n\r\n",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
	} {
		c := newClient(t, Policy{Hosts: []HostRule{{Scheme: "http", Host: "collector.example", Methods: []string{"GET"}}}})
		answerWith(c, func(conn net.Conn) { _, _ = io.WriteString(conn, answer) })
		_, err := get(t, c, "http://collector.example/")
		var u *Unavailable
		if !errors.As(err, &u) {
			t.Errorf("%q: %v", answer, err)
			continue
		}
		for _, word := range strings.Fields("SSH OpenSSH abc colon gzip zz hello") {
			if strings.Contains(err.Error(), word) {
				t.Errorf("%q: the error holds the server's %q: %v", answer, word, err)
			}
		}
	}
}
