package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// measurement is one thing to measure. run has a folder of its own and returns
// values by name; the names begin with that of the measurement.
type measurement struct {
	name, about string
	run         func(ctx context.Context, b *bench, dir string) ([]value, error)
	// against is a value whose measurement stands earlier in the list; the
	// table shows the ratio to it.
	against string
}

type value struct {
	name string // "" is that of the measurement
	v    float64
	unit string
}

func perSecond(n int, d time.Duration, unit string) value {
	return value{v: float64(n) / d.Seconds(), unit: unit + "/s"}
}

// series are the values of one name, one a round.
type series struct {
	name, unit string
	against    string
	values     []float64
	others     []float64 // processors that others used meanwhile
}

type results struct{ all []*series }

func (r *results) find(name string) *series {
	i := slices.IndexFunc(r.all, func(s *series) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return r.all[i]
}

// measure runs one measurement in a folder of its own.
func (r *results) measure(ctx context.Context, b *bench, m measurement, round int) error {
	dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", m.name, round))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	syscall.Sync() // what the one before left to be written is not this one's
	before := snapshot()
	values, err := m.run(ctx, b, dir)
	if err != nil {
		return err
	}
	others := snapshot().others(before)
	for _, v := range values {
		if v.name = m.name + v.name; !strings.HasPrefix(v.name, m.name) {
			return fmt.Errorf("a value %s", v.name)
		}
		s := r.find(v.name)
		if s == nil {
			s = &series{name: v.name, unit: v.unit}
			if v.name == m.name {
				s.against = m.against
			}
			r.all = append(r.all, s)
		}
		s.values, s.others = append(s.values, v.v), append(s.others, others)
		fmt.Fprintf(os.Stderr, "  %s=%s %s (others %.1f)\n", v.name, short(v.v), v.unit, others)
	}
	return os.RemoveAll(dir)
}

func (r *results) print(w io.Writer) {
	for _, s := range r.all {
		fmt.Fprintf(w, "%s=%s\n", s.name, short(median(s.values)))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "what\tmedian\tlowest\thighest\tunit\tratio\tto\tothers\t")
	for _, s := range r.all {
		ratio, to := "", ""
		if p := r.find(s.against); p != nil {
			var ratios []float64
			for i := range min(len(p.values), len(s.values)) {
				ratios = append(ratios, s.values[i]/p.values[i])
			}
			ratio, to = fmt.Sprintf("%.2f", median(ratios)), s.against
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t\n", s.name, short(median(s.values)), short(slices.Min(s.values)),
			short(slices.Max(s.values)), s.unit, ratio, to, median(s.others))
	}
	t.Flush()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// short writes three digits at least, and no more decimals than that takes.
func short(v float64) string {
	digits := 0
	for x := v; x < 100 && digits < 3; x *= 10 {
		digits++
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// times is what the processors have done so far, in seconds.
type times struct {
	at         time.Time
	busy, mine float64
}

// snapshot reads the times. Without /proc/stat others are not known, and 0.
func snapshot() times {
	t := times{at: time.Now()}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			t.mine += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		}
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.busy = t.mine
		return t
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq
		if n, err := strconv.ParseFloat(f, 64); err == nil && i <= 7 && i != 4 && i != 5 {
			t.busy += n / 100
		}
	}
	return t
}

func (t times) others(before times) float64 {
	return max(0, (t.busy-before.busy)-(t.mine-before.mine)) / t.at.Sub(before.at).Seconds()
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// ownCPU returns the seconds of a processor that this process has used.
func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
