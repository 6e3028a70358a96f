package conformance

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestServer: what is taken, what is taken once, and what is answered.
func TestServer(t *testing.T) {
	s, err := startServer([]byte("[1]"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path, body string, header ...string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.origin()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		a, err := client.Do(r)
		if err != nil {
			return "no answer"
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil {
			t.Error(err)
		}
		return a.Status[:3] + " " + string(text) + a.Header.Get("Retry-After") + a.Header.Get("Date")
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte("small"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		next         reply
		method, path string
		body         string
		header       []string
		answer       string
		taken        int // then
	}{
		{reply{}, "POST", "/a", "one", nil, "200 [1]", 1},
		{reply{}, "POST", "/a", "one", nil, "200 [1]", 2},
		{reply{}, "POST", "/a", "one", []string{"Idempotency-Key", "k"}, "200 [1]", 3},
		{reply{}, "POST", "/a", "one", []string{"Idempotency-Key", "k"}, "200 [1]", 3},
		{reply{}, "PUT", "/b", "one", nil, "200 [1]", 4},
		{reply{}, "PUT", "/b", "two", nil, "200 [1]", 4},
		{reply{}, "GET", "/b", "", nil, "200 [1]", 4},
		{reply{status: 503, retryAfter: "7"}, "POST", "/a", "no", nil, "503 [1]7", 4},
		{reply{status: 400}, "POST", "/a", "no", nil, "400 [1]", 4},
		{reply{drop: true}, "POST", "/a", "no", nil, "no answer", 4},
		{reply{drop: true, keeps: true}, "POST", "/a", "yes", nil, "no answer", 5},
		{reply{}, "POST", "/z", zipped.String(), []string{"Content-Encoding", "gzip"}, "200 [1]", 6},
	} {
		s.answers(c.next)
		if got := ask(c.method, c.path, c.body, c.header...); got != c.answer {
			t.Errorf("%s %s to %+v: %q, wanted %q", c.method, c.path, c.next, got, c.answer)
		}
		n := 0
		s.seen(func([]byte) { n++ })
		if n != c.taken {
			t.Errorf("%s %s to %+v: %d taken, wanted %d", c.method, c.path, c.next, n, c.taken)
		}
	}
	var all []string
	for _, b := range s.inOrder() {
		all = append(all, string(b))
	}
	if got := strings.Join(all, " "); got != "/a\none /a\none /a\none /a\none /b\none /b\ntwo /a\nyes /z\nsmall" {
		t.Errorf("in order: %q", got)
	}
	s.reset()
	s.seen(func(b []byte) { t.Errorf("behind a reset there is %q", b) })
}
