package host

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/internal/wasmtest"
)

// slowSQL is a guest whose batches of one event run a query without an end.
func slowSQL() guestModule {
	const text = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
	step := make([]byte, abi.SQLStepSize)
	for i, v := range []uint32{abi.SQLQuery, 700, uint32(len(text))} {
		binary.LittleEndian.PutUint32(step[4*i:], v)
	}
	return guestModule{
		manifest: `{"name":"hostile","version":"1","capabilities":["sql"]}`,
		imports:  [][]byte{imported("audit", "sql", typSQL)},
		deliver:  when(1, cat(i32c(0), i32c(512), i32c(1), i32c(64), i32c(128), callf(0), opDrop)),
		change: func(m *wasmtest.Module) {
			m.Data = [][]byte{
				cat(op(0), i32c(512), op(0x0b), leb(uint64(len(step))), step),
				cat(op(0), i32c(700), op(0x0b), str(text)),
			}
		},
	}
}

// Every limit is named where it is reached: in the log with the key to change,
// and in the counters.
func TestEachLimitIsNamed(t *testing.T) {
	verdicts := [][]byte{imported("audit", "verdict", typFour)}
	logs := [][]byte{imported("audit", "log", typThree)}
	reject := func(i int32) []byte { return cat(i32c(i), i32c(3), i32c(0), i32c(20), callf(0)) }
	line := cat(i32c(1), i32c(0), i32c(30), callf(0))
	down := guestModule{deliver: callf(4), more: []wasmtest.Func{{Type: typVoid, Code: callf(4)}}}
	grow := guestModule{deliver: cat(op(0x03, 0x40), i32c(1), op(0x40, 0), i32c(-1), op(0x47, 0x0d, 0, 0x0b), opUnreachable)}
	for _, c := range []struct {
		limit   Limit
		guest   guestModule
		o       Options
		outcome abi.Outcome
		key     string
	}{
		{LimitFuel, guestModule{deliver: forever()}, Options{Fuel: 1000}, abi.Fuel, "fuel in [sink.limits]"},
		{LimitDeadline, guestModule{deliver: forever()}, Options{Deadline: 20 * time.Millisecond}, abi.Deadline, "deadline of this sink"},
		{LimitMemory, grow, Options{Memory: 1 << 20}, abi.Trap, "memory_limit of this sink"},
		{LimitStack, down, Options{Stack: 50_000}, abi.Trap, "stack in [sink.limits]"},
		{LimitLogLines, guestModule{imports: logs, deliver: cat(line, line, line)}, Options{LogLines: 2}, abi.OK, "log_lines in [sink.limits]"},
		{LimitLogBytes, guestModule{imports: logs, deliver: cat(line, line, line)}, Options{LogBytes: 50}, abi.OK, "log_bytes in [sink.limits]"},
		{LimitVerdict, guestModule{imports: verdicts, deliver: cat(reject(0), reject(1), says(1, 0))}, Options{VerdictBytes: 100}, abi.Partial, "verdict_bytes in [sink.limits]"},
	} {
		t.Run(string(c.limit), func(t *testing.T) {
			var lines countingHandler
			c.o.Log = lines.logger()
			s := openGuest(t, c.guest.bytes(), c.o)
			for n := uint64(1); n <= 2; n++ {
				lines.reset()
				if r := s.Deliver(context.Background(), batchOf(2, "x")); r.Outcome != c.outcome {
					t.Fatalf("%v %q", r.Outcome, r.Detail)
				}
				if !lines.has("WARN plugin reached a limit", "sink=test", "plugin=hostile", "limit="+string(c.limit), "raise="+c.key) {
					t.Errorf("%q", lines.lines)
				}
				got := s.Counts()
				if !maps.Equal(got.Breaches, map[Limit]uint64{c.limit: n}) || got.Outcomes[c.outcome] < n {
					t.Errorf("%v", got)
				}
			}
		})
	}
	if len(Limits()) != 12 || slices.ContainsFunc(Limits(), func(l Limit) bool { return l.Key() == "" }) {
		t.Errorf("%v", Limits())
	}
}

// Time in SQL has a limit of its own, below the deadline.
func TestSQLTimeIsNamed(t *testing.T) {
	var lines countingHandler
	s := openGuest(t, slowSQL().bytes(), Options{Log: lines.logger(),
		SQL: &SQLGrant{Database: filepath.Join(t.TempDir(), "x.db"), Create: true, TimeLimit: 50 * time.Millisecond}})
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK || s.Counts().Breaches[LimitSQLTime] != 1 {
		t.Errorf("%v %q %v", r.Outcome, r.Detail, s.Counts())
	}
	if !lines.has("plugin reached a limit", "limit=sql_time", "value=50ms", "raise=time_limit in [sink.grant.sql]") {
		t.Errorf("%q", lines.lines)
	}
	// A deadline before that is the deadline's.
	s = openGuest(t, slowSQL().bytes(), Options{Deadline: 50 * time.Millisecond,
		SQL: &SQLGrant{Database: filepath.Join(t.TempDir(), "x.db"), Create: true}})
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.Deadline ||
		!maps.Equal(s.Counts().Breaches, map[Limit]uint64{LimitDeadline: 1}) {
		t.Errorf("%v %q %v", r.Outcome, r.Detail, s.Counts())
	}
}

// What is found at load names the key as well.
func TestLimitsAtLoad(t *testing.T) {
	plain := guestModule{}.bytes()
	table := guestModule{change: func(m *wasmtest.Module) { m.Tables = [][]byte{cat(op(0x70, 0), leb(5000))} }}.bytes()
	for _, c := range []struct {
		limit Limit
		wasm  []byte
		o     Options
		want  []string
	}{
		{LimitModule, plain, Options{ModuleSize: 200}, []string{"200", "raise module_size in [sink.limits]"}},
		{LimitTable, table, Options{TableElements: 4999}, []string{"4999", "raise table_elements in [sink.limits]"}},
		{LimitCompile, plain, Options{CompileCost: 1000}, []string{"1000", "raise compile_cost in [sink.limits]"}},
	} {
		_, err := Open(context.Background(), c.wasm, c.o)
		var over *LimitError
		if !errors.As(err, &over) || over.Limit != c.limit {
			t.Errorf("%s: %v", c.limit, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", c.limit, err, want)
			}
		}
	}
	openGuest(t, table, Options{TableElements: 5000})
}

// An answer after the deadline is none: what it says came too late to be
// relied on, and the batch is delivered again.
func TestSuccessAfterTheDeadline(t *testing.T) {
	var lines countingHandler
	late := make(chan struct{}, 1)
	log := hookLogger(&lines, func() {
		select {
		case <-late:
			<-time.After(2 * testDeadline)
		default:
		}
	})
	g := guestModule{imports: [][]byte{imported("audit", "log", typThree)}, deliver: when(1, cat(i32c(0), i32c(0), i32c(1), callf(0)))}
	crashes := openCrashes(t, CrashOptions{})
	s := openGuest(t, g.bytes(), Options{Deadline: testDeadline, Log: log, Crashes: crashes})
	late <- struct{}{}
	r := s.Deliver(context.Background(), batchOf(1, "x"))
	if r.Outcome != abi.Deadline || !strings.Contains(r.Detail, "answered too late") || !strings.Contains(r.Detail, "raise deadline") || s.inst != nil {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
	if b, _ := lastBundle(t, crashes); b.Ending == nil || b.Ending.Kind != endLate {
		t.Errorf("%+v", b.Ending)
	}
	replayed(t, crashes, nil)
	if r := s.Deliver(context.Background(), batchOf(1, "x")); r.Outcome != abi.OK {
		t.Errorf("%v %q", r.Outcome, r.Detail)
	}
}
