//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	const lines, mostMiB = 100_000, 250
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, `{%s"agent_id":"agent:%d","action":{"kind":"bash","command":"rm -rf /srv/data/%d --no-preserve-root"},`+
			`"decision":{"decision":"refuse","rule_id":"R%03d","reason":"destructive commands outside of the sandbox are not allowed"}}`+"\n", id(), i%50, i, i%17)
	}
	dir, n := b.TempDir(), 0
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
		out, peak := feed(b, text.String(), "ingest", "-c", config, "--json", "-")
		b.StopTimer()
		if peak > mostMiB {
			b.Errorf("ingest needed %.0f MiB, at most %d are allowed", peak, mostMiB)
		}
		b.ReportMetric(peak, "MiB")
		var s summary
		if err := json.Unmarshal(out, &s); err != nil {
			b.Fatal(err)
		}
		if s.Appended != lines || s.DeadLettered != 0 || s.Remained != 0 {
			b.Fatalf("%+v", s)
		}
		b.ReportMetric(lines/s.Seconds, "rows/s")
		var v verdict
		out, _ = feed(b, "", "verify", "-c", config, "--json")
		if err := json.Unmarshal(out, &v); err != nil {
			b.Fatal(err)
		}
		if !v.Verified || v.Rows != lines {
			b.Fatalf("%+v", v)
		}
		b.StartTimer()
	}
}

// feed runs audit-host with that input, and returns its output and the most
// memory in MiB that it had taken when all but the last piece of the input was
// read. The kernel's own count (ru_maxrss) begins with that of the process
// which started it, this one, and so says nothing.
func feed(b *testing.B, input string, args ...string) (output []byte, peak float64) {
	b.Helper()
	cmd := exec.Command(os.Getenv(binary), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_, err = in.Write([]byte(input))
	if input != "" && err == nil {
		peak = highWater(b, cmd.Process.Pid)
	}
	in.Close()
	if waitErr := cmd.Wait(); waitErr != nil || err != nil {
		b.Fatalf("%v: %v, %v\n%s", args, waitErr, err, &stderr)
	}
	return stdout.Bytes(), peak
}

// highWater is the most resident memory that a running process had, in MiB.
func highWater(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatalf("no VmHWM in %s", status)
	return 0
}
