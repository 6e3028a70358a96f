package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const policy = `package gate

default allow := false

allow if input.n % 2 == 0
`

// opaConfig has OPA upload its decisions as it does in production, only sooner.
const opaConfig = `services:
  audit:
    url: http://%s
    credentials:
      bearer:
        token: %s
decision_logs:
  service: audit
  reporting:
    min_delay_seconds: 1
    max_delay_seconds: 2
labels:
  id: gatekeeper
`

const token = "interop-bearer-token"

// TestOPA runs a real OPA against a real audit-host: 500 decisions, half of
// them refused. After OPA has ended, exactly the refused ones are in the
// ledger, which verifies.
func TestOPA(t *testing.T) {
	dir := t.TempDir()
	audit := build(t, filepath.Join(dir, "audit-host"), "..", "./cmd/audit-host")
	opa := build(t, filepath.Join(dir, "opa"), ".", "github.com/open-policy-agent/opa")

	home := filepath.Join(dir, "home")
	output(t, audit, "init", home)
	write(t, filepath.Join(home, "token"), token+"\n", 0o600)
	configure(t, filepath.Join(home, "audit.toml"))
	config := filepath.Join(home, "audit.toml")

	daemon := start(t, audit, "run", "-c", config)
	address := daemon.await(t, "listening", "127.0.0.1:")

	write(t, filepath.Join(dir, "policy.rego"), policy, 0o644)
	write(t, filepath.Join(dir, "opa.yaml"), fmt.Sprintf(opaConfig, address, token), 0o644)
	opaAddress := freeAddress(t)
	server := start(t, opa, "run", "--server", "--disable-telemetry", "--addr", opaAddress, "--shutdown-grace-period", "20",
		"--config-file", filepath.Join(dir, "opa.yaml"), filepath.Join(dir, "policy.rego"))
	awaitHealthy(t, "http://"+opaAddress+"/health")

	var refused []string
	for n := range 500 {
		id, allow := ask(t, "http://"+opaAddress+"/v1/data/gate/allow", n)
		if allow != (n%2 == 0) {
			t.Fatalf("OPA answered %v for %d", allow, n)
		}
		if !allow {
			refused = append(refused, id)
		}
	}
	server.stop(t) // uploads what it still holds
	daemon.stop(t)

	var verdict struct {
		Verified   bool
		Rows       int
		Signatures struct{ Valid int }
	}
	decode(t, output(t, audit, "verify", "-c", config, "--json"), &verdict)
	if !verdict.Verified || verdict.Rows != len(refused) || verdict.Signatures.Valid != len(refused) {
		t.Errorf("verify: %+v, want %d signed rows", verdict, len(refused))
	}
	var recorded []string
	lines := bufio.NewScanner(bytes.NewReader(output(t, audit, "tail", "-c", config, "-n", "1000", "--json")))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row struct {
			ID        string `json:"id"`
			EventType string `json:"event_type"`
			AgentID   string `json:"agent_id"`
		}
		decode(t, lines.Bytes(), &row)
		recorded = append(recorded, row.ID)
		if row.EventType != "governance.refusal" || row.AgentID != "agent:interop" {
			t.Fatalf("row %+v", row)
		}
	}
	slices.Sort(refused)
	slices.Sort(recorded)
	if !slices.Equal(refused, recorded) {
		t.Fatalf("OPA refused %d decisions, the ledger has %d; first ids %.2q and %.2q", len(refused), len(recorded), refused, recorded)
	}
	t.Logf("500 decisions, %d refused, %d rows in the verified ledger, the same ids", len(refused), len(recorded))
}

func build(t *testing.T, binary, dir, pkg string) string {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", binary, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return binary
}

// configure asks for a port of the kernel's choice and the token.
func configure(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old := `address = "127.0.0.1:8480"`
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%s has no %s", file, old)
	}
	write(t, file, strings.Replace(string(text), old, `address = "127.0.0.1:0"`+"\ntoken_file = \"token\"", 1), 0o644)
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", filepath.Base(name), args, err, out, stderr.Bytes())
	}
	return out
}

func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a server under test. Its stderr is shown when the test fails.
type process struct {
	name  string
	cmd   *exec.Cmd
	lines chan string // of stderr; closed at its end
	log   *bytes.Buffer
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(name), cmd: exec.Command(name, args...), lines: make(chan string, 1<<16), log: new(bytes.Buffer)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		s := bufio.NewScanner(stderr)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			fmt.Fprintln(p.log, s.Text())
			select {
			case p.lines <- s.Text():
			default: // nobody is looking for a line any more
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-read
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", p.name, p.log)
		}
	})
	return p
}

// await returns the word with the given beginning from the first line of
// stderr that has the text.
func (p *process) await(t *testing.T, text, prefix string) string {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("%s ended before it said %q", p.name, text)
			}
			if !strings.Contains(line, text) {
				continue
			}
			if _, after, found := strings.Cut(line, prefix); found {
				return prefix + strings.TrimRight(strings.Fields(after)[0], `"/,`)
			}
		case <-limit:
			t.Fatalf("%s did not say %q within a minute", p.name, text)
		}
	}
}

// stop ends the process as an operator does, and wants it to succeed.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range p.lines { // until stderr ends
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s: %v", p.name, err)
	}
}

func awaitHealthy(t *testing.T, url string) {
	t.Helper()
	var last error
	for range 300 {
		answer, err := http.Get(url)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("status %s", answer.Status)
		}
		last = err
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s: %v", url, last)
}

func ask(t *testing.T, url string, n int) (decisionID string, allow bool) {
	t.Helper()
	body := fmt.Sprintf(`{"input":{"n":%d,"agent_id":"agent:interop","action":"write"}}`, n)
	answer, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		DecisionID string `json:"decision_id"`
		Result     bool   `json:"result"`
	}
	decode(t, text, &v)
	if v.DecisionID == "" {
		t.Fatalf("OPA answered without a decision id: %s", text)
	}
	return v.DecisionID, v.Result
}
