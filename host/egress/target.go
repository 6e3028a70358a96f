package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const maxURL = 8 << 10

// target is a URL taken apart and put into the one form in which it is both
// checked and used.
type target struct {
	scheme string
	host   string // lower-case name or canonical address, without brackets
	port   uint16
	path   string // escaped, starts with /
	query  string
}

func defaultPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

// parseTarget reads an absolute URL. It is stricter than any standard: what
// two parsers could read differently is an error. Errors hold none of the text.
func parseTarget(text string) (target, error) {
	u, err := parseURL(text)
	if err != nil {
		return target{}, err
	}
	return newTarget(u)
}

func parseURL(text string) (*url.URL, error) {
	if len(text) > maxURL {
		return nil, fmt.Errorf("the URL is longer than %d bytes", maxURL)
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}", c) >= 0 {
			return nil, fmt.Errorf("the URL holds the byte %#02x; percent-encode it, and write host names in ASCII (xn--)", c)
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("the URL cannot be parsed")
	}
	return u, nil
}

func newTarget(u *url.URL) (target, error) {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return target{}, errors.New("the URL is neither http nor https")
	case u.Opaque != "" || u.Host == "":
		return target{}, errors.New("the URL names no host")
	case u.User != nil:
		return target{}, errors.New("the URL holds a user")
	}
	t := target{scheme: u.Scheme, port: defaultPort(u.Scheme), path: u.EscapedPath(), query: u.RawQuery}
	host, port := u.Host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host, port = host[:i], host[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port != strconv.FormatUint(n, 10) {
			return target{}, errors.New("the port is not a plain number from 1 to 65535")
		}
		t.port = uint16(n)
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	var addr netip.Addr
	var err error
	if t.host, addr, err = parseHost(inner); err != nil {
		return target{}, err
	}
	if bracketed != closed || bracketed != (addr.IsValid() && addr.Is6()) {
		return target{}, errors.New("brackets belong around an IPv6 address and nothing else")
	}
	if t.path == "" {
		t.path = "/"
	}
	if t.path[0] != '/' {
		return target{}, errors.New("the path does not start with /")
	}
	return t, nil
}

// parseHost reads a host name or an address. A name in another spelling of an
// address (0177.1, 0x7f000001, 2130706433) is an error: there resolvers differ.
func parseHost(s string) (string, netip.Addr, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" || addr.Is4In6() {
			return "", netip.Addr{}, errors.New("the address has a zone or is IPv4 in IPv6; write it plainly")
		}
		return addr.String(), addr, nil
	}
	s = strings.ToLower(s)
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return "", netip.Addr{}, errors.New("the host is neither a name (without a dot at its end) nor an address")
		}
		for _, c := range []byte(l) {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return "", netip.Addr{}, errors.New("the host holds a character that host names in ASCII (xn--) do not have")
			}
		}
	}
	last := labels[len(labels)-1]
	if len(s) > 253 || '0' <= last[0] && last[0] <= '9' {
		// No top-level domain starts with a digit; numbers of all bases do.
		return "", netip.Addr{}, errors.New("the host looks like an address and is none in its plain spelling")
	}
	return s, netip.Addr{}, nil
}

// resolve reads a Location relative to t.
func (t target) resolve(location string) (target, error) {
	u, err := parseURL(location)
	if err != nil {
		return target{}, err
	}
	return newTarget(t.url().ResolveReference(u))
}

func (t target) hostHeader() string {
	host := t.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.port != defaultPort(t.scheme) {
		return fmt.Sprintf("%s:%d", host, t.port)
	}
	return host
}

// origin is scheme, host and port, the port always.
func (t target) origin() string {
	return t.scheme + "://" + net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

func (t target) url() *url.URL {
	// EscapedPath made the path, so it can be unescaped.
	path, err := url.PathUnescape(t.path)
	if err != nil {
		path = t.path
	}
	return &url.URL{Scheme: t.scheme, Host: t.hostHeader(), Path: path, RawPath: t.path, RawQuery: t.query}
}

// ambiguous says why a server might take the path for another one than it
// looks like, or "". Where a prefix limits the path, such paths are refused.
func (t target) ambiguous() string {
	path, err := url.PathUnescape(t.path)
	if err != nil {
		return "it cannot be unescaped"
	}
	for seg := range strings.SplitSeq(path, "/") {
		plain, _, _ := strings.Cut(seg, ";") // /..;/ is /../ to some
		if plain == "." || plain == ".." {
			return "it holds . or .. as a segment"
		}
	}
	if strings.Contains(path, "//") {
		return "it holds an empty segment"
	}
	if strings.Count(path, "/") != strings.Count(t.path, "/") || strings.ContainsAny(path, "\\%\x00") {
		return "it holds an encoded slash, backslash, percent sign or NUL"
	}
	return ""
}
