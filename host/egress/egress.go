// Package egress makes HTTP requests for plugins that have no network of their
// own. What may be asked of whom is a [Policy], and the policy denies what it
// does not name.
//
// Guarantees:
//   - A request goes to a host, port, scheme, method and path that a [HostRule]
//     names, and so does every redirect: each hop is checked as the first URL
//     is, and a hop that is not granted is refused, not handed over.
//   - Names are exact. A wildcard would grant whatever the owner of a zone, or
//     whoever takes over a forgotten name in it, points somewhere else.
//   - The address is checked when the connection is made, on the address that
//     it is made to, so that no resolver, cache or second lookup can put another
//     one in its place. Loopback, private, link-local and other special
//     addresses are refused, in IPv6 disguise too, unless a prefix in
//     Policy.Private names them or the rule's host is that very address.
//   - Secrets are put into header values by the host and bound to rules. A
//     redirect to another origin carries none, and none comes back after it.
//     They never stand in an error: no text of an error is the server's, but
//     the redacted origin that a redirect leads to.
//   - Time, sizes in both directions and concurrency are bounded. Nothing is
//     decompressed. No proxy, no cookie, no HTTP/2, no upgrade.
//
// Not guaranteed: that a server keeps a secret which it was sent. One that works
// together with the plugin can hand it over in a coding of its own. Against a
// server that merely repeats its request, answers are redacted: the secret as
// it is, percent-encoded, quoted, in hexadecimal and in base64; and the body of
// an answer that is compressed although nobody asked for it is withheld.
package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [Policy].
const (
	DefaultTimeout      = 10 * time.Second
	DefaultMaxRequest   = 8 << 20
	DefaultMaxResponse  = 1 << 20
	DefaultMaxHeader    = 32 << 10
	DefaultConcurrency  = 4
	DefaultMaxRedirects = 5
)

// Policy says what may be requested. The zero value grants nothing.
type Policy struct {
	// Hosts are the rules; a request needs one that fits.
	Hosts []HostRule
	// Private lists address ranges that host names may resolve to although
	// they are not public: 10.1.0.0/16, 127.0.0.0/8. A rule whose host is an IP
	// address needs no entry. Unspecified, multicast and broadcast addresses
	// are refused all the same.
	Private []netip.Prefix
	// Secrets by the name that [HostRule].Secrets and headers use.
	Secrets map[string]Secret
	// Timeout bounds one Do, from waiting for a slot to the end of the body,
	// over all redirects.
	Timeout time.Duration
	// MaxRequest and MaxResponse bound bodies, MaxHeader the header of a
	// request and of an answer, in bytes.
	MaxRequest, MaxResponse, MaxHeader int64
	// Concurrency is how many requests run at once; others wait.
	Concurrency int
	// MaxRedirects is how many redirects are followed, 0 the default, negative
	// none: then the plugin gets the redirect as the answer.
	MaxRedirects int
	// RootCAs are the trusted authorities, nil the system's.
	RootCAs *x509.CertPool
	// Resolver resolves host names, nil the system's.
	Resolver *net.Resolver
}

// Request is what a plugin asks for.
type Request struct {
	Method string
	URL    string
	// Header values may hold {{secret NAME}}, which the host replaces.
	Header http.Header
	Body   []byte
}

// Response is the answer, redacted.
type Response struct {
	Status int
	// Header lacks hop-by-hop fields, Content-Length and Set-Cookie.
	Header http.Header
	// Body is as the server sent it: nothing is decompressed.
	Body []byte
	// Withheld tells that the body was compressed although a secret was sent,
	// and therefore could not be redacted; Body is empty then.
	Withheld bool
	// URL is where the answer comes from, without its query, and Redirects how
	// many redirects led there.
	URL       string
	Redirects int
}

// Counters are totals since New.
type Counters struct {
	Requests, Refused uint64
	// Sent and Received are bytes of bodies.
	Sent, Received uint64
}

// Client makes requests under a policy. Its methods may be called at once from
// several goroutines.
type Client struct {
	p      Policy // without its secrets
	rules  []rule
	vault  *vault
	slots  chan struct{}
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	tls    *tls.Config
	direct *http.Transport

	mu      sync.Mutex
	closed  bool // guarded by mu
	running sync.WaitGroup

	requests, refused, sent, received atomic.Uint64
}

// New checks a policy. Its errors name the rule or secret and the mend.
func New(p Policy) (*Client, error) {
	if p.Timeout < 0 || p.MaxRequest < 0 || p.MaxResponse < 0 || p.MaxHeader < 0 || p.Concurrency < 0 {
		return nil, errors.New("http policy: a limit is negative; 0 is the default")
	}
	orDefault(&p.Timeout, DefaultTimeout)
	orDefault(&p.MaxRequest, DefaultMaxRequest)
	orDefault(&p.MaxResponse, DefaultMaxResponse)
	orDefault(&p.MaxHeader, DefaultMaxHeader)
	orDefault(&p.Concurrency, DefaultConcurrency)
	orDefault(&p.MaxRedirects, DefaultMaxRedirects)
	p.Private = slices.Clone(p.Private)
	for i, prefix := range p.Private {
		if !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("http policy: private range %s: write the range's first address and its length, IPv4 as IPv4", prefix)
		}
		p.Private[i] = prefix
	}
	c := &Client{slots: make(chan struct{}, p.Concurrency)}
	var err error
	if c.vault, err = newVault(p.Secrets); err != nil {
		return nil, err
	}
	for i, h := range p.Hosts {
		r, err := newRule(h, p.Secrets)
		if err != nil {
			return nil, fmt.Errorf("http policy: host rule %d (%q): %w", i+1, h.Host, err)
		}
		c.rules = append(c.rules, r)
	}
	p.Secrets, p.Hosts = nil, nil
	c.p = p
	c.dial = c.dialChecked
	c.tls = &tls.Config{RootCAs: p.RootCAs, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	c.direct = &http.Transport{
		Proxy:              nil, // and none from the environment
		DialContext:        c.connect,
		DialTLSContext:     c.connectTLS,
		DisableCompression: true,
		// A connection serves one request. While one is idle net/http writes
		// whatever comes on it to the standard logger, and that may be a
		// secret; and a request whose kept connection has just ended might be
		// sent twice.
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: p.MaxHeader,
		Protocols:              new(http.Protocols),
	}
	c.direct.Protocols.SetHTTP1(true)
	return c, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Counters returns the totals so far.
func (c *Client) Counters() Counters {
	return Counters{c.requests.Load(), c.refused.Load(), c.sent.Load(), c.received.Load()}
}

// Close waits for running requests, which end within their timeout. No
// connection outlives its request.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
}

// Do makes a request and follows redirects. Its errors are *[Refused] (policy),
// *[Timeout], *[TooLarge], *[Unavailable] (whatever keeps the server from
// answering), net.ErrClosed, or that of ctx when the caller gave up. After any
// error but *Refused at hop 0 and a request that is too large, it is unknown
// whether the server has acted on the request.
func (c *Client) Do(ctx context.Context, r Request) (Response, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Response{}, fmt.Errorf("http request: %w", net.ErrClosed)
	}
	c.running.Add(1)
	c.mu.Unlock()
	defer c.running.Done()
	c.requests.Add(1)
	resp, err := c.do(ctx, r)
	if e := (*Refused)(nil); errors.As(err, &e) {
		c.refused.Add(1)
	}
	return resp, err
}

func (c *Client) do(ctx context.Context, r Request) (Response, error) {
	e := exchange{c: c, method: r.Method, body: r.Body}
	if err := e.start(r); err != nil {
		return Response{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.p.Timeout, errOurs)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return Response{}, e.failed(ctx, ctx.Err())
	}
	for {
		resp, err := e.send(ctx)
		if err != nil {
			return Response{}, err
		}
		if next, ok := redirect(resp); ok && c.p.MaxRedirects > 0 {
			// The connection is not worth reading a body of unknown length.
			_ = resp.Body.Close()
			if err := e.follow(resp.StatusCode, next); err != nil {
				return Response{}, err
			}
			continue
		}
		return e.read(ctx, resp)
	}
}

// exchange is one request on its way through redirects.
type exchange struct {
	c      *Client
	method string
	body   []byte
	header []field
	at     target
	hop    int
	// crossed is set by the first redirect to another origin, for good.
	crossed bool
	// secret tells that one was sent, at any hop.
	secret bool
}

// start checks the request as the plugin made it.
func (e *exchange) start(r Request) error {
	at, err := parseTarget(r.URL)
	if err != nil {
		return e.refuse(nil, err.Error())
	}
	e.at = at
	if !slices.Contains(methods, r.Method) {
		return e.refuse(&at, "the method is none of "+strings.Join(methods, ", "))
	}
	if len(r.Body) > 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return e.refuse(&at, r.Method+" with a body")
	}
	granted, reason := e.c.granted(at, r.Method)
	if reason != "" {
		return e.refuse(&at, reason)
	}
	if e.header, err = parseHeader(r.Header); err != nil {
		return e.refuse(&at, err.Error())
	}
	for _, f := range e.header {
		for _, name := range f.secrets {
			if !mayUse(granted, name) {
				// The same words whether there is such a secret or not.
				return e.refuse(&at, fmt.Sprintf("header %s: no secret %q is bound to this host; name it in the rule's secrets", f.name, name))
			}
		}
		if len(f.secrets) > 0 && slices.ContainsFunc(e.header, func(f field) bool { return f.name == "Range" || f.name == "If-Range" }) {
			return e.refuse(&at, "Range together with a secret: parts of an answer cannot be redacted")
		}
	}
	if int64(len(r.Body)) > e.c.p.MaxRequest {
		return e.tooLarge("request body", e.c.p.MaxRequest)
	}
	return nil
}

// send makes the request of one hop, which has been checked.
func (e *exchange) send(ctx context.Context) (*http.Response, error) {
	granted, reason := e.c.granted(e.at, e.method)
	if reason != "" {
		return nil, e.refuse(&e.at, reason)
	}
	req, err := http.NewRequestWithContext(ctx, e.method, e.at.url().String(), bytes.NewReader(e.body))
	if err != nil {
		return nil, e.refuse(&e.at, "the URL cannot be written as a request")
	}
	// What was checked is what is used: not what a parser makes of its text.
	req.URL, req.Host = e.at.url(), e.at.hostHeader()
	req.Header.Set("User-Agent", "audit-host")
	size, secret := e.fillHeader(req.Header, granted)
	if secret {
		e.secret = true
		req.Header.Set("Accept-Encoding", "identity")
	}
	if int64(size) > e.c.p.MaxHeader {
		return nil, e.tooLarge("request header", e.c.p.MaxHeader)
	}
	e.c.sent.Add(uint64(len(e.body)))
	resp, err := e.c.direct.RoundTrip(req)
	if err != nil {
		return nil, e.failed(ctx, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		return nil, &Unavailable{e.hop, e.show(), "it wants to switch protocols"}
	}
	return resp, nil
}

// redirect returns where an answer leads, if it leads anywhere.
func redirect(r *http.Response) (string, bool) {
	switch r.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		l := r.Header["Location"]
		return strings.Join(l, "\n"), len(l) > 0 // two of them are no URL
	}
	return "", false
}

// follow checks a redirect and moves on to it. The target comes first, so that
// a redirect that leads out is always told as such.
func (e *exchange) follow(status int, location string) error {
	from := e.at
	e.hop++
	to, err := from.resolve(location)
	if err != nil {
		return e.refuse(nil, "redirect from "+from.origin()+": "+err.Error())
	}
	method := e.method
	if status == http.StatusSeeOther && method != http.MethodHead {
		method = http.MethodGet
	}
	e.at = to
	if _, reason := e.c.granted(to, method); reason != "" {
		return e.refuse(&to, "redirect from "+from.origin()+": "+reason)
	}
	if e.hop > e.c.p.MaxRedirects {
		return e.refuse(&to, fmt.Sprintf("more than %d redirects", e.c.p.MaxRedirects))
	}
	if method == e.method && (status == http.StatusMovedPermanently || status == http.StatusFound) &&
		method != http.MethodGet && method != http.MethodHead {
		// Browsers make a GET of it. The body would be lost and the answer to
		// the GET would look like success. 303 says that the body has arrived.
		return e.refuse(&to, fmt.Sprintf("redirect %d of a %s would lose its body; the server has to answer 307 or 308", status, method))
	}
	if to.origin() != from.origin() {
		e.crossed = true
	}
	if method != e.method {
		e.method, e.body = method, nil
		e.header = slices.DeleteFunc(e.header, func(f field) bool { return strings.HasPrefix(f.name, "Content-") })
	}
	return nil
}

// read takes the body and redacts the answer.
func (e *exchange) read(ctx context.Context, resp *http.Response) (Response, error) {
	limit := e.c.p.MaxResponse
	if resp.ContentLength > limit && e.method != http.MethodHead {
		_ = resp.Body.Close()
		return Response{}, e.tooLarge("response body", limit)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	_ = resp.Body.Close()
	e.c.received.Add(uint64(len(body)))
	if err != nil {
		return Response{}, e.failed(ctx, err)
	}
	if int64(len(body)) > limit {
		return Response{}, e.tooLarge("response body", limit)
	}
	r := Response{Status: resp.StatusCode, Header: e.c.vault.header(resp.Header), URL: e.show(), Redirects: e.hop}
	if e.secret && compressed(resp.Header) {
		r.Withheld = true
		return r, nil
	}
	r.Body = e.c.vault.body(body)
	return r, nil
}

func compressed(h http.Header) bool {
	for _, v := range h["Content-Encoding"] {
		if !strings.EqualFold(strings.TrimSpace(v), "identity") && v != "" {
			return true
		}
	}
	return false
}
