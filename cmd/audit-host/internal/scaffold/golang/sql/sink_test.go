//go:build !wasip1

package main

import (
	"fmt"
	"slices"
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

// deliver has a sink store n events in a database that answers status.
func deliver(t *testing.T, n int, status abi.SQLStatus) (guest.Answer, []guest.Step) {
	t.Helper()
	var got []guest.Step
	t.Cleanup(guest.UseHost(guest.Host{SQL: func(mode uint32, steps []guest.Step, _ int) (abi.SQLStatus, []byte) {
		if mode != abi.SQLWrite {
			t.Errorf("mode %d", mode)
		}
		got = steps
		return status, []byte("what SQLite says")
	}}))
	s := &sink{}
	if a := s.Open([]byte(`{}`)); a.Outcome != abi.OK {
		t.Fatalf("open: %+v", a)
	}
	return s.Deliver(batch(t, n)), got
}

func TestDeliver(t *testing.T) {
	a, steps := deliver(t, 2, abi.SQLDone)
	if a != guest.OK(2) {
		t.Errorf("answer %+v", a)
	}
	if len(steps) != 2 || steps[0].SQL != table || steps[1].Kind != abi.SQLMany || steps[1].Columns != 2 || steps[1].Rows != 2 {
		t.Fatalf("steps %+v", steps)
	}
	var cells []string
	for _, c := range steps[1].Cells {
		cells = append(cells, fmt.Sprint(c))
	}
	if want := []string{"id-0", `{"n":0}`, "id-1", `{"n":1}`}; !slices.Equal(cells, want) {
		t.Errorf("cells %q, wanted %q", cells, want)
	}
}

func TestAnswers(t *testing.T) {
	for status, want := range map[abi.SQLStatus]abi.Outcome{
		5:                 abi.Busy,   // SQLITE_BUSY
		13:                abi.Busy,   // SQLITE_FULL
		19 | 5<<8:         abi.Reject, // SQLITE_CONSTRAINT_NOTNULL
		abi.SQLTooLarge:   abi.Reject,
		abi.SQLTimeout:    abi.Busy,
		abi.SQLRefused:    abi.Busy,
		abi.SQLBroken:     abi.Busy,
		abi.SQLReplaced:   abi.Busy,
		0x10000 | 19 | 64: abi.Busy, // none of SQLite's
	} {
		if a, _ := deliver(t, 1, status); a.Outcome != want || a.Message != "what SQLite says" {
			t.Errorf("status %#x: %+v, wanted %v", uint32(status), a, want)
		}
	}
}

func TestNothingToStore(t *testing.T) {
	if a, steps := deliver(t, 0, abi.SQLBroken); a != guest.OK(0) || steps != nil {
		t.Errorf("answer %+v, steps %+v", a, steps)
	}
}

func TestBadConfig(t *testing.T) {
	for _, config := range []string{``, `[]`, `null`, `{`, `{} {}`, `{"table": "x"}`} {
		if a := new(sink).Open([]byte(config)); a.Outcome != abi.BadConfig || a.Message == "" {
			t.Errorf("open %s: %+v", config, a)
		}
	}
}
