package queue

import (
	"testing"
	"time"
)

func TestBudget(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	b := budget{most: 2, window: time.Minute}
	for i, c := range []struct {
		after time.Duration
		room  bool
	}{{0, true}, {10 * time.Second, true}, {20 * time.Second, false}, {time.Minute - 1, false}, {time.Minute, true}, {65 * time.Second, false}, {71 * time.Second, true}} {
		if got := b.spend(start.Add(c.after)); got != c.room {
			t.Errorf("%d, after %v: %v", i, c.after, got)
		}
	}
	b.clear()
	if b.count(start) != 0 || !b.spend(start) {
		t.Error("a cleared budget is not whole")
	}
	if none := (budget{window: time.Minute}); none.spend(start) {
		t.Error("a budget of none has room")
	}
}

func TestPause(t *testing.T) {
	const least, most = 10 * time.Millisecond, 30 * time.Second
	if d := pause(0, least, most, 0); d != least {
		t.Errorf("no wish: %v", d)
	}
	if d := pause(time.Hour, least, most, 0); d != most {
		t.Errorf("a large wish: %v", d)
	}
	differ := false
	for n := range 200 {
		d := pause(time.Second, least, most, n)
		nominal := most
		if n < 5 {
			nominal = time.Second << n
		}
		if d > nominal || d < nominal*3/4-1 {
			t.Errorf("time %d: %v, want about %v", n, d, nominal)
		}
		differ = differ || n >= 5 && d != most
	}
	if !differ {
		t.Error("200 pauses without jitter")
	}
}
