//go:build !wasip1

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// batch is one of n events, as a guest sees it.
func batch(t *testing.T, n int) abi.View {
	t.Helper()
	b := abi.Batch{ID: 1, Attempt: 1}
	for i := range n {
		b.Events = append(b.Events, abi.Event{ID: fmt.Sprintf("id-%d", i), EventType: "governance.refusal", Payload: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	frame := make([]byte, b.Size())
	b.Encode(frame)
	view, err := abi.Parse(frame)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

// opened is a sink with a configuration, on a host that keeps what is appended
// and answers status.
func opened(t *testing.T, config string, status abi.Status) (*sink, *strings.Builder) {
	t.Helper()
	var file strings.Builder
	t.Cleanup(guest.UseHost(guest.Host{Append: func(record []byte) abi.Status {
		if status == abi.StatusDone {
			file.Write(record)
		}
		return status
	}}))
	s := &sink{}
	if a := s.Open([]byte(config)); a.Outcome != abi.OK {
		t.Fatalf("open %s: %+v", config, a)
	}
	return s, &file
}

func TestDeliver(t *testing.T) {
	s, file := opened(t, `{"prefix": "> "}`, abi.StatusDone)
	if a := s.Deliver(batch(t, 2)); a != guest.OK(2) {
		t.Errorf("answer %+v", a)
	}
	const want = "> id-0\tgovernance.refusal\t{\"n\":0}\n> id-1\tgovernance.refusal\t{\"n\":1}\n"
	if file.String() != want {
		t.Errorf("file %q, wanted %q", file, want)
	}
}

func TestDeliverManyPortions(t *testing.T) {
	const n = 10_000
	s, file := opened(t, `{}`, abi.StatusDone)
	for range 2 {
		file.Reset()
		if a := s.Deliver(batch(t, n)); a != guest.OK(n) {
			t.Errorf("answer %+v", a)
		}
		if lines := strings.Count(file.String(), "\n"); lines != n {
			t.Errorf("%d lines, wanted %d", lines, n)
		}
	}
}

func TestBusyWhenTheFileIsNotToBeHad(t *testing.T) {
	s, _ := opened(t, `{}`, abi.StatusUnavailable)
	if a := s.Deliver(batch(t, 2)); a.Outcome != abi.Busy || a.Message != "append: UNAVAILABLE" {
		t.Errorf("answer %+v", a)
	}
}

func TestBadConfig(t *testing.T) {
	for _, config := range []string{``, `[]`, `null`, `{`, `{} {}`, `{"prefix": 1}`, `{"prefx": "x"}`, `{"prefix": "a\nb"}`} {
		if a := new(sink).Open([]byte(config)); a.Outcome != abi.BadConfig || a.Message == "" {
			t.Errorf("open %s: %+v", config, a)
		}
	}
}
