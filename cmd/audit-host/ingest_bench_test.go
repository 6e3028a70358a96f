//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
)

// BenchmarkIngest lands 100,000 lines, signed, in a new ledger, with a process
// of its own, and verifies it. It fails if one is missing or the process needs
// more than 250 MiB.
func BenchmarkIngest(b *testing.B) {
	for name, id := range map[string]func() string{
		"minted": func() string { return "" },
		"random": func() string { return fmt.Sprintf(`"id":%q,`, uuid.NewString()) },
	} {
		b.Run(name, func(b *testing.B) { benchmarkIngest(b, id) })
	}
}

func benchmarkIngest(b *testing.B, id func() string) {
	const lines, mostBytes = 100_000, 250 << 20
	dir := b.TempDir()
	input := filepath.Join(dir, "events.jsonl")
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, `{%s"agent_id":"agent:%d","action":{"kind":"bash","command":"rm -rf /srv/data/%d --no-preserve-root"},`+
			`"decision":{"decision":"refuse","rule_id":"R%03d","reason":"destructive commands outside of the sandbox are not allowed"}}`+"\n", id(), i%50, i, i%17)
	}
	if err := os.WriteFile(input, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		home := filepath.Join(dir, fmt.Sprint(n))
		if _, err := initialize(home); err != nil {
			b.Fatal(err)
		}
		if err := warm(filepath.Join(home, "state")); err != nil {
			b.Fatal(err)
		}
		config := filepath.Join(home, "audit.toml")
		b.StartTimer()
		audit := func(args ...string) []byte {
			cmd := exec.Command(os.Getenv(binary), args...)
			out, err := cmd.Output()
			if err != nil {
				b.Fatalf("%v: %v: %s", args, err, out)
			}
			// Linux counts in KiB, others in bytes.
			peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
			if runtime.GOOS == "linux" {
				peak <<= 10
			}
			b.ReportMetric(float64(peak)/(1<<20), args[0]+"-MiB")
			if peak > mostBytes {
				b.Errorf("%v needed %d bytes, at most %d are allowed", args, peak, mostBytes)
			}
			return out
		}
		var s summary
		if err := json.Unmarshal(audit("ingest", "-c", config, "--json", input), &s); err != nil {
			b.Fatal(err)
		}
		if s.Appended != lines || s.DeadLettered != 0 || s.Remained != 0 {
			b.Fatalf("%+v", s)
		}
		b.ReportMetric(lines/s.Seconds, "rows/s")
		b.StopTimer()
		var v verdict
		if err := json.Unmarshal(audit("verify", "-c", config, "--json"), &v); err != nil {
			b.Fatal(err)
		}
		if !v.Verified || v.Rows != lines {
			b.Fatalf("%+v", v)
		}
		b.StartTimer()
	}
}
