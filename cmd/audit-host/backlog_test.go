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

	"github.com/audit-host/audit-host/ledger"
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

// settled is what a daemon has once the garbage of its start is gone.
func (c *child) settled() int64 {
	n := c.resident()
	for range 20 {
		time.Sleep(50 * time.Millisecond)
		n = min(n, c.resident())
	}
	return n
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

// pile has clients post n events, each acknowledged as durable, and returns how
// long that took and the most memory that the daemon had.
func (c *child) pile(t *testing.T, n int) (took time.Duration, peak int64) {
	t.Helper()
	const chunk, clients = 1000, 8
	began := time.Now()
	var at, most atomic.Int64
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
				most.Store(max(most.Load(), c.resident()))
			}
		})
	}
	group.Wait()
	return time.Since(began), most.Load()
}

func (c *child) resident() int64 { return resident(c.cmd.Process.Pid) }

func (c *child) pending(t *testing.T) float64 {
	t.Helper()
	return c.scrape(t)[`audit_host_pending{sink="ledger"}`]
}

// end has the daemon stop, and wants it to have nothing left.
func (c *child) end(t *testing.T) {
	t.Helper()
	c.signal(t, syscall.SIGTERM)
	if st := c.status(); !st.Exited() || st.ExitStatus() != 0 {
		t.Fatalf("status %v", st)
	}
}

// landedOnce wants the events of pile in the ledger, each once.
func landedOnce(t *testing.T, config string, n int) {
	t.Helper()
	l, err := ledger.Open(ledgerOf(config))
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
}

// mostMemory is what a backlog may cost beyond what a daemon without one takes.
const mostMemory = 100 << 20

// Events pile up on disk while the ledger takes nothing, and the memory does not
// grow with them. A start with all of them serves within seconds, and then each
// lands once.
func TestBacklog(t *testing.T) {
	const mostStart = 5 * time.Second
	n := backlog(t)
	config := home(t)
	release := lockLedger(t, config)
	c := spawn(t, config)
	idle := c.settled()
	took, peak := c.pile(t, n)
	disk, now := sizeOf(t, filepath.Join(filepath.Dir(config), "state", "queue")), c.resident()
	c.signal(t, syscall.SIGKILL)
	<-c.done
	began := time.Now()
	c = spawn(t, config)
	start := time.Since(began)
	if got := c.pending(t); got != float64(n) {
		t.Errorf("%v events are pending, want %d", got, n)
	}
	again := c.resident()
	release()
	began = time.Now()
	for c.pending(t) > 0 {
	}
	landed := time.Since(began)
	end := c.resident()
	c.end(t)
	landedOnce(t, config, n)
	t.Logf("%d events of about 400 B: accepted in %v (%.0f/s, each durable); resident %d MiB idle, %d MiB at most, %d MiB at the end; %d MiB on disk",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), idle>>20, peak>>20, now>>20, disk>>20)
	t.Logf("start with them after SIGKILL: serving in %v, resident %d MiB; landed in %v (%.0f rows/s), resident %d MiB",
		start.Round(time.Millisecond), again>>20, landed.Round(time.Millisecond), float64(n)/landed.Seconds(), end>>20)
	if start > mostStart {
		t.Errorf("the start took %v, at most %v are allowed", start, mostStart)
	}
	if cost := max(now, again) - idle; cost > mostMemory {
		t.Errorf("the backlog costs %d MiB of memory, at most %d are allowed", cost>>20, int64(mostMemory)>>20)
	}
}

// The same in front of a sink that is parked, for its plugin was ended once more
// than it may be: here by its deadline, while somebody else has the ledger.
// Resumed beside all the traffic, it goes on where it was.
func TestBacklogOfAParkedSink(t *testing.T) {
	t.Parallel()
	n := backlog(t)
	config := home(t, `plugin = "sink-sqlite"`, "plugin = \"sink-sqlite\"\ndeadline = \"3s\"\nmax_restarts = 0", `#busy_timeout = "1s"`, `busy_timeout = "15s"`)
	release := lockLedger(t, config)
	c := spawn(t, config)
	idle := c.settled()
	if a := c.post(t, "durable", padded("e00000000")); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	c.await(t, "sink parked")
	release()
	took, peak := c.pile(t, n) // the first is there already: it lands once
	disk, now := sizeOf(t, filepath.Join(filepath.Dir(config), "state", "queue")), c.resident()
	if got := c.pending(t); got != float64(n+1) {
		t.Errorf("%v events are pending, want %d", got, n+1)
	}
	c.request(t, "GET", "/-/ready", "", 503)
	began := time.Now()
	must(t, 0, "", "sink", "resume", "-c", config, "ledger")
	for c.pending(t) > 0 {
	}
	landed := time.Since(began)
	c.end(t)
	landedOnce(t, config, n)
	t.Logf("%d events of about 400 B while the sink is parked: accepted in %v (%.0f/s, each durable); resident %d MiB idle, %d MiB at most, %d MiB at the end; %d MiB on disk; landed in %v after sink resume (%.0f rows/s)",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), idle>>20, peak>>20, now>>20, disk>>20, landed.Round(time.Millisecond), float64(n)/landed.Seconds())
	if cost := now - idle; cost > mostMemory {
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
