package egress

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

type standIn func(*http.Request) (*http.Response, error)

func (f standIn) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What stands in for the network gets what the policy allows and nothing else,
// and nobody is dialled.
func TestStandIn(t *testing.T) {
	var asked []string
	c := newClient(t, Policy{Hosts: []HostRule{{Scheme: "https", Host: "collector.example", Methods: []string{"POST"}}, {Scheme: "https", Host: "127.0.0.1", Methods: []string{"POST"}}},
		StandIn: standIn(func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			asked = append(asked, r.URL.String()+" "+string(body))
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
		})})
	c.dial = func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, io.EOF
	}
	for _, url := range []string{"https://collector.example/a", "https://127.0.0.1/b"} {
		if r, err := c.Do(t.Context(), Request{Method: "POST", URL: url, Body: []byte("x")}); err != nil || r.Status != 200 || string(r.Body) != "{}" {
			t.Errorf("%+v, %v", r, err)
		}
	}
	_, err := c.Do(t.Context(), Request{Method: "POST", URL: "https://other.example/"})
	wantRefused(t, err, 0, "the host is not granted")
	if len(asked) != 2 || asked[0] != "https://collector.example/a x" || asked[1] != "https://127.0.0.1/b x" {
		t.Errorf("%q", asked)
	}
}
