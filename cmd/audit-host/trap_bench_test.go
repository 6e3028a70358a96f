package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkTrapToNext posts an event at which the mock sink traps, and right after
// it one at which it does not, and measures how long the second one takes until it
// has landed in both sinks. Once: the first is taken at its second attempt. Always:
// it becomes a dead letter first. None is the same way without a trap.
func BenchmarkTrapToNext(b *testing.B) {
	for name, rule := range map[string]string{
		"none":   `{do = "trap", contains = "nowhere"}`,
		"once":   `{do = "trap", contains = "poison", attempt = 1}`,
		"always": `{do = "trap", contains = "poison"}`,
	} {
		b.Run(name, func(b *testing.B) {
			// The incidents of one turn are forgotten before the next.
			const window = 100 * time.Millisecond
			d := serve(b, home(b, "[dead_letters]", fmt.Sprintf("[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nrequired = true\nrestart_window = %q\n"+
				"config.rules = [%s]\n\n[dead_letters]", window, rule)))
			d.post(b, "ledger", refusal("warm"))
			var took []time.Duration
			for b.Loop() {
				n := len(took)
				begin := time.Now()
				d.post(b, "accepted", strings.Replace(refusal(fmt.Sprint("first", n)), "rm -rf", "poison", 1))
				d.post(b, "ledger", refusal(fmt.Sprint("next", n)))
				took = append(took, time.Since(begin))
				b.StopTimer()
				time.Sleep(window)
				b.StartTimer()
			}
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
			b.ReportMetric(ms(took[len(took)/2]), "ms/p50")
			b.ReportMetric(ms(took[len(took)*95/100]), "ms/p95")
			b.ReportMetric(0, "ns/op")
			d.cancel()
			<-d.done
		})
	}
}
