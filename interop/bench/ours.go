package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// prepare builds the binary, makes the inputs and compiles the plugins once.
func (b *bench) prepare(ctx context.Context) error {
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "audit-host")
		// In its own module, with the versions that it asks for.
		root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/audit-host/audit-host").Output()
		if err != nil {
			return fmt.Errorf("find audit-host; run this in interop/bench, or give -binary: %w", err)
		}
		build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "./cmd/audit-host")
		build.Dir, build.Env = strings.TrimSpace(string(root)), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build audit-host: %w: %s", err, out)
		}
	}
	b.minted, b.random = filepath.Join(b.dir, "minted.jsonl"), filepath.Join(b.dir, "random.jsonl")
	for path, random := range map[string]bool{b.minted: false, b.random: true} {
		if err := corpus(path, b.events, eventSize, random); err != nil {
			return err
		}
	}
	home, err := b.home(ctx, b.dir, edit{})
	if err != nil {
		return err
	}
	one := filepath.Join(b.dir, "one.jsonl")
	if err := corpus(one, 1, eventSize, false); err != nil {
		return err
	}
	if _, err := b.audit(ctx, "ingest", "-c", home.config, one); err != nil {
		return err
	}
	b.cache = filepath.Join(home.dir, "state", "cache")
	end, err := b.audit(ctx, "ingest", "-c", home.config, one)
	b.start = end.cpu
	return err
}

// home is a folder that audit-host init made.
type home struct{ dir, config, ledger string }

// edit is what differs from the sample configuration.
type edit struct {
	unsigned, memory bool
	cold             bool // without compiled plugins
	address          string
	batch            int // events; 0 is the default
	sinks            int // beside the ledger, each with a ledger of its own
}

func (b *bench) home(ctx context.Context, parent string, e edit) (home, error) {
	h := home{dir: filepath.Join(parent, "home")}
	h.config, h.ledger = filepath.Join(h.dir, "audit.toml"), filepath.Join(h.dir, "ledger.db")
	if _, err := b.audit(ctx, "init", h.dir); err != nil {
		return h, err
	}
	raw, err := os.ReadFile(h.config)
	if err != nil {
		return h, err
	}
	text := string(raw)
	change := func(old, new string) {
		if !strings.Contains(text, old) && err == nil {
			err = fmt.Errorf("the sample configuration has no %q any more", old)
		}
		text = strings.Replace(text, old, new, 1)
	}
	if e.unsigned {
		change(`private_key = "audit.key"`, "")
		change(`public_key = "audit.pub"`, "")
	}
	if e.memory {
		change(`#backend = "disk"`, `backend = "memory"`)
	}
	change(`#drain_timeout = "5s" `, `drain_timeout = "60s"`)
	if e.address != "" {
		change(`address = "127.0.0.1:8480"`, fmt.Sprintf("address = %q", e.address))
	}
	if e.batch != 0 {
		change(`#batch_events = 1024`, fmt.Sprintf("batch_events = %d", e.batch))
		change(`#batch_bytes = "4MiB"`, `batch_bytes = "16MiB"`)
	}
	for i := range e.sinks {
		text += fmt.Sprintf("\n[[sink]]\nname = \"copy-%d\"\nplugin = \"sink-sqlite\"\n[sink.grant.sql]\ndatabase = \"copy-%d.db\"\ncreate = true\n", i, i)
	}
	if err != nil {
		return h, err
	}
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		return h, err
	}
	if b.cache != "" && !e.cold {
		return h, copyDir(filepath.Join(h.dir, "state", "cache"), b.cache)
	}
	return h, nil
}

// copyDir copies a folder that only its owner may read.
func copyDir(to, from string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(name, 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(name, text, 0o600)
	})
}

// ended is what is known of a process that has ended.
type ended struct {
	out  []byte
	peak float64 // resident, MiB; 0 where it is not known
	cpu  float64 // seconds
}

// running follows a process to its end. What the system tells of its memory
// afterwards includes that of this process, whose copy it was at first.
func running(cmd *exec.Cmd) (e ended, err error) {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			e.peak = max(e.peak, memory(cmd.Process.Pid, "VmHWM"))
		case err := <-done:
			s := cmd.ProcessState
			e.cpu = (s.UserTime() + s.SystemTime()).Seconds()
			return e, err
		}
	}
}

// memory reads a line of /proc/PID/status in MiB.
func memory(pid int, line string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "\n"+line+":")
	var kib float64
	_, _ = fmt.Sscan(rest, &kib) // 0 if it is not there
	return kib / 1024
}

// audit runs audit-host and returns its standard output.
func (b *bench) audit(ctx context.Context, args ...string) (ended, error) {
	cmd := exec.CommandContext(ctx, b.binary, args...)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Start()
	var e ended
	if err == nil {
		e, err = running(cmd)
	}
	if err != nil {
		return ended{}, fmt.Errorf("audit-host %s: %w: %s", args[0], err, words.String())
	}
	e.out = out.Bytes()
	return e, nil
}

// ingest lands a file in a new ledger.
func ingest(file func(*bench) string, e edit) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) ([]value, error) {
		h, err := b.home(ctx, dir, e)
		if err != nil {
			return nil, err
		}
		return b.ingest(ctx, h, file(b))
	}
}

func (b *bench) ingest(ctx context.Context, h home, file string) ([]value, error) {
	end, err := b.audit(ctx, "ingest", "--json", "-c", h.config, file)
	if err != nil {
		return nil, err
	}
	var s struct {
		Read, Appended int
		Seconds        float64
	}
	if err := json.Unmarshal(end.out, &s); err != nil {
		return nil, err
	}
	if s.Appended != s.Read || s.Read == 0 {
		return nil, fmt.Errorf("%d of %d events were appended", s.Appended, s.Read)
	}
	return []value{
		{"", float64(s.Appended) / s.Seconds, "rows/s"},
		{".cpu_us", (end.cpu - b.start) * 1e6 / float64(s.Appended), "us/row"},
		{".peak", end.peak, "MiB"},
	}, nil
}

// verifyFiles land in a ledger before it is verified, so that the start, some 0.1 s,
// does not count for much.
const verifyFiles = 5

// verify checks a ledger that was just made.
func verify(e edit) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) ([]value, error) {
		h, err := b.home(ctx, dir, e)
		if err != nil {
			return nil, err
		}
		for range verifyFiles {
			if _, err := b.ingest(ctx, h, b.minted); err != nil {
				return nil, err
			}
		}
		return b.verify(ctx, h)
	}
}

func (b *bench) verify(ctx context.Context, h home) ([]value, error) {
	elapsed := stopwatch()
	end, err := b.audit(ctx, "verify", "--json", "-c", h.config)
	if err != nil {
		return nil, err
	}
	took := elapsed()
	var s struct {
		Verified bool
		Rows     int
	}
	if err := json.Unmarshal(end.out, &s); err != nil {
		return nil, err
	}
	if !s.Verified || s.Rows == 0 {
		return nil, errors.New("the ledger is not verified")
	}
	v := perSecond(s.Rows, took, "rows")
	return []value{v, {".cpu_us", end.cpu * 1e6 / float64(s.Rows), "us/row"}, {".peak", end.peak, "MiB"}}, nil
}
