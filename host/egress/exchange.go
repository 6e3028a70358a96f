package egress

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

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
	resp, err := e.c.trip.RoundTrip(req)
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
