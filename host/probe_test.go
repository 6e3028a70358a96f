package host

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/plugins/bundled"
)

// listed is a probe that writes down what it sees and has one call fail.
type listed struct {
	seen  []string
	at    int
	fault Fault
}

func (l *listed) Asked(a *Ask) Fault {
	l.seen = append(l.seen, fmt.Sprintf("%s %v %d", a.Function, a.Writes, len(a.Data)))
	if len(l.seen)-1 == l.at {
		return l.fault
	}
	return Fault{}
}

func (l *listed) Answered(a *Ask, status uint32) {
	l.seen[len(l.seen)-1] += fmt.Sprint(" = ", status)
}

// TestProbe has the last call of the bundled sink-sqlite fail in each way, and
// counts the rows that are there then.
func TestProbe(t *testing.T) {
	wasm, err := bundled.Read("sink-sqlite")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind FaultKind
		want abi.Outcome
		rows int
	}{
		{FaultNone, abi.OK, 2}, {FaultInstead, abi.Busy, 0}, {FaultAfter, abi.Busy, 2}, {FaultKillBefore, abi.HostPanic, 0}, {FaultKillAfter, abi.HostPanic, 2},
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		p := &listed{at: 4, fault: Fault{c.kind, 13, "a full disk"}}
		s := openGuest(t, wasm, Options{Cache: sharedCache(t), SQL: &SQLGrant{Database: path, Create: true}, Probe: p})
		b := batchOf(2, "{}")
		b.Events[1].ID = "other"
		r := s.Deliver(context.Background(), b)
		rows := 0
		if err := EachRow(context.Background(), path, func(table string, cells [][]byte) {
			if table == "signed_events" && slices.ContainsFunc(cells, func(c []byte) bool { return bytes.Equal(c, []byte("other")) || string(c) == "id" }) {
				rows++
			}
		}); err != nil {
			t.Fatal(err)
		}
		if r.Outcome != c.want || rows != c.rows || len(p.seen) < 5 {
			t.Errorf("fault %d: %s %q, %d rows, wanted %s and %d; %q", c.kind, r.Outcome, r.Detail, rows, c.want, c.rows, p.seen)
		}
	}
}

// TestBench: an instance is killed, opened with another configuration, limited
// and raised.
func TestBench(t *testing.T) {
	ctx := context.Background()
	s := openGuest(t, goGuest(t), Options{Cache: sharedCache(t), Memory: 4 << 30})
	b := s.Bench()
	deliver := func(do string) abi.Result { return s.Deliver(ctx, batchOf(1, do)) }
	if r := deliver("x"); r.Outcome != abi.OK {
		t.Fatalf("%s %s", r.Outcome, r.Detail)
	}
	if sp, ok, err := b.Spent(ctx); err != nil || !ok || sp.Fuel <= 0 || sp.Inbox == 0 || sp.Memory < 1<<20 {
		t.Errorf("spent %+v, %v, %v", sp, ok, err)
	}
	if err := b.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := b.Spent(ctx); ok {
		t.Error("an instance that was killed is there")
	}
	if r, err := b.Reopen(ctx, []byte(`"refuse"`)); err != nil || r.Outcome != abi.BadConfig {
		t.Errorf("refuse: %s, %v", r.Outcome, err)
	}
	if r, err := b.Reopen(ctx, []byte(`"trap"`)); err != nil || r.Outcome != abi.Trap {
		t.Errorf("trap: %s, %v", r.Outcome, err)
	}
	if r, err := b.Reopen(ctx, []byte(`{}`)); err != nil || r.Outcome != abi.OK {
		t.Errorf("open: %s, %v", r.Outcome, err)
	}
	if err := b.Limit(ctx, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if r := deliver("x"); r.Outcome != abi.Fuel {
		t.Errorf("with 1,000 units: %s", r.Outcome)
	}
	if err := b.Limit(ctx, 0, 8<<20); err != nil {
		t.Fatal(err)
	}
	if r := deliver("eat"); r.Outcome != abi.Memory {
		t.Errorf("with 8 MiB: %s %s", r.Outcome, r.Detail)
	}
	if err := b.Limit(ctx, 0, 0); err != nil {
		t.Fatal(err)
	}
	frame := batchOf(1, "x")
	if r := b.Frame(ctx, frame.Size(), 1, func(dst []byte) { frame.Encode(dst) }); r.Outcome != abi.OK {
		t.Errorf("frame: %s %s", r.Outcome, r.Detail)
	}
	if err := b.Raise(ctx, 1<<31); err != nil {
		t.Fatal(err)
	}
	if sp, _, _ := b.Spent(ctx); sp.Memory != 1<<31 || sp.InboxSize != 0 {
		t.Errorf("raised: %+v", sp)
	}
	if r := b.Frame(ctx, 1<<30, 0, nil); r.Outcome != abi.OK {
		t.Errorf("inbox: %s %s", r.Outcome, r.Detail)
	}
	if sp, _, _ := b.Spent(ctx); sp.InboxSize != 1<<30 {
		t.Errorf("inbox: %+v", sp)
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if b.Kill(ctx) == nil || b.Frame(ctx, 1, 0, nil).Outcome != abi.Deadline {
		t.Error("a closed sink has a bench")
	}
}
