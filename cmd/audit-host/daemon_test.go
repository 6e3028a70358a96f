package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/event"
)

// process is "audit-host run" in this process.
type process struct {
	url    string
	cancel context.CancelFunc
	lines  chan string // of stderr, closed at its end
	done   chan struct{}
	code   int          // after done
	log    bytes.Buffer // after done
}

var listening = regexp.MustCompile(`msg=listening address=(\S+)`)

// serve starts a daemon and waits until it listens. It is stopped when the test
// ends.
func serve(t testing.TB, config string) *process {
	t.Helper()
	d := &process{done: make(chan struct{}), lines: make(chan string, 1<<16)}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	out, in := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(d.lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			fmt.Fprintln(&d.log, s.Text())
			select {
			case d.lines <- s.Text():
			default:
			}
		}
	}()
	go func() {
		defer close(d.done)
		d.code = run(ctx, []string{"run", "-c", config}, strings.NewReader(""), io.Discard, in)
		in.Close()
		<-read
	}()
	t.Cleanup(func() {
		d.cancel()
		<-d.done
		if t.Failed() {
			t.Logf("the daemon wrote:\n%s", &d.log)
		}
	})
	for line := range d.lines {
		if m := listening.FindStringSubmatch(line); m != nil {
			d.url = "http://" + m[1]
			return d
		}
	}
	<-d.done
	t.Fatalf("the daemon ended with %d before it listened", d.code)
	return nil
}

// stop ends the daemon as a signal does and wants that exit code.
func (d *process) stop(t testing.TB, code int) string {
	t.Helper()
	d.cancel()
	<-d.done
	if d.code != code {
		t.Fatalf("run exits with %d, want %d", d.code, code)
	}
	return d.log.String()
}

func (d *process) request(t testing.TB, method, path, body string, want int, header ...string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, d.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != want {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, answer.StatusCode, want, text)
	}
	return text
}

func (d *process) post(t testing.TB, ack, body string) event.Report {
	t.Helper()
	want := http.StatusOK
	if ack == "accepted" {
		want = http.StatusAccepted
	}
	var a event.Report
	decode(t, d.request(t, "POST", "/v1/events?ack="+ack, body, want), &a)
	return a
}

func decode(t testing.TB, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// scrape returns the samples of /metrics by name and labels.
func (d *process) scrape(t testing.TB) map[string]float64 {
	t.Helper()
	samples := map[string]float64{}
	for line := range strings.Lines(string(d.request(t, "GET", "/metrics", "", 200))) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var v float64
		if _, err := fmt.Sscan(value, &v); err != nil {
			t.Fatalf("sample %q: %v", line, err)
		}
		samples[name] = v
	}
	return samples
}

// verdict is the report of verify.
type verdict struct {
	Verified bool
	Rows     uint64
	Head     struct {
		Sequence uint64
		RowHash  string `json:"row_hash"`
	}
	BrokenAt   *uint64 `json:"broken_at"`
	Reason     string
	Signatures struct{ Valid, Unsigned, UnknownKey, Invalid uint64 }
	NotChecked []string `json:"not_checked"`
	Allowed    []string
}

func verified(t *testing.T, config string) verdict {
	t.Helper()
	v := verdictOf(t, 0, config)
	if !v.Verified {
		t.Fatalf("not verified: %+v", v)
	}
	return v
}

// verdictOf is what verify says of a configuration's ledger when it ends with code.
func verdictOf(t *testing.T, code int, config string, more ...string) (v verdict) {
	t.Helper()
	decode(t, []byte(must(t, code, "", append([]string{"verify", "-c", config, "--json"}, more...)...).stdout), &v)
	return v
}

// The whole way: init, run, a refusal by HTTP, its receipt, and an auditor who
// finds the same row beside the daemon and after it.
func TestWholeWay(t *testing.T) {
	config := home(t)
	d := serve(t, config)
	a := d.post(t, "ledger", refusal("e1"))
	if len(a.Events) != 1 || a.Events[0].Status != event.StatusAppended || a.Events[0].Sequence != 1 {
		t.Fatalf("answer %+v", a)
	}
	if v := verified(t, config); v.Rows != 1 || v.Head.RowHash != a.Events[0].RowHash || v.Signatures.Valid != 1 {
		t.Errorf("beside the daemon: %+v, the receipt says %+v", v, a.Events[0])
	}
	// A repetition is recognised: the same receipt, no further row.
	if again := d.post(t, "ledger", refusal("e1")); again.Events[0].Sequence != 1 || again.Events[0].RowHash != a.Events[0].RowHash {
		t.Errorf("repeated: %+v", again.Events[0])
	}
	if b := d.post(t, "durable", refusal("e2")); b.Events[0].Status != event.StatusDurable {
		t.Errorf("durable: %+v", b.Events[0])
	}
	d.post(t, "ledger", refusal("e2"))
	if v := verified(t, config); v.Rows != 2 {
		t.Errorf("%+v", v)
	}
	if got := string(d.request(t, "GET", "/-/ready", "", 200)); got != `{"ready":true,"reasons":[]}`+"\n" {
		t.Errorf("ready: %s", got)
	}
	m := d.scrape(t)
	for name, want := range map[string]float64{
		"audit_host_submitted_total": 4, "audit_host_send_failures_total": 0, `audit_host_appended_total{sink="ledger"}`: 4,
		`audit_host_pending{sink="ledger"}`: 0, `audit_host_lost{sink="ledger"}`: 0, `audit_host_parked{sink="ledger"}`: 0,
		"audit_host_unsigned": 0, `audit_host_ingest_events_total{outcome="accepted"}`: 4,
	} {
		if got, ok := m[name]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", name, got, ok, want)
		}
	}
	d.request(t, "GET", "/-/ready", "", 200) // leaves a view of the ledger open
	log := d.stop(t, 0)
	if !strings.Contains(log, "appended=4 dead_lettered=0 remained=0") {
		t.Errorf("the report is missing: %s", log)
	}
	if v := verified(t, config); v.Rows != 2 {
		t.Errorf("after the daemon: %+v", v)
	}
	// The log was written back: the ledger is one file.
	if _, err := os.Stat(filepath.Join(filepath.Dir(config), "ledger.db-wal")); !os.IsNotExist(err) {
		t.Errorf("the ledger's log is still there: %v", err)
	}
}

// At any instant, for every sink: submitted + recovered = send_failures +
// pending + appended + dlq_landed + skipped + lost, with lost = 0.
func TestConservationWhileTrafficFlows(t *testing.T) {
	config := home(t, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\n"+
		"config.rules = [{do = \"verdict\", contains = \"refuse-this\", text = \"no\"}, {do = \"trap\", position = \"50\", attempt = 1}]\n\n[dead_letters]",
		`#backend = "disk"`, `backend = "memory"`, "#max_events = 1000000", "max_events = 64")
	d := serve(t, config)
	check := func() (submitted float64) {
		m := d.scrape(t)
		for _, sink := range []string{"ledger", "mock"} {
			of := func(name string) float64 {
				v, ok := m[fmt.Sprintf("audit_host_%s{sink=%q}", name, sink)]
				if !ok {
					t.Fatalf("no %s of sink %s", name, sink)
				}
				return v
			}
			left := m["audit_host_submitted_total"] + of("recovered_total")
			right := m["audit_host_send_failures_total"] + of("pending") + of("appended_total") + of("dlq_landed_total") + of("skipped_total") + of("lost")
			if left != right || of("lost") != 0 {
				t.Errorf("sink %s: %v in, %v out, lost %v: %v", sink, left, right, of("lost"), m)
			}
		}
		return m["audit_host_submitted_total"]
	}
	const producers, posts, events = 4, 12, 20
	var group sync.WaitGroup
	for p := range producers {
		group.Go(func() {
			for i := range posts {
				var body strings.Builder
				for e := range events {
					id := fmt.Sprintf("p%d-%d-%d", p, i, e)
					if e == 7 {
						id = "refuse-this-" + id
					}
					body.WriteString(strings.Replace(refusal(id), "rm -rf /", "rm -rf /"+id, 1))
				}
				// The queue is small: some of them find it full, and say so.
				r, err := http.Post(d.url+"/v1/events?ack=accepted", "application/x-ndjson", strings.NewReader(body.String()))
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		})
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	scrapes := 0
	for flowing := true; flowing; scrapes++ {
		select {
		case <-ended:
			flowing = false
		default:
		}
		check()
	}
	d.cancel()
	<-d.done
	t.Logf("%d scrapes", scrapes)
	if d.code != exitDeadLetters {
		t.Errorf("exit code %d, want %d: some events are dead letters", d.code, exitDeadLetters)
	}
	letters := strings.Count(must(t, 0, "", "dlq", "list", "-c", config).stdout, "refuse-this")
	if letters == 0 {
		t.Error("no dead letter is listed")
	}
	verified(t, config)
}

func TestOPAUploads(t *testing.T) {
	config := home(t)
	d := serve(t, config)
	d.request(t, "POST", "/logs", `[{"decision_id":"d1","input":{"user":"agent:bob"},"path":"gate","result":false,"erased":["/input/password"]},`+
		`{"decision_id":"d2","input":{"user":"agent:bob"},"path":"gate","result":true},{"decision_id":"d3"},17]`, 200)
	d.request(t, "POST", "/logs/part", `[{"decision_id":"d1","input":{"user":"agent:bob"},"path":"gate","result":false,"erased":["/input/password"]}]`, 200)
	d.stop(t, 0)
	if v := verified(t, config); v.Rows != 1 {
		t.Errorf("%+v, want one row", v)
	}
	if got := must(t, 0, "", "tail", "-c", config, "--json").stdout; !strings.Contains(got, `"erased":["/input/password"]`) {
		t.Errorf("erased is gone: %s", got)
	}
	list := must(t, 0, "", "dlq", "list", "-c", config, "--json").stdout
	if strings.Count(list, "\n") != 2 || !strings.Contains(list, `"sink":"ingest/opa"`) || !strings.Contains(list, `"raw":"17"`) {
		t.Errorf("dead letters: %s", list)
	}
}

func TestNotReady(t *testing.T) {
	t.Run("parked", func(t *testing.T) {
		config := home(t, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nmax_restarts = 0\nconfig.rules = [{do = \"trap\"}]\n\n[dead_letters]",
			"#drain_timeout = \"5s\"", "drain_timeout = \"50ms\"")
		d := serve(t, config)
		d.post(t, "accepted", refusal("e1"))
		for line := range d.lines {
			if strings.Contains(line, "sink parked") {
				break
			}
		}
		if got := string(d.request(t, "GET", "/-/ready", "", 503)); !strings.Contains(got, "sink mock is parked, its events are kept: ") {
			t.Errorf("ready: %s", got)
		}
		m := d.scrape(t)
		if m[`audit_host_parked{sink="mock"}`] != 1 || m[`audit_host_parked{sink="ledger"}`] != 0 {
			t.Errorf("parked: %v", m)
		}
		// The other sink goes on.
		if a := d.request(t, "POST", "/v1/events?ack=accepted", refusal("e2"), 202); len(a) == 0 {
			t.Error("no answer")
		}
		log := d.stop(t, exitFailed)
		if !strings.Contains(log, "2 events remain") {
			t.Errorf("what remained is not told: %s", log)
		}
		if v := verified(t, config); v.Rows != 2 {
			t.Errorf("the ledger has %d rows, want both", v.Rows)
		}
	})
	t.Run("ledger gone", func(t *testing.T) {
		config := home(t)
		d := serve(t, config)
		ledger := filepath.Join(filepath.Dir(config), "ledger.db")
		if err := os.Rename(ledger, ledger+".away"); err != nil {
			t.Fatal(err)
		}
		if got := string(d.request(t, "GET", "/-/ready", "", 503)); !strings.Contains(got, "the ledger can't be read") {
			t.Errorf("ready: %s", got)
		}
		d.request(t, "GET", "/-/healthy", "", 200)
		if err := os.Rename(ledger+".away", ledger); err != nil {
			t.Fatal(err)
		}
		d.request(t, "GET", "/-/ready", "", 200)
		d.stop(t, 0)
	})
	t.Run("optional sink missing", func(t *testing.T) {
		config := home(t, "[dead_letters]", "[[sink]]\nname = \"extra\"\nplugin = \"./none.wasm\"\nrequired = false\n\n[dead_letters]")
		d := serve(t, config)
		if got := string(d.request(t, "GET", "/-/ready", "", 200)); !strings.Contains(got, `"ready":true,"reasons":["sink extra (optional) could not be loaded: `) {
			t.Errorf("ready: %s", got)
		}
		d.stop(t, 0)
	})
}

// What a sink can't take in time is told, and whether it is kept.
func TestDrainTimeout(t *testing.T) {
	for backend, told := range map[string]string{
		"disk":   "1 events remain, kept on disk",
		"memory": "1 events remain, and are lost with this process",
	} {
		t.Run(backend, func(t *testing.T) {
			config := home(t, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = [{do = \"busy\", pause_ms = 60000}]\n\n[dead_letters]",
				"#drain_timeout = \"5s\"", "drain_timeout = \"100ms\"", `#backend = "disk"`, fmt.Sprintf("backend = %q", backend))
			d := serve(t, config)
			d.post(t, "accepted", refusal("e1"))
			began := time.Now()
			log := d.stop(t, exitFailed)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("the stop took %v", took)
			}
			if !strings.Contains(log, told) {
				t.Errorf("what remained is not told: %s", log)
			}
		})
	}
}

func TestUnsignedIsLoud(t *testing.T) {
	config := home(t, "private_key =", "#private_key =", "public_key =", "#public_key =")
	d := serve(t, config)
	d.post(t, "durable", refusal("e1"))
	if m := d.scrape(t); m["audit_host_unsigned"] != 1 {
		t.Errorf("audit_host_unsigned is %v", m["audit_host_unsigned"])
	}
	if log := d.stop(t, 0); !strings.Contains(log, "EVENTS ARE NOT SIGNED") {
		t.Errorf("no warning: %s", log)
	}
	if v := verified(t, config); v.Signatures.Unsigned != 1 || !strings.Contains(strings.Join(v.NotChecked, "; "), "who wrote 1 rows, and whether their text was changed") {
		t.Errorf("%+v", v)
	}
}

func TestOneDaemonForAState(t *testing.T) {
	config := home(t)
	serve(t, config)
	for _, args := range [][]string{{"run", "-c", config}, {"ingest", "-c", config, "-"}} {
		r := must(t, exitFailed, refusal("e1"), args...)
		if !strings.Contains(r.stderr, fmt.Sprintf("in use by another audit-host (process %d): stop it first", os.Getpid())) {
			t.Errorf("%v: %s", args, r.stderr)
		}
	}
	if v := verdictOf(t, exitUnchecked, config); v.Rows != 0 || v.BrokenAt != nil {
		t.Errorf("%+v", v)
	}
}

func TestAddressInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	config := home(t, `address = "127.0.0.1:0"`, fmt.Sprintf("address = %q", ln.Addr()))
	r := must(t, exitFailed, "", "run", "-c", config)
	if !strings.Contains(r.stderr, "address already in use; is another audit-host running? http.address in ") {
		t.Errorf("%s", r.stderr)
	}
	// It left nothing behind that keeps the next one from starting.
	must(t, 0, "", "ingest", "-c", config, "-")
}

func TestToken(t *testing.T) {
	config := home(t, `#token_file = ""`, `token_file = "token"`)
	if err := os.WriteFile(filepath.Join(filepath.Dir(config), "token"), []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, config)
	d.request(t, "POST", "/v1/events", refusal("e1"), 401)
	d.request(t, "GET", "/metrics", "", 401)
	d.request(t, "POST", "/v1/events", refusal("e1"), 200, "Authorization", "Bearer 0123456789abcdef")
	if log := d.stop(t, 0); strings.Contains(log, "0123456789abcdef") {
		t.Error("the token is in the log")
	}
}
