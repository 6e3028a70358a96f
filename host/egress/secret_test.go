package egress

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const value = `S3cret/+"\&<value> of=ours`

func TestSecretIsNotPrinted(t *testing.T) {
	s := NewSecret(value)
	c := newClient(t, Policy{Hosts: []HostRule{{Host: "granted.example", Methods: []string{"GET"}, Secrets: []string{"token"}}},
		Secrets: map[string]Secret{"token": s}})
	type wrapped struct {
		inner struct{ secret Secret }
		Open  *Secret
	}
	w := wrapped{Open: &s}
	w.inner.secret = s
	p := Policy{Secrets: map[string]Secret{"token": s}}
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("secret", "a", s, "b", &s, "c", w, "d", p.Secrets, "e", fmt.Errorf("with %v", s))
	}
	for _, v := range []any{s, &s, w, &w, p, &p, c, c.vault, *c.vault, c.rules} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d\n", v, v, v, v, v, v, v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	shows(t, "printed", out.String())
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed")
	}
}

// shows fails if a text holds the secret in a form that is easily read.
func shows(t *testing.T, what, text string) {
	t.Helper()
	q := strconv.Quote(value)
	for _, form := range []string{value, q[1 : len(q)-1], url.QueryEscape(value), hex.EncodeToString([]byte(value)), html.EscapeString(value),
		base64.StdEncoding.EncodeToString([]byte(value))} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			t.Errorf("%s: the secret shows as %q in %q", what, form, text)
		}
	}
}

func withSecret(t testing.TB, hosts ...HostRule) Policy {
	for i := range hosts {
		hosts[i].Secrets = []string{"token"}
	}
	return Policy{Hosts: hosts, Secrets: map[string]Secret{"token": NewSecret(value), "other": NewSecret("another-secret")}}
}

// TestEcho: a server repeats what it got, in the codings that servers use.
func TestEcho(t *testing.T) {
	got := ""
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		w.Header().Set("X-Echo", got)
		w.Header().Set("X-Escaped", url.QueryEscape(got))
		all := ""
		for _, c := range []byte(got) {
			all += fmt.Sprintf("%%%02x", c)
		}
		w.Header().Set("X-All-Escaped", all)
		w.Header().Set("Location", "/?token="+url.PathEscape(got)) // no redirect: the status is 201
		w.WriteHeader(http.StatusCreated)
		marshalled, _ := json.Marshal(map[string]string{"authorization": got})
		fmt.Fprintf(w, "raw %s json %s go %q html %s query %s path %s lower %s hex %x HEX %X\n", got, marshalled, got, html.EscapeString(got),
			url.QueryEscape(got), url.PathEscape(got), lowerEscapes(url.QueryEscape(got)), got, got)
		for _, user := range []string{"", "u", "us", "use", "user:"} {
			for _, after := range []string{"", "x", "xy"} {
				for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding} {
					fmt.Fprintf(w, "base64 %s|", e.EncodeToString([]byte(user+strings.TrimPrefix(got, "Bearer ")+after)))
				}
			}
		}
	})
	c := newClient(t, withSecret(t, ruleFor(t, base)))
	r, err := c.Do(t.Context(), Request{Method: "GET", URL: base + "/?%7B%7Bsecret%20token%7D%7D", Header: http.Header{"Authorization": {"Bearer {{secret token}}"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got != "Bearer "+value {
		t.Errorf("the server got %q", got)
	}
	shows(t, "body", string(r.Body))
	shows(t, "header", fmt.Sprint(r.Header))
	if n := strings.Count(string(r.Body), "base64 "); n != 45 {
		t.Fatalf("%d codings", n)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(string(r.Body), "|"), "|") {
		if !strings.Contains(part, redacted) {
			t.Errorf("%q is not redacted", part)
		}
	}
	for _, name := range []string{"X-Echo", "X-Escaped", "X-All-Escaped", "Location"} {
		if !strings.Contains(r.Header.Get(name), redacted) {
			t.Errorf("%s: %q", name, r.Header.Get(name))
		}
	}
}

// TestCompressedEcho: what cannot be redacted is withheld.
func TestCompressedEcho(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" && r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding %q", r.Header.Values("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, r.Header.Get("Authorization"))
		z.Close()
	})
	c := newClient(t, withSecret(t, ruleFor(t, base)))
	r, err := c.Do(t.Context(), Request{Method: "GET", URL: base, Header: http.Header{"Authorization": {"{{secret token}}"}, "Accept-Encoding": {"gzip", "br"}}})
	if err != nil || !r.Withheld || len(r.Body) > 0 || r.Status != 200 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = get(t, c, base); err != nil || r.Withheld || len(r.Body) == 0 {
		t.Errorf("without a secret: %+v, %v", r, err)
	}
}

func TestSecretsAreBound(t *testing.T) {
	base := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the server was asked") })
	other := ruleFor(t, base)
	c := newClient(t, withSecret(t, other))
	for header, want := range map[string]string{
		"{{secret other}}":                  `no secret "other" is bound`,
		"{{secret absent}}":                 `no secret "absent" is bound`,
		"{{secret token}} {{secret other}}": `"other"`,
		"{{secret }}":                       "is written",
		"{{secret token":                    "is written",
		"{{secrettoken}}":                   "is written",
		"{{secret token }}":                 "is written",
		"{{secret {{secret token}}}}":       "is written",
		"{{secret tok\u00e9n}}":             "is written",
	} {
		_, err := c.Do(t.Context(), Request{Method: "GET", URL: base, Header: http.Header{"X": {header}}})
		wantRefused(t, err, 0, want)
	}
	_, err := c.Do(t.Context(), Request{Method: "GET", URL: base, Header: http.Header{"X": {"{{secret token}}"}, "Range": {"bytes=0-3"}}})
	wantRefused(t, err, 0, "Range")
}

func TestSecretIsNotExpandedAgain(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("X"); got != "a{{secret other}}b {{x}}" {
			t.Errorf("the server got %q", got)
		}
	})
	rule := ruleFor(t, base)
	rule.Secrets = []string{"token", "other"}
	c := newClient(t, Policy{Hosts: []HostRule{rule}, Secrets: map[string]Secret{"token": NewSecret("{{secret other}}"), "other": NewSecret("another-secret")}})
	if _, err := c.Do(t.Context(), Request{Method: "GET", URL: base, Header: http.Header{"X": {"a{{secret token}}b {{x}}"}}}); err != nil {
		t.Error(err)
	}
}

func TestSecretsAreChecked(t *testing.T) {
	for name, s := range map[string]Secret{
		"short": NewSecret("1234567"), "newline": NewSecret("12345678\n"), "blank": NewSecret(" 12345678"), "control": NewSecret("1234\x005678"),
		"unicode": NewSecret("pässword1"), "long": NewSecret(strings.Repeat("x", maxSecret+1)), "zero": {}, "bad name": NewSecret("12345678"), "": NewSecret("12345678"),
	} {
		_, err := New(Policy{Secrets: map[string]Secret{name: s}})
		if err == nil || !strings.Contains(err.Error(), strconv.Quote(name)) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestRedirectWithSecret: the server puts the secret into a redirect.
func TestRedirectWithSecret(t *testing.T) {
	for _, location := range []string{
		"http://evil.example/" + url.PathEscape(value), "/next?x=" + url.QueryEscape(value), "http://" + hex.EncodeToString([]byte(value)) + ".example/",
		"http://token-TOKEN-token.example/", "ftp://x/" + url.PathEscape(value), "http://x:y@token-token-token/", "/" + value, "http://%74oken-token-token/",
	} {
		base := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/next" {
				w.Header().Set("Location", location)
				w.WriteHeader(http.StatusTemporaryRedirect)
			}
		})
		rule := ruleFor(t, base)
		rule.Secrets = []string{"token", "name"}
		c := newClient(t, Policy{Hosts: []HostRule{rule}, Secrets: map[string]Secret{"token": NewSecret(value), "name": NewSecret("token-token-token")}})
		r, err := c.Do(t.Context(), Request{Method: "GET", URL: base, Header: http.Header{"X": {"{{secret token}}"}}})
		text := fmt.Sprint(err, r)
		shows(t, location, text)
		if strings.Contains(text, "token-token-token") {
			t.Errorf("%s: %s", location, text)
		}
	}
}

// captureLog takes over the standard logger, to which net/http writes some of
// what it receives, and returns what was written so far.
func captureLog(t testing.TB) func() string {
	var mu sync.Mutex
	var b bytes.Buffer // guarded by mu
	old := log.Writer()
	log.SetOutput(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return b.Write(p)
	}))
	t.Cleanup(func() { log.SetOutput(old) })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return b.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestUnaskedAnswer: a server talks before it is asked, and after it has
// answered. Nothing of it gets into the process's log.
func TestUnaskedAnswer(t *testing.T) {
	logged := captureLog(t)
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, scheme := range []string{"http", "https"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if scheme == "https" {
			l = tls.NewListener(l, s.TLS)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, answer+value+answer)
				_, _ = io.Copy(io.Discard, conn)
				conn.Close()
			}
		}()
		base := scheme + "://" + l.Addr().String()
		p := withSecret(t, ruleFor(t, base))
		p.RootCAs = roots
		c := newClient(t, p)
		for range 50 {
			r, err := c.Do(t.Context(), Request{Method: "GET", URL: base, Header: http.Header{"X": {"{{secret token}}"}}})
			if err != nil || string(r.Body) != "ok" {
				t.Fatalf("%s: %s, %v", scheme, r.Body, err)
			}
		}
		c.Close()
		l.Close()
		<-done
	}
	if got := logged(); got != "" {
		t.Errorf("the log has %q", got)
	}
}

// FuzzSecret lets the server answer anything, with the secret put in wherever
// the answer says SECRET: it comes back in no error, header or body.
func FuzzSecret(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET", "HTTP/1.1 200 SECRET\r\n\r\n", "SECRET\r\n\r\n", "HTTP/1.1 SECRET\r\n\r\n",
		"HTTP/1.1 200 OK\r\nSECRET: SECRET\r\nX: aSECRETb\r\n\r\nSECRETSECRET", "HTTP/1.1 302 OK\r\nLocation: http://SECRET/\r\n\r\n",
		"HTTP/1.1 302 OK\r\nLocation: //SECRET@x:SECRET/SECRET?SECRET\r\n\r\n", "HTTP/1.1 200 OK\r\nSECRET\r\n\r\n", "HTTP/SECRET 200\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n", "HTTP/1.1 302 OK\r\nLocation: /%73SECRET\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: SECRET\r\n\r\nSECRET\r\nx\r\n0\r\nSECRET: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ns3c\r\n14\r\nret-value-of-the-host\r\n0\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	const secret = "s3cret-value-of-the-host"
	logged := captureLog(f)
	c, err := New(Policy{Hosts: []HostRule{{Scheme: "http", Host: "granted.example", Methods: []string{"GET"}, Secrets: []string{"token"}}},
		Secrets: map[string]Secret{"token": NewSecret(secret)}, MaxRedirects: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		answer = bytes.ReplaceAll(answer, []byte("SECRET"), []byte(secret))
		wait := answerWith(c, func(conn net.Conn) { _, _ = conn.Write(answer) })
		r, err := c.Do(t.Context(), Request{Method: "GET", URL: "http://granted.example/", Header: http.Header{"Authorization": {"{{secret token}}"}}})
		wait()
		text := fmt.Sprintf("%v %+v %s %s", err, r, r.Body, logged())
		for e := err; e != nil; e = errors.Unwrap(e) {
			text += fmt.Sprintf("%v %+v %#v", e, e, e)
		}
		if strings.Contains(strings.ToLower(text), secret) {
			t.Errorf("answer %q comes back as %q", answer, text)
		}
		if err == nil && len(r.Body) > len(answer) {
			t.Errorf("the answer grew from %d to %d bytes", len(answer), len(r.Body))
		}
	})
}
