package host

import (
	"context"
	"fmt"
	"testing"

	"github.com/audit-host/audit-host/abi"
)

// TestPlaces: what a guest says of places is in the result if it fits the answer and
// itself, and else it has broken the ABI.
func TestPlaces(t *testing.T) {
	s := openGuest(t, goGuest(t), Options{Cache: sharedCache(t)})
	for _, c := range []struct {
		ids, do string
		want    abi.Outcome
	}{
		{"abc", "ok 1 1 1 2 1 2 3 1 3", abi.OK},
		{"abc", "ok 7 1 1 9 1 2 9223372036854775807 1 3", abi.OK},
		{"abc", "ok 5 0 1 3 0 2 4 0 3", abi.OK}, // there before, in any order
		{"abb", "ok 5 1 1 6 1 2 6 0 2", abi.OK},
		{"aab", "ok 5 0 1 5 0 1 6 1 2", abi.OK},
		{"abc", "partial 5 1 1 0 0 0 6 1 2", abi.Partial},
		{"abc", "busy", abi.Busy},
		{"abc", "ok 0 0 0 1 1 1 2 1 2", abi.BadABI},
		{"abc", "ok 9223372036854775808 1 1 1 1 1 2 1 2", abi.BadABI},
		{"abc", "ok 1 1 1 1 1 1 2 1 2", abi.BadABI}, // twice
		{"abc", "ok 1 1 1 2 1 1 1 0 1", abi.BadABI}, // of another event
		{"aba", "ok 1 1 1 2 1 1 1 0 9", abi.BadABI}, // another hash
		{"aba", "ok 1 0 1 2 1 1 1 1 1", abi.BadABI}, // stored, and then stored now
		{"abc", "ok 3 1 1 2 1 2 4 1 3", abi.BadABI}, // not in order
		{"abc", "ok 1 3 1 2 1 1 3 1 1", abi.BadABI}, // flags
		{"abc", "ok 1 1 1 2 1 1", abi.BadABI},       // too few
		{"abc", "ok 1 1 1 2 1 1 3 1 1 4 1 1", abi.BadABI},
		{"abc", "ok 1 1 1 2 1 2 3 1 3 twice", abi.BadABI},
		{"abc", "partial 5 1 1 6 1 1 7 1 2", abi.BadABI}, // of an event that is not stored
		{"abc", "partial 5 1 1 0 1 0 7 1 2", abi.BadABI},
		{"abc", "partial 0 0 0 0 0 0 7 1 2", abi.BadABI},
		{"abc", "busy 1 1 1 2 1 1 3 1 1", abi.BadABI},
	} {
		b := batchOf(len(c.ids), "places "+c.do)
		for i := range b.Events {
			b.Events[i].ID = c.ids[i : i+1]
		}
		if c.want == abi.Busy {
			b.Events[0].Payload = []byte("answer 4 0 0")
		}
		r := s.Deliver(context.Background(), b)
		told := c.want == abi.OK || c.want == abi.Partial
		if r.Outcome != c.want || (len(r.Places) == 3) != told || c.want == abi.BadABI && r.Rule != "R28" {
			t.Errorf("%s of %s: %v %s %s, %d places", c.do, c.ids, r.Outcome, r.Rule, r.Detail, len(r.Places))
		}
		if r.Outcome == abi.Partial && (fmt.Sprint(r.Places[0].Sequence, r.Places[1].Sequence, r.Places[2].Sequence) != "5 0 6" || !r.Places[2].StoredNow() || r.Places[2].RowHash[0] != 2) {
			t.Errorf("%+v", r.Places)
		}
	}
	// A sink that says nothing of places has none.
	if r := s.Deliver(t.Context(), batchOf(3, "store")); r.Outcome != abi.OK || r.Places != nil {
		t.Errorf("%+v", r)
	}
}
