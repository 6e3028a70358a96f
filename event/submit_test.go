package event

import (
	"errors"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

func TestT09_B08_SubmitRefusalSkipsNonRefusals(t *testing.T) {
	var got []abi.Event
	take := func(e abi.Event) error { got = append(got, e); return nil }
	for _, d := range []Decision{allowed, warned, {}} {
		if done, err := SubmitRefusal(take, "agent:alice", memoryWrite, d); done || err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v, %d events", d.Kind, done, err, len(got))
		}
	}
	done, err := SubmitRefusal(take, "agent:alice", memoryWrite, refused)
	if !done || err != nil || len(got) != 1 {
		t.Fatalf("%v, %v, %d events", done, err, len(got))
	}
	if rule, _ := RuleID(got[0]); rule != "R001" || got[0].EventType != TypeRefusal || got[0].AgentID != "agent:alice" || Check(got[0], Options{}) != nil {
		t.Errorf("%+v", got[0])
	}
}

func TestB08_SubmitRefusalReturnsErrors(t *testing.T) {
	full := errors.New("full")
	if done, err := SubmitRefusal(func(abi.Event) error { return full }, "a", memoryWrite, refused); done || !errors.Is(err, full) {
		t.Errorf("%v, %v", done, err)
	}
	called := false
	done, err := SubmitRefusal(func(abi.Event) error { called = true; return nil }, "", memoryWrite, refused)
	var fault *Error
	if done || called || !errors.As(err, &fault) {
		t.Errorf("without an agent: %v, called %v, %v", done, called, err)
	}
}
