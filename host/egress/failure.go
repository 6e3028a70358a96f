package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"
)

// Refused is a request that the policy does not allow. Hop 0 is the URL that
// the plugin gave, hop 1 where the first redirect leads, and so on. URL is
// without user and query, and from hop 1 on without the path: redirects are
// the server's words.
type Refused struct {
	Hop         int
	URL, Reason string
}

// Error names the hop and the reason.
func (e *Refused) Error() string {
	return fmt.Sprintf("http request refused at hop %d (%s): %s", e.Hop, e.URL, e.Reason)
}

// LogValue gives hop, url and reason as attributes.
func (e *Refused) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("hop", e.Hop), slog.String("url", e.URL), slog.String("reason", e.Reason))
}

// Timeout is a request that did not end in time; it wraps
// context.DeadlineExceeded.
type Timeout struct {
	Hop   int
	URL   string
	Limit time.Duration
}

// Error names the hop and the limit.
func (e *Timeout) Error() string {
	return fmt.Sprintf("http request at hop %d (%s): not done within %v", e.Hop, e.URL, e.Limit)
}

// Unwrap returns context.DeadlineExceeded.
func (e *Timeout) Unwrap() error { return context.DeadlineExceeded }

// TooLarge is a request or an answer beyond a limit. What is "request body",
// "request header", "response body" or "response header", Limit in bytes.
type TooLarge struct {
	Hop   int
	URL   string
	What  string
	Limit int64
}

// Error names what is too large, and the limit.
func (e *TooLarge) Error() string {
	return fmt.Sprintf("http request at hop %d (%s): the %s is larger than %d bytes", e.Hop, e.URL, e.What, e.Limit)
}

// Unavailable is a server that could not be reached or gave no proper answer.
// Reason is never the server's text.
type Unavailable struct {
	Hop         int
	URL, Reason string
}

// Error names the hop and the reason.
func (e *Unavailable) Error() string {
	return fmt.Sprintf("http request at hop %d (%s): %s", e.Hop, e.URL, e.Reason)
}

const maxShown = 300 // bytes of a URL

// errOurs is the cause of a context that the policy's timeout has ended.
var errOurs = errors.New("timeout of the policy")

// show is the present hop's URL for errors and answers.
func (e *exchange) show() string {
	if e.at.host == "" {
		return "an unreadable URL"
	}
	url := e.at.origin()
	if e.hop == 0 {
		url += e.at.path
	}
	if url = e.c.vault.text(url); len(url) > maxShown {
		url = url[:maxShown] + "..."
	}
	return url
}

// refuse makes a Refused; at is nil if the URL could not be read.
func (e *exchange) refuse(at *target, reason string) error {
	url := "an unreadable URL"
	if at != nil {
		url = e.show()
	}
	return &Refused{e.hop, url, reason}
}

func (e *exchange) tooLarge(what string, limit int64) error {
	return &TooLarge{e.hop, e.show(), what, limit}
}

// failed sorts the errors of the HTTP client. None of them is wrapped, because
// their texts hold what the server wrote.
func (e *exchange) failed(ctx context.Context, err error) error {
	var refused *addressError
	var timeout net.Error
	switch {
	case errors.As(err, &refused):
		return e.refuse(&e.at, refused.Error())
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errOurs):
		return fmt.Errorf("http request at hop %d (%s): %w", e.hop, e.show(), ctx.Err())
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return &Timeout{e.hop, e.show(), e.c.p.Timeout}
	case strings.Contains(err.Error(), "server response headers exceeded"):
		// net/http has no type for it; a test holds this text.
		return e.tooLarge("response header", e.c.p.MaxHeader)
	}
	return &Unavailable{e.hop, e.show(), explain(err)}
}

// explain names a failure in our own words.
func explain(err error) string {
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var errno syscall.Errno
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host name does not exist"
	case errors.As(err, &dns):
		return "the host name could not be resolved"
	case errors.As(err, &authority):
		return "its certificate is from an unknown authority"
	case errors.As(err, &hostname):
		return "its certificate is for another name"
	case errors.As(err, &verify):
		return "its certificate is not valid"
	case errors.As(err, &record):
		return "it does not speak TLS"
	case errors.As(err, &alert):
		return "TLS: " + alert.Error()
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "the connection ended before the answer did"
	}
	return "the answer is not proper HTTP/1.1, or the connection failed"
}
