package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// requests counts those under way, so that a shutdown knows when the last one
// has ended.
type requests struct {
	mu     sync.Mutex
	n      int           // guarded by mu
	closed bool          // guarded by mu; no further ones
	idle   chan struct{} // closed when closed is set and n is 0
}

func (q *requests) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.n++
	return true
}

func (q *requests) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n--; q.n == 0 && q.closed {
		close(q.idle)
	}
}

// close refuses further requests and returns what is closed when the last one
// has ended.
func (q *requests) close() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		if q.n == 0 {
			close(q.idle)
		}
	}
	return q.idle
}

// grace is the time to write the last answers to clients that read them.
const grace = 500 * time.Millisecond

// Serve serves until ctx is done, closes ln, and returns when every request has
// ended. It can be called once. Requests under way at that time have
// DrainTimeout to be acknowledged; those that are not get 503, and what is then
// still being read is cut off, a second later at most. So the queue has to
// outlive Serve.
//
// The error is nil after a shutdown, else that of the listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	srv := &http.Server{
		Handler:           s.handler,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: s.o.ReadHeaderTimeout,
		ReadTimeout:       s.o.ReadTimeout,
		IdleTimeout:       s.o.IdleTimeout,
		// From the end of the header: everything a request may do, and as long
		// again for a client that is slow to read its answer.
		WriteTimeout:   2*s.o.ReadTimeout + s.o.AckTimeout,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn),
	}
	// Beyond the limit they wait in the kernel's backlog.
	limited := netutil.LimitListener(ln, s.o.MaxConnections)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(limited) }()

	var err error
	select {
	case <-ctx.Done():
		limited.Close()
		<-ended
	case err = <-ended:
		err = fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
		limited.Close()
	}
	idle := s.requests.close()
	if !closedWithin(idle, s.o.DrainTimeout) {
		stop(errStopping) // wakes those that wait; they answer 503
		closedWithin(idle, grace)
	}
	// The handlers have returned or never will by themselves; what they wrote
	// last may still be on its way out.
	out, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if srv.Shutdown(out) != nil {
		srv.Close()
	}
	<-idle
	return err
}

func closedWithin(c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}
