package conformance

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// reply is what the server answers. The zero value is 200 with the body of
// [Options].Answer.
type reply struct {
	status int
	// retryAfter, if not empty, is the header of that name.
	retryAfter string
	// drop closes the connection without an answer.
	drop bool
	// keeps tells that the request is taken although the answer does not say so.
	keeps bool
}

func (r reply) String() string {
	switch {
	case r.drop && r.keeps:
		return "a server that takes the request and closes the connection without an answer"
	case r.drop:
		return "a server that closes the connection without an answer"
	case r.retryAfter != "":
		return fmt.Sprintf("HTTP %d with Retry-After: %s", r.status, r.retryAfter)
	}
	return fmt.Sprintf("HTTP %d", r.status)
}

// server is the collector of the kit, on loopback.
type server struct {
	http   *http.Server
	addr   *net.TCPAddr
	done   chan error
	answer []byte

	mu       sync.Mutex
	next     reply             // guarded by mu, as what follows
	requests int               // since reset
	taken    map[string][]byte // by what makes two requests the same
	order    [][]byte          // of those taken
}

func startServer(answer []byte) (*server, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the HTTP server: %w", err)
	}
	s := &server{addr: l.Addr().(*net.TCPAddr), done: make(chan error, 1), answer: answer, taken: map[string][]byte{}}
	if s.answer == nil {
		s.answer = []byte("{}")
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// stop ends the server and waits for it.
func (s *server) stop() error {
	err := s.http.Shutdown(context.Background())
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func (s *server) origin() string { return "http://" + s.addr.String() }

// reset forgets all requests and answers 200 again.
func (s *server) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.requests, s.taken, s.order = reply{}, 0, map[string][]byte{}, nil
}

// answers sets what is answered from now on.
func (s *server) answers(r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = r
}

// ServeHTTP takes a request down and answers.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		if z, err := gzip.NewReader(bytes.NewReader(body)); err == nil {
			if plain, err := io.ReadAll(z); err == nil {
				body = plain
			}
		}
	}
	answer := s.take(r, body)
	w.Header()["Date"] = nil // an answer is to be the same each time
	w.Header().Set("Content-Type", "application/json")
	if answer.retryAfter != "" {
		w.Header().Set("Retry-After", answer.retryAfter)
	}
	switch {
	case answer.drop:
		panic(http.ErrAbortHandler) // net/http closes the connection and is silent
	case answer.status != 0:
		w.WriteHeader(answer.status)
	}
	_, _ = w.Write(s.answer) // whoever asked has it, or is gone
}

// take decides about a request. One with an idempotency key, or one that puts
// something at a place, is the same as another of that key or place.
func (s *server) take(r *http.Request, body []byte) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if (s.next.status == 0 && !s.next.drop || s.next.keeps) && r.Method != http.MethodGet && r.Method != http.MethodHead {
		key := fmt.Sprint("request ", s.requests)
		if k := r.Header.Get("Idempotency-Key"); k != "" {
			key = "key " + k
		} else if r.Method == http.MethodPut {
			key = "put " + r.URL.String()
		}
		whole := append([]byte(r.URL.String()+"\n"), body...)
		s.taken[key] = whole
		s.order = append(s.order, whole)
	}
	return s.next
}

// seen calls f with each request that was taken, the same ones once.
func (s *server) seen(f func([]byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.taken {
		f(b)
	}
}

// inOrder returns the requests that were taken, in the order of their coming.
func (s *server) inOrder() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.order...)
}
