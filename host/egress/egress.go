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
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
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
	// StandIn answers requests that the policy allows in place of the network;
	// nil is the network. With it nothing is resolved, connected to or sent.
	StandIn http.RoundTripper
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
	trip   http.RoundTripper // direct, or what stands in for it

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
	if c.trip = p.StandIn; c.trip == nil {
		c.trip = c.direct
	}
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
