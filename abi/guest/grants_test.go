//go:build !wasip1

package guest

import (
	"slices"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

func TestRequestHead(t *testing.T) {
	r := Request{Method: "POST", URL: "https://collector.example/in", Header: [][2]string{{"A", "1"}, {"Authorization", "Bearer {{secret token}}"}}}
	if got := string(r.head()); got != "POST https://collector.example/in\nA: 1\nAuthorization: Bearer {{secret token}}\n" {
		t.Errorf("head %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { r.head() }); n != 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestHTTP(t *testing.T) {
	status := abi.StatusDone
	var got Request
	t.Cleanup(UseHost(Host{HTTP: func(r Request) (abi.HTTPAnswer, abi.Status, string) {
		got = r
		return abi.HTTPAnswer{Status: 503, Header: []byte("retry-after: 3\n"), Body: []byte("later")}, status, "no such host"
	}}))
	out := make([]byte, 100)
	a, s, text := HTTP(&Request{Method: "PUT", URL: "u", Body: []byte("b")}, out)
	if s != abi.StatusDone || text != "" || a.Status != 503 || a.Get("retry-after") != "3" || string(a.Body) != "later" || string(got.Body) != "b" {
		t.Errorf("%+v, %v, %q; the host got %+v", a, s, text, got)
	}
	if a, _, _ := HTTP(&Request{}, out[:abi.HTTPAnswerSize+17]); a.Flags != abi.HTTPCut || string(a.Body) != "la" || a.Full != 5 {
		t.Errorf("cut: %+v", a)
	}
	if _, s, _ := HTTP(&Request{}, nil); s != abi.StatusTooLarge {
		t.Errorf("no room: %v", s)
	}
	status = abi.StatusUnavailable
	if _, s, text := HTTP(&Request{}, out); s != status || text != "no such host" {
		t.Errorf("%v, %q", s, text)
	}
}

func TestAppend(t *testing.T) {
	var got []string
	t.Cleanup(UseHost(Host{Append: func(r []byte) abi.Status { got = append(got, string(r)); return abi.Status(len(got) - 1) }}))
	if a, b := Append([]byte("one\n")), Append(nil); a != abi.StatusDone || b != abi.StatusRefused || !slices.Equal(got, []string{"one\n", ""}) {
		t.Errorf("%v, %v, %q", a, b, got)
	}
}

func TestKV(t *testing.T) {
	store := map[string][]byte{}
	t.Cleanup(UseHost(Host{KV: store}))
	if _, s := KVGet("a", nil); s != abi.StatusAbsent {
		t.Errorf("get of nothing: %v", s)
	}
	long := strings.Repeat("x", 1000)
	value := []byte(long)
	if s := KVSet("a", value); s != abi.StatusDone {
		t.Errorf("set: %v", s)
	}
	value[0] = 'y' // it is the guest's again
	buf := make([]byte, 10)
	if v, s := KVGet("a", buf); s != abi.StatusDone || string(v) != long {
		t.Errorf("get into a small buffer: %v, %d bytes", s, len(v))
	}
	if s := KVSet("a", nil); s != abi.StatusDone {
		t.Errorf("set to nothing: %v", s)
	}
	if v, s := KVGet("a", buf); s != abi.StatusDone || len(v) != 0 {
		t.Errorf("get: %v, %q", s, v)
	}
	if a, b := KVDelete("a"), KVDelete("a"); a != abi.StatusDone || b != abi.StatusAbsent || len(store) != 0 {
		t.Errorf("delete: %v, %v", a, b)
	}
}

func TestCapabilitiesNeedAStandIn(t *testing.T) {
	t.Cleanup(UseHost(Host{}))
	for name, f := range map[string]func(){
		"append": func() { Append(nil) }, "http": func() { HTTP(&Request{}, nil) },
		"kv": func() { KVGet("", nil) }, "kv ": func() { KVSet("", nil) }, "kv  ": func() { KVDelete("") },
	} {
		mustPanic(t, strings.TrimSpace(name)+" is a function of the host", f)
	}
}
