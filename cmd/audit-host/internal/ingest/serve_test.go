package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// pipes is a listener whose connections are in memory, so that a bubble of
// testing/synctest sees them and its clock drives their deadlines.
type pipes struct {
	backlog  chan net.Conn
	closed   chan struct{}
	once     sync.Once
	accepted atomic.Int64
}

func newPipes() *pipes {
	return &pipes{backlog: make(chan net.Conn, 4096), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.backlog:
		p.accepted.Add(1)
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.backlog <- server
	return client
}

// serving is a server that serves on pipes until stop is called or the test
// ends.
type serving struct {
	*rig
	*pipes
	stop  context.CancelFunc
	ended chan struct{}
	err   error // after ended
}

func serve(t *testing.T, change func(*Options)) *serving {
	s := &serving{rig: newRig(t, queue.MemoryOptions{}, change), pipes: newPipes(), ended: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		s.err = s.Serve(ctx, s.pipes)
		close(s.ended)
	}()
	t.Cleanup(func() {
		stop()
		<-s.ended
		if s.err != nil {
			t.Errorf("serve: %v", s.err)
		}
	})
	return s
}

// client is one connection, read and written by hand.
type client struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func (s *serving) client() *client {
	c := s.dial()
	s.t.Cleanup(func() { c.Close() })
	return &client{t: s.t, Conn: c, in: bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Errorf("send: %v", err)
	}
}

func (c *client) status() (int, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Errorf("read answer: %v", err)
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Errorf("read answer: %v", err)
	}
	return resp.StatusCode, string(text)
}

// cutOff waits until the server ends the connection and returns what it sent
// before that.
func (c *client) cutOff() string {
	text, err := io.ReadAll(c.in)
	if err != nil {
		c.t.Errorf("read to the end: %v", err)
	}
	return string(text)
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

const healthy = "GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

func TestServeCutsSlowClients(t *testing.T) {
	for _, c := range []struct {
		name   string
		send   []string // one a second
		after  time.Duration
		answer string
	}{
		{"nothing at all", nil, 5 * time.Second, ""},
		{"a header byte by byte", strings.Split("GET /-/healthy HTTP/1.1", ""), 5 * time.Second, ""},
		{"a body byte by byte", append([]string{"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n"},
			strings.Split(strings.Repeat(" ", 60), "")...), 30 * time.Second, "408 Request Timeout"},
		{"a chunked body", append([]string{"POST /logs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"},
			strings.Split(strings.Repeat("1\r\n[\r\n_", 40), "_")...), 30 * time.Second, "408 Request Timeout"},
		{"idle after a request", []string{healthy}, 60 * time.Second, "200 OK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, nil)
				cl := s.client()
				begin := time.Now()
				var sender sync.WaitGroup
				sender.Go(func() {
					for _, text := range c.send {
						if _, err := io.WriteString(cl, text); err != nil {
							return // cut off
						}
						<-time.After(time.Second) // of the bubble's clock
					}
				})
				got := cl.cutOff()
				took := time.Since(begin)
				sender.Wait()
				// net/http lingers half a second before it ends a connection
				// whose client was still sending.
				if took < c.after || took > c.after+time.Second {
					t.Errorf("cut off after %v, want %v", took, c.after)
				}
				if !strings.Contains(got, c.answer) || c.answer == "" && strings.Contains(got, "200") {
					t.Errorf("got %q, want %q", got, c.answer)
				}
				if n := s.Stats().Accepted; n != 0 {
					t.Errorf("accepted %d events", n)
				}
			})
		})
	}
}

// The time for reading a request must not run on while it waits: the wait may
// take longer.
func TestServeWaitOutlastsReadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(o *Options) { o.ReadTimeout, o.AckTimeout = 2*time.Second, time.Minute })
		time.AfterFunc(50*time.Second, func() {
			if n := s.buffered.Load(); n != resultBytes {
				t.Errorf("a request that waits holds %d bytes, wanted %d: of its answer, and none of its body", n, resultBytes)
			}
			s.commit(1)
		})
		cl := s.client()
		begin := time.Now()
		cl.send(post("/v1/events?ack=ledger", one("a")))
		if code, text := cl.status(); code != 200 || time.Since(begin) != 50*time.Second {
			t.Errorf("status %d after %v: %s", code, time.Since(begin), text)
		}
		// The connection goes on.
		cl.send(healthy)
		if code, _ := cl.status(); code != 200 {
			t.Errorf("status %d", code)
		}
	})
}

func TestServeLimitsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(o *Options) { o.MaxConnections = 100 })
		var idle []*client
		for range 1000 {
			idle = append(idle, s.client())
		}
		last := s.client()
		synctest.Wait()
		if got := s.accepted.Load(); got != 100 {
			t.Errorf("%d connections were accepted at once", got)
		}
		// A place becomes free when a connection ends.
		idle[0].Close()
		synctest.Wait()
		if got := s.accepted.Load(); got != 101 {
			t.Errorf("%d connections were accepted after one ended", got)
		}
		// Idle ones are cut off, a hundred each five seconds, and then the one
		// that does something has its turn. A pipe, unlike a socket, takes a
		// request only once it is accepted.
		begin := time.Now()
		last.send(healthy)
		if code, _ := last.status(); code != 200 {
			t.Errorf("status %d", code)
		}
		if took := time.Since(begin); took > 56*time.Second {
			t.Errorf("served after %v", took)
		}
		for _, c := range idle {
			c.Close()
		}
	})
}

// An accept that waits for a connection to end does not hold up the end of all.
func TestServeStopsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(o *Options) { o.MaxConnections = 1 })
		idle := s.client()
		idle.send(healthy)
		if code, _ := idle.status(); code != 200 {
			t.Fatalf("status %d", code)
		}
		s.client() // in the backlog
		synctest.Wait()
		begin := time.Now()
		s.stop()
		<-s.ended
		// Whether the waiting one is still accepted, and closed, is a matter of luck.
		if took := time.Since(begin); took > grace {
			t.Errorf("Serve returned after %v", took)
		}
	})
}

// A thousand idle connections over real sockets are no obstacle within the
// limit.
func TestServeThousandIdle(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, nil)
	r.commitAll()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, ln) }()
	var idle []net.Conn
	for range 1000 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	web := &http.Client{Transport: &http.Transport{}}
	for i := range 20 {
		resp, err := web.Post("http://"+ln.Addr().String()+"/v1/events?ack=ledger", "application/json", strings.NewReader(one(fmt.Sprint(i))))
		if err != nil {
			t.Fatal(err)
		}
		if a := answer(t, resp.Body); statuses(a) != fmt.Sprint(i, ":appended") {
			t.Errorf("answer %+v", a)
		}
		resp.Body.Close()
	}
	web.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, c := range idle {
		c.Close()
	}
}

// A request that waits at shutdown is acknowledged if that comes in time; no
// new one gets in meanwhile.
func TestServeShutdownWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, nil)
		waiting, other := s.client(), s.client()
		other.send(healthy)
		if code, _ := other.status(); code != 200 {
			t.Fatalf("status %d", code)
		}
		waiting.send(post("/v1/events", one("a")))
		synctest.Wait()
		begin := time.Now()
		s.stop()
		synctest.Wait()
		select {
		case <-s.ended:
			t.Fatal("Serve returned while a request was waiting")
		default:
		}
		other.send(post("/v1/events", one("b")))
		if code, text := other.status(); code != 503 || !strings.Contains(text, "shutting down") {
			t.Errorf("a request during shutdown got %d: %s", code, text)
		}
		time.AfterFunc(3*time.Second, func() { s.commit(1) })
		if code, text := waiting.status(); code != 200 || !strings.Contains(text, `"id":"a","status":"durable"`) {
			t.Errorf("status %d: %s", code, text)
		}
		<-s.ended
		if took := time.Since(begin); took < 3*time.Second || took > 3*time.Second+grace {
			t.Errorf("shutdown took %v", took)
		}
		if got := s.Stats().Accepted; got != 1 {
			t.Errorf("accepted %d events", got)
		}
	})
}

// When the time to drain is over, who waits is told so, and a body that is
// still on its way is cut off.
func TestServeShutdownEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, nil)
		waiting, sending := s.client(), s.client()
		waiting.send(post("/v1/events", one("a")))
		sending.send("POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
		synctest.Wait()
		begin := time.Now()
		s.stop()
		code, text := waiting.status()
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("answered after %v", took)
		}
		if code != 503 || !strings.Contains(text, `"id":"a","status":"accepted","error":"the server is shutting down; it may be sent again`) {
			t.Errorf("status %d: %s", code, text)
		}
		sending.cutOff()
		<-s.ended
		if took := time.Since(begin); took > 5*time.Second+2*grace {
			t.Errorf("shutdown took %v", took)
		}
	})
}

// broken is a listener that fails.
type broken struct {
	*pipes
	err error
}

func (b broken) Accept() (net.Conn, error) { return nil, b.err }

func TestServeListenerFails(t *testing.T) {
	r := newRig(t, queue.MemoryOptions{}, nil)
	mine := errors.New("no more sockets")
	if err := r.Serve(t.Context(), broken{newPipes(), mine}); !errors.Is(err, mine) {
		t.Errorf("serve: %v", err)
	}
}

func TestServeHeaderLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, nil)
		cl := s.client()
		go io.WriteString(cl, "GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "+strings.Repeat("x", 64<<10))
		if got := cl.cutOff(); !strings.Contains(got, "431 Request Header Fields Too Large") {
			t.Errorf("got %q", got)
		}
	})
}
