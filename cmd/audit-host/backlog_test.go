//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/audit-host/audit-host/host"
)

// resident is the memory of a process in bytes, of /proc; 0 where there is none.
func resident(pid int) (n int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return n << 10
}

func sizeOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			info, err := e.Info()
			if err != nil {
				return err
			}
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// BACKLOG says how many events pile up in TestBacklog; CI does with less.
func backlog(t *testing.T) int {
	v := os.Getenv("BACKLOG")
	if v == "" {
		return 20_000
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1000 {
		t.Fatalf("BACKLOG=%s is not a number of events from 1000 on", v)
	}
	return n
}

// Events pile up on disk while the ledger takes nothing, and the memory does not
// grow with them. A start with all of them serves within seconds, and then each
// lands once.
func TestBacklog(t *testing.T) {
	const mostMemory, mostStart = 100 << 20, 5 * time.Second
	n := backlog(t)
	config := home(t)
	release := lockLedger(t, config)
	c := spawn(t, config)
	idle := resident(c.cmd.Process.Pid)
	const chunk, clients = 1000, 8
	began := time.Now()
	var at, peak atomic.Int64
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for {
				from := int(at.Add(chunk)) - chunk
				if from >= n {
					return
				}
				var body strings.Builder
				for i := from; i < min(n, from+chunk); i++ {
					body.WriteString(padded(fmt.Sprintf("e%08d", i)))
				}
				if a := c.post(t, "durable", body.String()); a.Accepted != min(n, from+chunk)-from {
					t.Errorf("accepted %d", a.Accepted)
				}
				peak.Store(max(peak.Load(), resident(c.cmd.Process.Pid)))
			}
		})
	}
	group.Wait()
	took, disk := time.Since(began), sizeOf(t, filepath.Join(filepath.Dir(config), "state", "queue"))
	now := resident(c.cmd.Process.Pid)
	c.signal(t, syscall.SIGKILL)
	<-c.done
	began = time.Now()
	c = spawn(t, config)
	start := time.Since(began)
	if m := c.scrape(t); m[`audit_host_pending{sink="ledger"}`] != float64(n) {
		t.Errorf("%v events are pending, want %d", m[`audit_host_pending{sink="ledger"}`], n)
	}
	again := resident(c.cmd.Process.Pid)
	release()
	began = time.Now()
	for c.scrape(t)[`audit_host_pending{sink="ledger"}`] > 0 {
	}
	landed := time.Since(began)
	end := resident(c.cmd.Process.Pid)
	c.signal(t, syscall.SIGTERM)
	if st := c.status(); !st.Exited() || st.ExitStatus() != 0 {
		t.Fatalf("status %v", st)
	}
	l, err := host.OpenLedger(ledgerOf(config))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make([]bool, n)
	rows := 0
	for row, err := range l.Rows(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		i, err := strconv.Atoi(row.ID[1:])
		if err != nil || i >= n || seen[i] {
			t.Fatalf("row %d has the id %s", row.Sequence, row.ID)
		}
		seen[i] = true
		rows++
	}
	if rows != n {
		t.Errorf("%d rows, want %d", rows, n)
	}
	t.Logf("%d events of about 400 B: accepted in %v (%.0f/s, each durable); resident %d MiB idle, %d MiB at most, %d MiB at the end; %d MiB on disk",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), idle>>20, peak.Load()>>20, now>>20, disk>>20)
	t.Logf("start with them after SIGKILL: serving in %v, resident %d MiB; landed in %v (%.0f rows/s), resident %d MiB",
		start.Round(time.Millisecond), again>>20, landed.Round(time.Millisecond), float64(n)/landed.Seconds(), end>>20)
	if start > mostStart {
		t.Errorf("the start took %v, at most %v are allowed", start, mostStart)
	}
	// What the backlog costs, beyond what a daemon without one takes.
	if cost := max(now, again) - idle; cost > mostMemory {
		t.Errorf("the backlog costs %d MiB of memory, at most %d are allowed", cost>>20, int64(mostMemory)>>20)
	}
}

// padded is a refusal of about 400 bytes.
func padded(id string) string {
	return strings.Replace(refusal(id), "rm -rf /", "rm -rf /"+strings.Repeat("x", 210), 1)
}

// SIGTERM in the middle of a ledger that takes nothing, and under load: the stop
// keeps its bound, says truly what remained, and all of it lands at the next
// start.
func TestStopBeforeTheLedgerTakesAnything(t *testing.T) {
	config := home(t, `#drain_timeout = "5s"`, `drain_timeout = "500ms"`)
	release := lockLedger(t, config)
	c := spawn(t, config)
	var accepted atomic.Int64
	var group sync.WaitGroup
	for p := range 4 {
		group.Go(func() {
			for i := 0; ; i++ {
				r, err := postQuietly(c.url, several(fmt.Sprint("p", p, "-", i, "-"), 50))
				if err != nil {
					return // it has stopped
				}
				accepted.Add(int64(r))
			}
		})
	}
	c.await(t, "fault=locked")
	began := time.Now()
	c.signal(t, syscall.SIGTERM)
	st := c.status()
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("the stop took %v", took)
	}
	group.Wait()
	var submitted, appended, remained uint64
	for line := range strings.Lines(c.log.String()) {
		if _, rest, ok := strings.Cut(line, "recorder closed\" "); ok {
			if _, err := fmt.Sscanf(rest, "submitted=%d appended=%d dead_lettered=0 remained=%d", &submitted, &appended, &remained); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	if st.ExitStatus() != exitFailed || appended != 0 || remained != submitted || int64(remained) < accepted.Load() {
		t.Errorf("status %v: submitted %d, appended %d, remained %d; the clients know of %d", st, submitted, appended, remained, accepted.Load())
	}
	if !strings.Contains(c.log.String(), fmt.Sprintf("%d events remain, kept on disk", remained)) {
		t.Error("what remained is not told")
	}
	release()
	d := serve(t, config)
	d.post(t, "ledger", refusal("last"))
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != remained+1 {
		t.Errorf("%d rows, want %d", v.Rows, remained+1)
	}
}
