package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// connect makes the connection for one request.
func (c *Client) connect(ctx context.Context, network, hostport string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, hostport)
	if err != nil {
		return nil, err
	}
	return &quiet{Conn: conn, asked: make(chan struct{})}, nil
}

func (c *Client) connectTLS(ctx context.Context, network, hostport string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx, network, hostport)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.p.Timeout)
	defer cancel()
	config := c.tls.Clone()
	config.ServerName = host
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		// The handshake's error says more than that of closing.
		_ = conn.Close()
		return nil, err
	}
	return &quiet{Conn: secure, asked: make(chan struct{})}, nil
}

// dialChecked connects to host:port. The check runs between the choice of an
// address and the connection to it, for each address that is tried: what a
// name resolved to at any other time does not matter.
func (c *Client) dialChecked(ctx context.Context, _, hostport string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{
		Timeout:  c.p.Timeout,
		Resolver: c.p.Resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return &addressError{host: host, why: "not an address that can be checked"}
			}
			return c.checkAddress(host, to.Addr())
		},
	}
	return d.DialContext(ctx, "tcp", hostport)
}

// quiet holds back what a server says before it has been asked anything:
// net/http would write it to the standard logger.
type quiet struct {
	net.Conn
	once  sync.Once
	asked chan struct{} // closed by the first Write, or by Close
}

func (q *quiet) ask() { q.once.Do(func() { close(q.asked) }) }

func (q *quiet) Read(p []byte) (int, error) {
	<-q.asked
	return q.Conn.Read(p)
}

func (q *quiet) Write(p []byte) (int, error) {
	q.ask()
	return q.Conn.Write(p)
}

func (q *quiet) Close() error {
	err := q.Conn.Close()
	q.ask()
	return err
}
