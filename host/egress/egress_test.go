package egress

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// serve starts a server on loopback and returns its URL.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// ruleFor grants a test server by its address.
func ruleFor(t *testing.T, base string, methods ...string) HostRule {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	if len(methods) == 0 {
		methods = []string{"GET", "POST"}
	}
	return HostRule{Scheme: u.Scheme, Host: u.Hostname(), Port: uint16(port), Methods: methods}
}

func newClient(t *testing.T, p Policy) *Client {
	t.Helper()
	c, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func get(t *testing.T, c *Client, url string) (Response, error) {
	t.Helper()
	return c.Do(t.Context(), Request{Method: "GET", URL: url})
}

// wantRefused checks that err is a refusal at a hop, and returns it.
func wantRefused(t *testing.T, err error, hop int, text string) *Refused {
	t.Helper()
	var r *Refused
	if !errors.As(err, &r) || r.Hop != hop || !strings.Contains(r.Error(), text) {
		t.Fatalf("got %v, want a refusal at hop %d with %q", err, hop, text)
	}
	return r
}

func localhost(base string) string { return strings.Replace(base, "127.0.0.1", "localhost", 1) }

func TestRequest(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("X-Seen", r.Host+" "+r.Header.Get("X-Test")+" "+r.Header.Get("User-Agent")+" "+strconv.Quote(r.Header.Get("Accept-Encoding")))
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}})
	for range 2 {
		r, err := c.Do(t.Context(), Request{Method: "POST", URL: base + "/a%20b/c?d=e%2Ff#g", Header: http.Header{"x-test": {"yes"}}, Body: []byte("event")})
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != 202 || string(r.Body) != "POST /a%20b/c?d=e%2Ff event" || r.URL != base+"/a%20b/c" || r.Redirects != 0 {
			t.Errorf("%+v, body %s", r, r.Body)
		}
		if got := r.Header.Get("X-Seen"); got != strings.TrimPrefix(base, "http://")+` yes audit-host ""` {
			t.Errorf("the server saw %q", got)
		}
		if r.Header.Get("Set-Cookie") != "" || r.Header.Get("Content-Length") != "" {
			t.Errorf("header %v", r.Header)
		}
	}
	if got := c.Counters(); got != (Counters{Requests: 2, Sent: 10, Received: 2 * uint64(len("POST /a%20b/c?d=e%2Ff event"))}) {
		t.Errorf("counters %+v", got)
	}
}

func TestEnvironmentProxyIsIgnored(t *testing.T) {
	proxy := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy)
	}
	c := newClient(t, Policy{Hosts: []HostRule{{Scheme: "http", Host: "collector.example", Methods: []string{"GET"}}}})
	var dialled string
	c.dial = func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = address
		return nil, io.EOF
	}
	_, err := get(t, c, "http://collector.example/")
	if c.direct.Proxy != nil {
		t.Error("the transport asks for a proxy")
	}
	if u := (*Unavailable)(nil); !errors.As(err, &u) || dialled != "collector.example:80" {
		t.Errorf("dialled %q: %v", dialled, err)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, s.URL)}, RootCAs: roots})
	r, err := get(t, c, s.URL)
	if err != nil || string(r.Body) != "HTTP/1.1" {
		t.Errorf("got %s %v, want HTTP/1.1", r.Body, err)
	}
	c = newClient(t, Policy{Hosts: []HostRule{ruleFor(t, s.URL)}})
	if _, err := get(t, c, s.URL); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("untrusted certificate: %v", err)
	}
	u, _ := url.Parse(s.URL)
	rule := ruleFor(t, s.URL)
	rule.Host = "localhost"
	c = newClient(t, Policy{Hosts: []HostRule{rule}, RootCAs: roots, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}})
	if _, err := get(t, c, "https://localhost:"+u.Port()); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("certificate for another name: %v", err)
	}
}

func TestNothingIsGrantedByDefault(t *testing.T) {
	c := newClient(t, Policy{})
	_, err := get(t, c, "http://127.0.0.1:1/")
	wantRefused(t, err, 0, "no host is granted")
}

// TestRedirectLeadsOut is the case of issue 4: a plugin with a grant for
// 127.0.0.1:PORT is led to localhost:OTHER.
func TestRedirectLeadsOut(t *testing.T) {
	var reached atomic.Int32
	other := localhost(serve(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, method := range []string{"GET", "POST"} {
			base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, other+"/secret/path?q=1", status)
			})
			c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}})
			_, err := c.Do(t.Context(), Request{Method: method, URL: base + "/in"})
			r := wantRefused(t, err, 1, "redirect from "+base+": the host is not granted")
			if r.URL != other {
				t.Errorf("%d %s: the hop is %s, want %s", status, method, r.URL, other)
			}
			if got := c.Counters(); got.Refused != 1 || got.Requests != 1 {
				t.Errorf("%d %s: counters %+v", status, method, got)
			}
		}
	}
	if reached.Load() != 0 {
		t.Error("the other server was reached")
	}
}

func TestRedirects(t *testing.T) {
	var seen atomic.Value
	var base, second string
	h := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if to := r.URL.Query().Get("to"); to != "" {
			status, _ := strconv.Atoi(r.URL.Query().Get("status"))
			w.Header().Set("Location", to)
			w.WriteHeader(status)
			io.WriteString(w, strings.Repeat("x", 1000))
			return
		}
		seen.Store(fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body))
	}
	base, second = serve(t, h), serve(t, h)
	limited := ruleFor(t, second)
	limited.PathPrefix = "/in"
	postOnly := ruleFor(t, serve(t, h), "POST")
	third := fmt.Sprintf("http://127.0.0.1:%d", postOnly.Port)
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base), limited, postOnly}, MaxRedirects: 3})
	for _, c2 := range []struct {
		method string
		status int
		to     string
		want   string // what the last server sees, or the refusal
	}{
		{"GET", 302, "/there", "GET /there "},
		{"GET", 302, "there?a=b", "GET /there?a=b "},
		{"POST", 307, second + "/in/x", "POST /in/x body"},
		{"POST", 308, "/x", "POST /x body"},
		{"POST", 303, "/x", "GET /x "},
		{"POST", 301, "/x", "hop 1: would lose its body"},
		{"POST", 302, second + "/in", "hop 1: would lose its body"},
		{"POST", 303, third, "hop 1: GET is not granted"},
		{"POST", 307, second + "/inside", "hop 1: the path is not granted"},
		{"POST", 307, second + "/in/../x", "hop 1: the path is not granted"},
		{"POST", 307, second + "/in/%2e%2e/x", "hop 1: could be read as another"},
		{"GET", 302, "//127.0.0.1:1/", "hop 1: port 1 of the host is not granted"},
		{"GET", 302, "https:" + strings.TrimPrefix(base, "http:"), "hop 1: https is not granted"},
		{"GET", 302, "ftp://127.0.0.1/", "hop 1: neither http nor https"},
		{"GET", 302, "file:///etc/passwd", "hop 1: neither http nor https"},
		{"GET", 302, "http:opaque", "hop 1: names no host"},
		{"GET", 302, strings.Replace(base, "127.", "user@127.", 1), "hop 1: holds a user"},
		{"GET", 302, `/\evil.example`, "hop 1: holds the byte 0x5c"},
		{"GET", 302, "http://169.254.169.254/latest/meta-data", "hop 1: not granted"},
		{"GET", 302, "", "GET /?to=&status=302 "},
	} {
		seen.Store("")
		start := base + "/?to=" + url.QueryEscape(c2.to) + "&status=" + strconv.Itoa(c2.status)
		r := Request{Method: c2.method, URL: start}
		if c2.method == "POST" {
			r.Body = []byte("body")
		}
		resp, err := c.Do(t.Context(), r)
		if rest, ok := strings.CutPrefix(c2.want, "hop 1: "); ok {
			wantRefused(t, err, 1, rest)
			if seen.Load() != "" {
				t.Errorf("%d to %s: the server saw %q", c2.status, c2.to, seen.Load())
			}
			continue
		}
		if err != nil || seen.Load() != c2.want || resp.Redirects > 1 {
			t.Errorf("%s, %d to %q: saw %q, want %q (%v)", c2.method, c2.status, c2.to, seen.Load(), c2.want, err)
		}
	}
}

func TestRedirectLoop(t *testing.T) {
	var base string
	var n atomic.Int32
	base = serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		http.Redirect(w, r, base+"/again", http.StatusTemporaryRedirect)
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}, MaxRedirects: 3})
	_, err := get(t, c, base)
	wantRefused(t, err, 4, "more than 3 redirects")
	if n.Load() != 4 {
		t.Errorf("%d requests, want 4", n.Load())
	}
	c = newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}, MaxRedirects: -1})
	r, err := get(t, c, base)
	if err != nil || r.Status != 307 || r.Header.Get("Location") != base+"/again" {
		t.Errorf("not following: %+v, %v", r, err)
	}
}

func TestTwoLocations(t *testing.T) {
	var base string
	base = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Location"] = []string{base + "/a", "http://evil.example/"}
		w.WriteHeader(http.StatusFound)
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}})
	_, err := get(t, c, base)
	wantRefused(t, err, 1, "")
}

// TestLargeAnswer: a gigabyte costs no more memory than the limit, whether it
// is announced or not.
func TestLargeAnswer(t *testing.T) {
	chunk := make([]byte, 64<<10)
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/announced" {
			w.Header().Set("Content-Length", strconv.Itoa(1<<30))
		}
		for range 1 << 30 / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}, MaxResponse: 1 << 20})
	for _, path := range []string{"/", "/announced"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := get(t, c, base+path)
		runtime.ReadMemStats(&after)
		var large *TooLarge
		if !errors.As(err, &large) || large.What != "response body" || large.Limit != 1<<20 {
			t.Errorf("%s: %v", path, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
			t.Errorf("%s: %d bytes allocated", path, n)
		}
	}
	if got := c.Counters().Received; got != 1<<20+1 {
		t.Errorf("%d bytes received", got)
	}
}

func TestLimitIsExact(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}, MaxRequest: 1001, MaxResponse: 1000})
	for n, what := range map[int]string{1000: "", 1001: "response body", 1002: "request body"} {
		r, err := c.Do(t.Context(), Request{Method: "POST", URL: base, Body: make([]byte, n)})
		if err == nil && len(r.Body) != n {
			t.Errorf("%d of %d bytes came back: %v", len(r.Body), n, r)
		}
		var large *TooLarge
		if errors.As(err, &large) != (what != "") || large != nil && large.What != what {
			t.Errorf("%d bytes: %v, want %q", n, err, what)
		}
	}
}

// TestGzipBomb: nothing is decompressed.
func TestGzipBomb(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.CopyN(z, zeros{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	z.Close()
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb.Bytes())
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}})
	r, err := get(t, c, base)
	if err != nil || !bytes.Equal(r.Body, bomb.Bytes()) {
		t.Errorf("%d bytes, want the %d that were sent: %v", len(r.Body), bomb.Len(), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLargeHeader(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 100 {
			w.Header().Set("X-"+strconv.Itoa(i), strings.Repeat("x", 1000))
		}
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}, MaxHeader: 8 << 10})
	var large *TooLarge
	if _, err := get(t, c, base); !errors.As(err, &large) || large.What != "response header" {
		t.Errorf("answer: %v", err)
	}
	_, err := c.Do(t.Context(), Request{Method: "GET", URL: base, Header: http.Header{"X": {strings.Repeat("x", 9<<10)}}})
	if !errors.As(err, &large) || large.What != "request header" {
		t.Errorf("request: %v", err)
	}
}

func TestUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()
	l.Close()
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}})
	var u *Unavailable
	if _, err := get(t, c, base); !errors.As(err, &u) || !strings.Contains(u.Reason, "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestConcurrency(t *testing.T) {
	const limit, all = 3, 12
	var running, most atomic.Int32
	arrived := make(chan struct{}, all)
	release := make(chan struct{})
	base := serve(t, func(http.ResponseWriter, *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		arrived <- struct{}{}
		<-release
		running.Add(-1)
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}, Concurrency: limit})
	done := make(chan error, all)
	for range all {
		go func() {
			_, err := c.Do(t.Context(), Request{Method: "GET", URL: base})
			done <- err
		}()
	}
	for range limit {
		<-arrived
	}
	// All slots are taken: one more request waits, and its context ends that.
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := c.Do(ctx, Request{Method: "GET", URL: base})
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("a waiting request that is cancelled: %v", err)
	}
	close(release)
	for range all {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if most.Load() != limit {
		t.Errorf("%d ran at once, want %d", most.Load(), limit)
	}
}

func TestCancelAndClose(t *testing.T) {
	arrived := make(chan struct{})
	base := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	c := newClient(t, Policy{Hosts: []HostRule{ruleFor(t, base)}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Do(ctx, Request{Method: "GET", URL: base})
		done <- err
	}()
	<-arrived
	cancel()
	var timeout *Timeout
	if err := <-done; !errors.Is(err, context.Canceled) || errors.As(err, &timeout) {
		t.Errorf("cancelled: %v", err)
	}
	c.Close()
	if _, err := get(t, c, base); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func BenchmarkPost(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	c, err := New(Policy{Hosts: []HostRule{{Scheme: "http", Host: "127.0.0.1", Port: uint16(port), Methods: []string{"POST"}}}})
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 100<<10)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := c.Do(b.Context(), Request{Method: "POST", URL: s.URL, Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
}
