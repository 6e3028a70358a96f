package egress

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestURLConfusions: what two parsers could read differently is refused, and
// nothing is dialled.
func TestURLConfusions(t *testing.T) {
	c := newClient(t, Policy{Hosts: []HostRule{
		{Scheme: "http", Host: "granted.example", Methods: []string{"GET"}},
		{Host: "granted.example", Methods: []string{"GET"}},
		{Scheme: "http", Host: "127.0.0.1", Port: 8080, Methods: []string{"GET"}},
		{Scheme: "http", Host: "::1", Port: 8080, Methods: []string{"GET"}},
		{Scheme: "http", Host: "xn--bcher-kva.example", Methods: []string{"GET"}},
	}})
	dialled := ""
	c.dial = func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = address
		return nil, io.EOF
	}
	for url, want := range map[string]string{
		"http://granted.example":                    "granted.example:80",
		"HTTP://GRANTED.example:80/a":               "granted.example:80",
		"https://granted.example/?http://x@y":       "granted.example:443",
		"https://granted.example#@evil.example":     "granted.example:443",
		"http://granted.example?@evil.example":      "granted.example:80",
		"http://127.0.0.1:8080":                     "127.0.0.1:8080",
		"http://[::1]:8080/":                        "[::1]:8080",
		"http://[0:0:0:0:0:0:0:1]:8080/":            "[::1]:8080",
		"http://xn--bcher-kva.example/":             "xn--bcher-kva.example:80",
		"":                                          "",
		"granted.example":                           "",
		"//granted.example/":                        "",
		"/path":                                     "",
		"http:granted.example":                      "",
		"http:/granted.example":                     "",
		"http:///granted.example":                   "",
		"ftp://granted.example":                     "",
		"file:///etc/passwd":                        "",
		"gopher://granted.example:80/":              "",
		"javascript:alert(1)":                       "",
		"http://granted.example@evil.example":       "",
		"http://granted.example:80@evil.example":    "",
		"http://granted.example:@evil.example":      "",
		"http://@granted.example":                   "",
		"http://evil.example@granted.example":       "",
		"http://user:pass@granted.example":          "",
		"http://evil.example#@granted.example":      "",
		"http://evil.example?granted.example":       "",
		"http://evil.example/granted.example":       "",
		`http://evil.example\@granted.example`:      "",
		`http://granted.example\.evil.example`:      "",
		`http:\\granted.example`:                    "",
		`http://granted.example\@evil.example`:      "",
		"http://granted.example.":                   "",
		"http://granted.example..":                  "",
		"http://.granted.example":                   "",
		"http://sub.granted.example":                "",
		"http://granted.example.evil.example":       "",
		"http://xgranted.example":                   "",
		"http://granted%2eexample":                  "",
		"http://granted.example%00.evil.example":    "",
		"http://granted.example%0d%0aHost:%20x":     "",
		"http://granted.example\r\nHost: x":         "",
		"http://granted.example/ HTTP/1.1\r\nX: y":  "",
		"http://granted.example/a\tb":               "",
		" http://granted.example":                   "",
		"http://granted.example:8080":               "",
		"http://granted.example:":                   "",
		"http://granted.example:080":                "",
		"http://granted.example:+80":                "",
		"http://granted.example:0":                  "",
		"http://granted.example:65616":              "", // 80 + 65536
		"http://granted.example:80:80":              "",
		"http://granted.example:80.0":               "",
		"http://granted。example":                    "",
		"http://granteⓓ.example":                    "",
		"http://bücher.example/":                    "",
		"http://127.0.0.1":                          "",
		"http://127.1:8080":                         "",
		"http://127.0.1:8080":                       "",
		"http://0177.0.0.1:8080":                    "",
		"http://0x7f.0.0.1:8080":                    "",
		"http://0x7f000001:8080":                    "",
		"http://2130706433:8080":                    "",
		"http://017700000001:8080":                  "",
		"http://127.0.0.01:8080":                    "",
		"http://127.0.0.1.:8080":                    "",
		"http://127.0.0.1.nip.io:8080":              "",
		"http://[127.0.0.1]:8080":                   "",
		"http://[::ffff:127.0.0.1]:8080":            "",
		"http://[::ffff:7f00:1]:8080":               "",
		"http://[::127.0.0.1]:8080":                 "",
		"http://::1:8080":                           "",
		"http://[::1%25lo]:8080":                    "",
		"http://[::1]8080":                          "",
		"http://[::1:8080":                          "",
		"http://[v1.::1]:8080":                      "",
		"http://[granted.example]":                  "",
		"http://localhost:8080":                     "",
		"http://0:8080":                             "",
		"http://granted.example/" + long(maxURL):    "",
		"http://" + long(300) + "granted.example/x": "",
		"http://granted.example/%zz":                "",
	} {
		dialled = ""
		_, err := get(t, c, url)
		if dialled != want {
			t.Errorf("%.60q: dialled %q, want %q (%v)", url, dialled, want, err)
		}
		if want == "" {
			wantRefused(t, err, 0, "")
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestPathPrefix(t *testing.T) {
	c := newClient(t, Policy{Hosts: []HostRule{
		{Scheme: "http", Host: "granted.example", Methods: []string{"GET"}, PathPrefix: "/in"},
		{Scheme: "http", Host: "granted.example", Methods: []string{"GET"}, PathPrefix: "/folder/"},
	}})
	c.dial = func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }
	for path, ok := range map[string]bool{
		"/in": true, "/in/": true, "/in/x": true, "/in?x=/../": true, "/in/x%20y": true, "/folder/": true, "/folder/x": true,
		"/": false, "": false, "/inside": false, "/In": false, "/%69n": false, "/folder": false, "/folderx": false, "//in": false,
		"/in/..": false, "/in/../x": false, "/in/.": false, "/in/%2e%2e/x": false, "/in/.%2E/x": false, "/in/..;a/x": false, "/in/%2e%2e;/x": false,
		"/in/..%2fx": false, "/in/a%5c..%5cx": false, "/in/%252e%252e/x": false, "/in//x": false, "/in/x%00": false, "/x/../in": false,
	} {
		_, err := get(t, c, "http://granted.example"+path)
		if r, refused := err.(*Refused); refused == ok {
			t.Errorf("%s: %v", path, r)
		}
	}
}

func TestRulesAreChecked(t *testing.T) {
	good := func() HostRule { return HostRule{Host: "granted.example", Methods: []string{"POST"}} }
	for _, k := range []struct {
		change func(*HostRule)
		want   string
	}{
		{func(*HostRule) {}, ""},
		{func(r *HostRule) { r.Host = "[::1]" }, ""},
		{func(r *HostRule) { r.Host = "my_collector" }, ""},
		{func(r *HostRule) { r.Host = "" }, "neither a name"},
		{func(r *HostRule) { r.Host = "*.example" }, "character"},
		{func(r *HostRule) { r.Host = "Granted.example" }, "write the host as granted.example"},
		{func(r *HostRule) { r.Host = "granted.example." }, "without a dot"},
		{func(r *HostRule) { r.Host = "granted.example:80" }, "character"},
		{func(r *HostRule) { r.Host = "http://granted.example" }, "character"},
		{func(r *HostRule) { r.Host = "bücher.example" }, "xn--"},
		{func(r *HostRule) { r.Host = "0x7f.1" }, "plain spelling"},
		{func(r *HostRule) { r.Host = "0:0::1" }, "write the host as ::1"},
		{func(r *HostRule) { r.Host = "::ffff:1.2.3.4" }, "write it plainly"},
		{func(r *HostRule) { r.Host = "0.0.0.0" }, "unspecified"},
		{func(r *HostRule) { r.Host = "224.0.0.1" }, "multicast"},
		{func(r *HostRule) { r.Scheme = "ftp" }, "neither https nor http"},
		{func(r *HostRule) { r.Methods = nil }, "no methods"},
		{func(r *HostRule) { r.Methods = []string{"post"} }, `"post" is none of`},
		{func(r *HostRule) { r.Methods = []string{"CONNECT"} }, `"CONNECT" is none of`},
		{func(r *HostRule) { r.Methods = []string{"TRACE"} }, `"TRACE" is none of`},
		{func(r *HostRule) { r.PathPrefix = "in" }, "does not start with /"},
		{func(r *HostRule) { r.PathPrefix = "/in?x" }, "plain path"},
		{func(r *HostRule) { r.PathPrefix = "/in/../x" }, "segment"},
		{func(r *HostRule) { r.Secrets = []string{"absent"} }, `no secret "absent"`},
	} {
		rule := good()
		k.change(&rule)
		_, err := New(Policy{Hosts: []HostRule{rule}})
		if (err == nil) != (k.want == "") || err != nil && !strings.Contains(err.Error(), k.want) {
			t.Errorf("%+v: %v, want %q", rule, err, k.want)
		}
	}
	for _, p := range []Policy{
		{Timeout: -1}, {MaxResponse: -1}, {Concurrency: -1}, {Private: []netip.Prefix{{}}},
		{Private: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}}, {Private: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
	} {
		if _, err := New(p); err == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
}

func TestMethods(t *testing.T) {
	c := newClient(t, Policy{Hosts: []HostRule{{Scheme: "http", Host: "granted.example", Methods: []string{"POST", "GET"}}}})
	for _, m := range []string{"", "CONNECT", "TRACE", "TRACK", "post", "GET ", "GET /x HTTP/1.1\r\nX:", "PROPFIND", "PUT", "DELETE"} {
		_, err := c.Do(t.Context(), Request{Method: m, URL: "http://granted.example/"})
		wantRefused(t, err, 0, "")
	}
	_, err := c.Do(t.Context(), Request{Method: "GET", URL: "http://granted.example/", Body: []byte("x")})
	wantRefused(t, err, 0, "GET with a body")
}

// FuzzURL gives the client any URL, and a server that redirects to any other:
// it connects to granted addresses only, with a Host header that says so, and
// an error that is no refusal means that it has tried to connect.
func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"http://granted.example/", "http://granted.example@evil.example/", "http://127.0.0.1:8080/a?b", `http://granted.example\@evil/`, "//evil.example",
		"http://[::1]:8080", "http://0x7f.1:8080", "http://granted.example:80:81/", "/\\evil", "http:evil", "https://granted.example:443", "?x", "..//evil",
	} {
		f.Add(s, s)
		f.Add("http://granted.example/", s)
	}
	granted := []string{"granted.example:80", "127.0.0.1:8080", "[::1]:8080", "granted.example:443"}
	hosts := []string{"granted.example", "127.0.0.1:8080", "[::1]:8080"}
	c, err := New(Policy{Hosts: []HostRule{
		{Scheme: "http", Host: "granted.example", Methods: []string{"GET"}, PathPrefix: "/"},
		{Host: "granted.example", Methods: []string{"GET"}},
		{Scheme: "http", Host: "127.0.0.1", Port: 8080, Methods: []string{"GET"}},
		{Scheme: "http", Host: "::1", Port: 8080, Methods: []string{"GET"}},
	}, MaxRedirects: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, first, location string) {
		dials := 0
		done := make(chan struct{}, 4)
		c.dial = func(_ context.Context, _, address string) (net.Conn, error) {
			dials++
			if !slices.Contains(granted, address) {
				t.Errorf("%q, redirect to %q: connects to %s", first, location, address)
			}
			here, there := net.Pipe()
			go func() {
				defer func() { there.Close(); done <- struct{}{} }()
				r, err := http.ReadRequest(bufio.NewReader(there))
				if err != nil {
					return // TLS, which nobody speaks here
				}
				if !slices.Contains(hosts, r.Host) || r.URL.IsAbs() {
					t.Errorf("%q, redirect to %q: asks for %s of %s", first, location, r.RequestURI, r.Host)
				}
				_, _ = io.WriteString(there, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: "+location+"\r\n\r\n")
			}()
			return here, nil
		}
		_, err := c.Do(t.Context(), Request{Method: "GET", URL: first})
		for range dials {
			<-done
		}
		if r, ok := err.(*Refused); dials == 0 && (!ok || r.Hop != 0) {
			t.Errorf("%q: nothing was dialled, and yet %v", first, err)
		}
	})
}
