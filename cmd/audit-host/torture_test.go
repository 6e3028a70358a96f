package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/audit-host/audit-host/ledger"
)

// torture runs the real binary under load and kills it, again and again. It
// keeps what an honest client keeps: the ids it was told are durable, and those
// it sent without an answer, which it sends again.
type torture struct {
	binary, home string
	rng          *rand.Rand

	mu           sync.Mutex
	acknowledged map[string]bool // answered with a 2xx
	sent         map[string]bool // ever sent
	unanswered   []string        // sent, not acknowledged yet
	repeated     int
	minted       int
}

// TestTorture: after every SIGKILL each acknowledged id is in the ledger exactly
// once, nothing is there that was never sent, the chain verifies and the
// counters add up. ROUNDS says how often; `make torture` does more than the
// tests.
func TestTorture(t *testing.T) {
	t.Parallel()
	rounds := 4
	if v := os.Getenv("ROUNDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("ROUNDS=%s is not a number of rounds", v)
		}
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("SEED=%s is not a number", v)
		}
		seed = n
	}
	t.Logf("SEED=%d ROUNDS=%d", seed, rounds)
	dir := t.TempDir()
	x := &torture{
		binary: filepath.Join(dir, "audit-host"), home: filepath.Join(dir, "home"),
		rng:          rand.New(rand.NewPCG(seed, 1)),
		acknowledged: map[string]bool{}, sent: map[string]bool{},
	}
	build := exec.Command("go", "build", "-o", x.binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	x.output(t, "init", x.home)
	x.configure(t)
	rows := 0
	kills, slowest := 0, time.Duration(0)
	for round := range rounds {
		began := time.Now()
		d := x.start(t)
		slowest = max(slowest, time.Since(began))
		x.load(t, d, 4, 30*time.Millisecond+time.Duration(x.rng.IntN(900))*time.Millisecond)
		if x.rng.IntN(8) == 0 {
			d.terminate(t)
		} else {
			d.kill(t)
			kills++
		}
		d = x.start(t)
		if x.rng.IntN(3) == 0 { // also while it recovers
			x.load(t, d, 2, time.Duration(x.rng.IntN(60))*time.Millisecond)
			d.kill(t)
			kills++
			d = x.start(t)
		}
		d.awaitDrained(t)
		d.terminate(t)
		rows = x.compare(t)
		if round%16 == 15 || round == rounds-1 {
			x.verify(t, rows)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	t.Logf("%d rounds, %d kills: %d events acknowledged, each once among %d rows; %d sent again under their ids; slowest start %v",
		rounds, kills, len(x.acknowledged), rows, x.repeated, slowest.Round(time.Millisecond))
}

// load has clients post events for a while. A post that is cut off by the end
// of the time goes unanswered.
func (x *torture) load(t *testing.T, d *daemon, clients int, span time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var wg sync.WaitGroup
	for c := range clients {
		rng := rand.New(rand.NewPCG(x.rng.Uint64(), uint64(c)))
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				ids := x.take(1 + rng.IntN(40))
				level := "durable"
				if rng.IntN(5) == 0 {
					level = "ledger"
				}
				x.settle(ids, post(ctx, client, "http://"+d.address+"/v1/events?ack="+level, ids))
			}
		})
	}
	wg.Wait()
}

// take returns ids to send: some that got no answer before, and new ones.
func (x *torture) take(n int) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	again := min(len(x.unanswered), n/2)
	ids := append([]string(nil), x.unanswered[:again]...)
	x.unanswered = x.unanswered[again:]
	x.repeated += again
	for len(ids) < n {
		x.minted++
		id := fmt.Sprintf("torture-%08d", x.minted)
		x.sent[id] = true
		ids = append(ids, id)
	}
	return ids
}

func (x *torture) settle(ids []string, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !ok {
		x.unanswered = append(x.unanswered, ids...)
		return
	}
	for _, id := range ids {
		x.acknowledged[id] = true
	}
}

func post(ctx context.Context, client *http.Client, url string, ids []string) bool {
	var body strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&body, `{"id":%q,"agent_id":"agent:torture","action":{"kind":"bash","command":%q},`+
			`"decision":{"decision":"refuse","rule_id":"R1","reason":"no"},"timestamp":"2026-01-01T00:00:00Z"}`+"\n", id, id)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body.String()))
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return err == nil && answer.StatusCode == http.StatusOK && json.Valid(text)
}

// configure takes a free port and the durable queue, with segments so small that
// they turn over.
func (x *torture) configure(t *testing.T) {
	t.Helper()
	file := filepath.Join(x.home, "audit.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for old, replacement := range map[string]string{
		`address = "127.0.0.1:8480"`: `address = "127.0.0.1:0"`,
		`#batch_events = 1024`:       `batch_events = 100`,
	} {
		if !bytes.Contains(text, []byte(old)) {
			t.Fatalf("%s has no %s", file, old)
		}
		text = bytes.Replace(text, []byte(old), []byte(replacement), 1)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (x *torture) output(t *testing.T, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(x.binary, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("audit-host %v: %v\n%s%s", args, err, out, stderr.Bytes())
	}
	return out
}

// compare reads the ledger: each id once, each of them sent by us, and none
// that was acknowledged missing. It returns the number of rows.
func (x *torture) compare(t *testing.T) int {
	t.Helper()
	l, err := ledger.Open(filepath.Join(x.home, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make(map[string]bool, len(x.sent))
	for row, err := range l.Rows(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case seen[row.ID]:
			t.Errorf("event %s is in the ledger twice, again as row %d", row.ID, row.Sequence)
		case !x.sent[row.ID]:
			t.Errorf("event %s in row %d was never sent", row.ID, row.Sequence)
		}
		seen[row.ID] = true
	}
	for id := range x.acknowledged {
		if !seen[id] {
			t.Errorf("event %s was acknowledged and is not in the ledger", id)
		}
	}
	return len(seen)
}

func (x *torture) verify(t *testing.T, rows int) {
	t.Helper()
	var v struct {
		Verified bool
		Rows     int
	}
	out := x.output(t, "verify", "-c", filepath.Join(x.home, "audit.toml"), "--json")
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("verify: %v in %s", err, out)
	}
	if !v.Verified || v.Rows != rows {
		t.Errorf("verify says %s, there should be %d rows", out, rows)
	}
}

// daemon is one life of `audit-host run`.
type daemon struct {
	cmd     *exec.Cmd
	address string
	log     bytes.Buffer
	read    chan struct{} // closed when stderr has ended
}

// start starts the daemon and waits until it listens.
func (x *torture) start(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{cmd: exec.Command(x.binary, "run", "-c", filepath.Join(x.home, "audit.toml")), read: make(chan struct{})}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		defer close(d.read)
		defer close(address)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(&d.log, lines.Text())
			if _, after, ok := strings.Cut(lines.Text(), "address=127.0.0.1:"); ok && len(address) == 0 && d.address == "" {
				address <- "127.0.0.1:" + strings.Fields(after)[0]
			}
		}
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it has ended by itself if all went well
		<-d.read
		_ = d.cmd.Wait()
		if t.Failed() {
			t.Logf("a daemon wrote:\n%s", tail(d.log.String(), 4000))
		}
	})
	select {
	case a, ok := <-address:
		if !ok {
			t.Fatal("the daemon ended before it listened")
		}
		d.address = a
	case <-time.After(time.Minute):
		t.Fatal("the daemon does not listen after a minute")
	}
	return d
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (d *daemon) kill(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.read
	_ = d.cmd.Wait() // it was killed
}

func (d *daemon) terminate(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-d.read
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// awaitDrained waits until nothing is pending, and checks the conservation
// equation on every look.
func (d *daemon) awaitDrained(t *testing.T) {
	t.Helper()
	for range 3000 {
		m := d.metrics(t)
		left := m["audit_host_submitted_total"] + m[`audit_host_recovered_total{sink="ledger"}`]
		right := m["audit_host_send_failures_total"] + m[`audit_host_pending{sink="ledger"}`] +
			m[`audit_host_appended_total{sink="ledger"}`] + m[`audit_host_dlq_landed_total{sink="ledger"}`] + m[`audit_host_lost{sink="ledger"}`]
		if left != right || m[`audit_host_lost{sink="ledger"}`] != 0 || m[`audit_host_dlq_landed_total{sink="ledger"}`] != 0 {
			t.Fatalf("the counters do not add up: %v", m)
		}
		if m[`audit_host_pending{sink="ledger"}`] == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("events are still pending after 30 s")
}

// metrics reads /metrics; a name that is missing fails the test.
func (d *daemon) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	answer, err := http.Get("http://" + d.address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	m := map[string]float64{}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(name, "audit_host_") {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				m[name] = v
			}
		}
	}
	for _, name := range []string{"audit_host_submitted_total", "audit_host_send_failures_total",
		`audit_host_recovered_total{sink="ledger"}`, `audit_host_pending{sink="ledger"}`, `audit_host_appended_total{sink="ledger"}`,
		`audit_host_dlq_landed_total{sink="ledger"}`, `audit_host_lost{sink="ledger"}`} {
		if _, ok := m[name]; !ok {
			t.Fatalf("/metrics has no %s", name)
		}
	}
	return m
}
