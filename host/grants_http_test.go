package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/egress"
)

// httpGuest makes the request of this head, with a body, and answers as tell
// does. size is that of its answer buffer.
func httpGuest(head, body string, size int32) guestModule {
	return grantGuest(`"http"`, head+body, [][]byte{verdictImport, imported("audit", "http", typHTTP)},
		i32c(textAt), i32c(int32(len(head))), i32c(int32(textAt+len(head))), i32c(int32(len(body))), i32c(answerAt), i32c(size), callf(1), tell)
}

// ruleFor grants POST and GET to a server.
func ruleFor(t *testing.T, server *httptest.Server, secrets ...string) egress.HostRule {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return egress.HostRule{Scheme: "http", Host: u.Hostname(), Port: uint16(port), Methods: []string{"POST", "GET"}, Secrets: secrets}
}

func TestHTTPGrant(t *testing.T) {
	var got *http.Request
	var sent []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		sent, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Reply", "yes")
		w.Header()["Date"] = nil
		w.WriteHeader(202)
		_, _ = io.WriteString(w, "taken")
	}))
	defer server.Close()
	policy := egress.Policy{Hosts: []egress.HostRule{ruleFor(t, server, "token")}, Secrets: map[string]egress.Secret{"token": egress.NewSecret("s3cr3t-value")}}
	head := "POST " + server.URL + "/in\nContent-Type: text/plain\nAuthorization: Bearer {{secret token}}\n"
	var log bytes.Buffer
	s := openGuest(t, httpGuest(head, "the body", 1000).bytes(), Options{HTTP: &policy, Log: logTo(&log)})
	r := s.Deliver(context.Background(), batchOf(1, "x"))
	// The answer's numbers are no text, so that the message shows what follows.
	if statusOf(r) != abi.StatusDone || !strings.HasSuffix(r.Detail, "x-reply: yes\ntaken") {
		t.Errorf("%v %q", statusOf(r), r.Detail)
	}
	if got.Method != "POST" || got.URL.Path != "/in" || string(sent) != "the body" || got.Header.Get("Authorization") != "Bearer s3cr3t-value" ||
		got.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("the server got %s %s %q with %v", got.Method, got.URL, sent, got.Header)
	}
	// The secret is not in the guest's memory, nor anywhere else.
	mem, _ := s.inst.mod.Memory().Read(0, s.inst.mod.Memory().Size())
	if bytes.Contains(mem, []byte("s3cr3t")) || strings.Contains(log.String()+fmt.Sprintf("%+v %#v", s.o, s.o), "s3cr3t") {
		t.Error("the secret is to be found")
	}
	if c, ok := s.Egress(); !ok || c.Requests != 1 || c.Sent != 8 || c.Received != 5 {
		t.Errorf("counters %+v", c)
	}
}

// TestHTTPRedirectOutOfTheGrant: what "It must show" asks for.
func TestHTTPRedirectOutOfTheGrant(t *testing.T) {
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer other.Close()
	_, port, err := net.SplitHostPort(other.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.RedirectHandler("http://localhost:"+port+"/steal", http.StatusTemporaryRedirect))
	defer server.Close()
	policy := egress.Policy{Hosts: []egress.HostRule{ruleFor(t, server)}}
	var log bytes.Buffer
	s := openGuest(t, httpGuest("POST "+server.URL+"/in", "x", 1000).bytes(), Options{Name: "siem", HTTP: &policy, Log: logTo(&log)})
	r := s.Deliver(context.Background(), batchOf(1, "x"))
	if statusOf(r) != abi.StatusRefused || !strings.Contains(r.Detail, "redirect 1") && !strings.Contains(r.Detail, "hop 1") {
		t.Errorf("%v %q", statusOf(r), r.Detail)
	}
	if reached {
		t.Error("the other server was reached")
	}
	for _, want := range []string{"level=WARN", "sink=siem", "refused.hop=1", "refused.url=http://localhost:" + port, "refused.reason="} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log %q lacks %q", log.String(), want)
		}
	}
	if c, _ := s.Egress(); c.Refused != 1 || c.Requests != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestHTTPStatuses(t *testing.T) {
	large := strings.Repeat("x", 5000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
		case "/large":
			_, _ = io.WriteString(w, large)
		case "/gone":
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.Close()
			}
		}
	}))
	defer server.Close()
	policy := egress.Policy{Hosts: []egress.HostRule{ruleFor(t, server)}, MaxRequest: 1000, MaxResponse: 4000, Timeout: 300 * time.Millisecond,
		Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	post := "POST " + server.URL
	for _, c := range []struct {
		head, body string
		size       int32
		want       abi.Status
		text       string
	}{
		{post + "/", "", 1000, abi.StatusDone, ""},
		{post + "/\n", "", 1000, abi.StatusDone, ""},
		{post + "/", "", 23, abi.StatusTooLarge, "answer buffer"},
		{post + "/\nX: " + strings.Repeat("y", 60<<10), "", 1000, abi.StatusTooLarge, ""},
		{post + "/", strings.Repeat("y", 1001), 1000, abi.StatusTooLarge, "request body"},
		{post + "/large", "", 1000, abi.StatusUnavailable, "response body"},
		{post + "/slow", "", 1000, abi.StatusTimeout, "300ms"},
		{post + "/gone", "", 1000, abi.StatusUnavailable, ""},
		{"", "", 1000, abi.StatusInvalid, "METHOD URL"},
		{"POST", "", 1000, abi.StatusInvalid, "METHOD URL"},
		{"POST \n", "", 1000, abi.StatusInvalid, "METHOD URL"},
		{post + "/\nno colon", "", 1000, abi.StatusInvalid, "NAME: VALUE"},
		{post + "/\n\n", "", 1000, abi.StatusInvalid, "NAME: VALUE"},
		{"DELETE " + server.URL + "/", "", 1000, abi.StatusRefused, "DELETE"},
		{"POST http://127.0.0.2:1/", "", 1000, abi.StatusRefused, ""},
		{post + "/\nHost: other", "", 1000, abi.StatusRefused, "Host"},
		{post + "/\nA: b\rC: d", "", 1000, abi.StatusRefused, ""},
		{post + "/\nA: {{secret other}}", "", 1000, abi.StatusRefused, "other"},
	} {
		g := httpGuest(c.head, c.body, c.size)
		if len(c.head) > 10000 {
			// Behind the answer, so that the texts do not overlap.
			g = grantGuest(`"http"`, c.head, [][]byte{verdictImport, imported("audit", "http", typHTTP)},
				i32c(textAt), i32c(int32(len(c.head))), i32c(0), i32c(0), i32c(100_000), i32c(c.size), callf(1), tell)
		}
		s := openGuest(t, g.bytes(), Options{HTTP: &policy})
		r := s.Deliver(context.Background(), batchOf(1, "x"))
		if statusOf(r) != c.want || !strings.Contains(r.Detail, c.text) {
			t.Errorf("%.60q: %v %q, wanted %v with %q", c.head, statusOf(r), r.Detail, c.want, c.text)
		}
	}
}

// The deadline of the batch ends a request that a server does not answer.
func TestHTTPIsCutShortByTheDeadline(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	policy := egress.Policy{Hosts: []egress.HostRule{ruleFor(t, server)}, Timeout: time.Hour}
	s := openGuest(t, httpGuest("GET "+server.URL+"/", "", 1000).bytes(), Options{HTTP: &policy, Deadline: testDeadline})
	for range 2 {
		begin := time.Now()
		r := s.Deliver(context.Background(), batchOf(1, "x"))
		if took := time.Since(begin); r.Outcome != abi.Deadline || took > testDeadline+time.Second || !strings.Contains(r.Detail, "raise deadline") {
			t.Errorf("%v %q after %v", r.Outcome, r.Detail, took)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline/4)
	defer cancel()
	if r := s.Deliver(ctx, batchOf(1, "x")); r.Outcome != abi.Deadline || !strings.Contains(r.Detail, "the host is stopping") {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
}
