package egress

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// methods are all that can be granted. CONNECT and TRACE are not HTTP requests
// to a host: one is a tunnel, the other hands back the header with its secrets.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
	http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// HostRule grants requests to one origin.
type HostRule struct {
	// Scheme is https or http; https if empty.
	Scheme string
	// Host is an exact name in lower case (IDN as xn--) or an IP address.
	Host string
	// Port is that of the scheme if 0.
	Port uint16
	// Methods are those granted, at least one.
	Methods []string
	// PathPrefix, if not empty, starts with / and grants this path and what
	// lies below it: /in grants /in and /in/x and not /inside.
	PathPrefix string
	// Secrets names those that may be sent under this rule.
	Secrets []string
}

type rule struct {
	HostRule
	host string
	addr netip.Addr // valid if the host is an address
	port uint16
}

func newRule(h HostRule, secrets map[string]Secret) (rule, error) {
	r := rule{HostRule: h, port: h.Port}
	if r.Scheme == "" {
		r.Scheme = "https"
	}
	if r.Scheme != "https" && r.Scheme != "http" {
		return r, fmt.Errorf("scheme %q is neither https nor http", r.Scheme)
	}
	if r.port == 0 {
		r.port = defaultPort(r.Scheme)
	}
	var err error
	if r.host, r.addr, err = parseHost(strings.TrimSuffix(strings.TrimPrefix(h.Host, "["), "]")); err != nil {
		return r, err
	}
	if r.host != h.Host && "["+r.host+"]" != h.Host {
		return r, fmt.Errorf("write the host as %s", r.host)
	}
	if r.addr.IsValid() {
		if what, never := special(r.addr); never {
			return r, fmt.Errorf("the address is %s and cannot be granted", what)
		}
	}
	if len(h.Methods) == 0 {
		return r, errors.New("no methods; name at least one, POST say")
	}
	r.Methods = slices.Clone(h.Methods)
	for _, m := range h.Methods {
		if !slices.Contains(methods, m) {
			return r, fmt.Errorf("method %q is none of %s", m, strings.Join(methods, ", "))
		}
	}
	if p := h.PathPrefix; p != "" {
		if p[0] != '/' {
			return r, fmt.Errorf("path prefix %q does not start with /", p)
		}
		t, err := parseTarget("http://x" + p)
		if err != nil || t.query != "" || t.path != p {
			return r, fmt.Errorf("path prefix %q is not a plain path", p)
		}
		if why := t.ambiguous(); why != "" {
			return r, fmt.Errorf("path prefix %q: %s", p, why)
		}
	}
	r.Secrets = slices.Clone(h.Secrets)
	for _, s := range h.Secrets {
		if _, ok := secrets[s]; !ok {
			return r, fmt.Errorf("there is no secret %q", s)
		}
	}
	return r, nil
}

// granted returns the rules that grant a request, or why there is none.
func (c *Client) granted(t target, method string) (rules []*rule, reason string) {
	// The reason is that of the rule which came nearest.
	near := 0
	why := func(depth int, text string) {
		if depth > near {
			near, reason = depth, text
		}
	}
	for i := range c.rules {
		r := &c.rules[i]
		switch {
		case r.host != t.host:
			why(1, "the host is not granted")
		case r.port != t.port:
			why(2, fmt.Sprintf("port %d of the host is not granted", t.port))
		case r.Scheme != t.scheme:
			why(3, t.scheme+" is not granted for this host and port")
		case !slices.Contains(r.Methods, method):
			why(4, method+" is not granted for this host")
		case !r.underPrefix(t.path):
			why(5, "the path is not granted")
		case r.PathPrefix != "" && t.ambiguous() != "":
			why(6, "the path could be read as another one: "+t.ambiguous())
		default:
			rules = append(rules, r)
		}
	}
	switch {
	case len(rules) > 0:
		return rules, ""
	case len(c.rules) == 0:
		return nil, "no host is granted"
	}
	return nil, reason
}

func (r *rule) underPrefix(path string) bool {
	p := r.PathPrefix
	if p == "" {
		return true
	}
	rest, ok := strings.CutPrefix(path, p)
	return ok && (rest == "" || p[len(p)-1] == '/' || rest[0] == '/')
}

// mayUse tells whether a secret is bound to one of the rules.
func mayUse(rules []*rule, secret string) bool {
	return slices.ContainsFunc(rules, func(r *rule) bool { return slices.Contains(r.Secrets, secret) })
}
