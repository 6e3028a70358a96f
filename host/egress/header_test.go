package egress

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestHeadersThatAreRefused(t *testing.T) {
	c := newClient(t, Policy{Hosts: []HostRule{{Scheme: "http", Host: "granted.example", Methods: []string{"POST"}}}})
	c.dial = func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, io.EOF
	}
	for _, name := range []string{
		"Host", "host", "HOST", "Connection", "Keep-Alive", "Proxy-Authorization", "proxy-connection", "Proxy-Anything", "TE", "Trailer",
		"Transfer-Encoding", "transfer_encoding", "Content_Length", "Upgrade", "Content-Length", "Expect", "Cookie", "HTTP2-Settings",
		"", " Host", "Host ", "X Y", "X:Y", "X\r\nHost", "X\x00", "Transfer-Encoding\t", "Tränsfer", "X\nY: z", "{{secret token}}",
	} {
		_, err := c.Do(t.Context(), Request{Method: "POST", URL: "http://granted.example/", Header: http.Header{name: {"x"}}})
		r := wantRefused(t, err, 0, "header")
		if strings.ContainsAny(r.Error(), "\r\n\x00") {
			t.Errorf("%q: the error is not printable: %q", name, r.Error())
		}
	}
	for _, value := range []string{"a\r\nHost: evil", "a\nb", "a\rb", "a\x00b", "\x7f", "a\r", "\x1b[31m"} {
		_, err := c.Do(t.Context(), Request{Method: "POST", URL: "http://granted.example/", Header: http.Header{"X": {"fine", value}}})
		wantRefused(t, err, 0, "control character")
	}
}

// FuzzHeader gives the client any header field and body. What a server reads
// is one request with the fields that the host allows, and nothing after it.
func FuzzHeader(f *testing.F) {
	for _, s := range [][2]string{{"X-Test", "y"}, {"Content-Length", "0"}, {"Transfer-Encoding", "chunked"}, {"X\r\nY", "z"}, {"A", "b\r\n\r\nGET / HTTP/1.1"}, {"a_b", "\t"}, {"User-Agent", "x"}, {"Range", "é"}} {
		f.Add(s[0], s[1], []byte("0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"))
	}
	c, err := New(Policy{Hosts: []HostRule{{Scheme: "http", Host: "granted.example", Methods: []string{"POST"}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, value string, body []byte) {
		done := make(chan struct{})
		dialled := false
		c.dial = func(context.Context, string, string) (net.Conn, error) {
			dialled = true
			here, there := net.Pipe()
			go func() {
				defer close(done)
				defer there.Close()
				in := bufio.NewReader(there)
				r, err := http.ReadRequest(in)
				if err != nil {
					t.Errorf("%q: %q: the server cannot read it: %v", name, value, err)
					return
				}
				got, err := io.ReadAll(r.Body)
				if err != nil || !bytes.Equal(got, body) || in.Buffered() > 0 || r.ContentLength != int64(len(body)) || len(r.TransferEncoding) > 0 {
					t.Errorf("%q: %q: body %q, then %d bytes, %v", name, value, got, in.Buffered(), err)
				}
				for n := range r.Header {
					if n != "User-Agent" && n != "Content-Length" && n != "Connection" && !strings.EqualFold(n, name) {
						t.Errorf("%q: %q: a field %s appears", name, value, n)
					}
				}
				if r.Host != "granted.example" || r.RequestURI != "/" {
					t.Errorf("%q: %q: host %s, %s", name, value, r.Host, r.RequestURI)
				}
				_, _ = io.WriteString(there, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			}()
			return here, nil
		}
		_, err := c.Do(t.Context(), Request{Method: "POST", URL: "http://granted.example/", Header: http.Header{name: {value}}, Body: body})
		if dialled {
			<-done
		}
		if _, refused := err.(*Refused); refused == dialled || err != nil && dialled {
			t.Errorf("%q: %q: dialled %v: %v", name, value, dialled, err)
		}
	})
}

// TestHeadersAcrossOrigins: what was meant for one server is not told another,
// also when the other one leads back.
func TestHeadersAcrossOrigins(t *testing.T) {
	type seen struct {
		where string
		names []string
	}
	var log []seen
	note := func(where string, r *http.Request) {
		s := seen{where: where}
		for n := range r.Header {
			if strings.HasPrefix(n, "X-") || n == "Authorization" || n == "Content-Type" || n == "Accept" {
				s.names = append(s.names, n)
			}
		}
		slices.Sort(s.names)
		log = append(log, s)
	}
	var first, second string
	first = serve(t, func(w http.ResponseWriter, r *http.Request) {
		note("first"+r.URL.Path, r)
		switch r.URL.Path {
		case "/":
			http.Redirect(w, r, "/same", http.StatusTemporaryRedirect)
		case "/same":
			http.Redirect(w, r, second, http.StatusTemporaryRedirect)
		}
	})
	second = serve(t, func(w http.ResponseWriter, r *http.Request) {
		note("second", r)
		http.Redirect(w, r, first+"/back", http.StatusTemporaryRedirect)
	})
	secrets := map[string]Secret{"token": NewSecret("not-for-everybody")}
	rule1, rule2 := ruleFor(t, first), ruleFor(t, second)
	rule1.Secrets, rule2.Secrets = []string{"token"}, []string{"token"}
	c := newClient(t, Policy{Hosts: []HostRule{rule1, rule2}, Secrets: secrets})
	r, err := c.Do(t.Context(), Request{Method: "POST", URL: first, Body: []byte("x"), Header: http.Header{
		"Authorization": {"Bearer {{secret token}}"}, "X-Plain": {"x"}, "Content-Type": {"application/json"}, "Accept": {"a {{secret token}}"},
	}})
	if err != nil || r.Redirects != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	want := "[{first/ [Accept Authorization Content-Type X-Plain]} {first/same [Accept Authorization Content-Type X-Plain]} {second [Content-Type]} {first/back [Content-Type]}]"
	if got := fmt.Sprint(log); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
