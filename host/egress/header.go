package egress

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// field is one header field of a request, its value still with the handles.
type field struct {
	name, value string
	secrets     []string
}

// refusedFields belong to the connection, to the way that the message is
// framed, or to the host. Who sets them can make two servers on the way see
// different requests. A cookie is state that nobody granted.
var refusedFields = []string{
	"Host", "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Content-Length", "Expect", "Cookie", "Cookie2", "Http2-Settings", "Via", "Forwarded",
}

// keptFields go along to another origin: they say how to talk, not who talks.
var keptFields = []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Encoding", "Content-Type", "User-Agent"}

// parseHeader checks a plugin's header. Errors hold names that are plain
// tokens, and no values.
func parseHeader(h http.Header) ([]field, error) {
	var fields []field
	for name, values := range h {
		if !isToken(name) {
			return nil, fmt.Errorf("a header name is empty or holds a character that is not allowed: %q", shorten(name))
		}
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		// Some servers take Content_Length for Content-Length.
		plain := textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if slices.Contains(refusedFields, plain) || strings.HasPrefix(plain, "Proxy-") {
			return nil, fmt.Errorf("header %s is the host's to set", plain)
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return nil, fmt.Errorf("header %s: the value holds a control character", canonical)
			}
			f := field{name: canonical, value: v}
			if _, err := expand(v, func(name string) string { f.secrets = append(f.secrets, name); return "" }); err != nil {
				return nil, fmt.Errorf("header %s: %w", canonical, err)
			}
			fields = append(fields, f)
		}
	}
	// A map has no order; requests of equal content are equal.
	slices.SortStableFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return fields, nil
}

func shorten(s string) string { return s[:min(len(s), 40)] }

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// fillHeader sets the fields of the present hop, and returns their size and
// whether a secret is among them. After a redirect a field with a secret is
// left out where the secret is not bound to the rule, and everywhere once the
// origin has changed.
func (e *exchange) fillHeader(h http.Header, granted []*rule) (size int, secret bool) {
	for _, f := range e.header {
		if e.crossed && (len(f.secrets) > 0 || !slices.Contains(keptFields, f.name)) {
			continue
		}
		if slices.ContainsFunc(f.secrets, func(name string) bool { return !mayUse(granted, name) }) {
			continue
		}
		// parseHeader has expanded it once: there is no error here.
		v, _ := expand(f.value, e.c.vault.reveal)
		secret = secret || len(f.secrets) > 0
		size += len(f.name) + len(v) + len(": \r\n")
		if f.name == "User-Agent" {
			h.Set(f.name, v)
		} else {
			h.Add(f.name, v)
		}
	}
	return size, secret
}
