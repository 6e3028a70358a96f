package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/queue"
)

// trapper ends at every batch until it is mended.
type trapper struct {
	mu     sync.Mutex
	mended bool
}

func (s *trapper) Deliver(context.Context, *abi.Batch) abi.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mended {
		return abi.Result{Outcome: abi.OK}
	}
	return abi.Result{Outcome: abi.Trap, Detail: "broken"}
}

func (s *trapper) Close(context.Context) error { return nil }

type nothing struct{}

func (nothing) Seal(...*abi.Event)                          {}
func (nothing) Put(context.Context, []abi.DeadLetter) error { return nil }

// rig is a served recorder with one sink that traps.
type rig struct {
	dir  string
	sink *trapper
	p    *pipeline.Pipeline
	log  *bytes.Buffer // to be read after stop
	stop func()
}

// dirOf makes a directory whose path has about n bytes.
func dirOf(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for len(dir) < n {
		dir = filepath.Join(dir, strings.Repeat("d", min(50, max(1, n-len(dir)-1))))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newRig(t *testing.T, dir string, uid func(int) (int, bool, error)) *rig {
	t.Helper()
	g := &rig{dir: dir, sink: &trapper{}, log: &bytes.Buffer{}}
	q := queue.NewMemory(queue.MemoryOptions{})
	r, err := queue.NewRecorder(t.Context(), queue.RecorderOptions{Queue: q, Sealer: nothing{}, DeadLetters: nothing{},
		Check: func(abi.Event) error { return nil }, Sinks: []queue.SinkOptions{{Name: "main", Sink: g.sink, Required: true}}})
	if err != nil {
		t.Fatal(err)
	}
	// Its drainer begins in a goroutine of its own.
	for deadline := time.Now().Add(10 * time.Second); r.Metrics().Sinks[0].State != queue.Running; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the drainer has not begun after 10 s")
		}
	}
	g.p = &pipeline.Pipeline{Recorder: r, Queue: q, Missing: map[string]string{"extra": "no such file"}}
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(g.log, nil))
	go func() {
		if uid == nil {
			ended <- Serve(ctx, ln, g.p, log)
			return
		}
		ended <- serve(ctx, &guarded{ln.unix, uid}, &server{p: g.p, log: log, now: time.Now})
	}()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		done, cancel := context.WithCancel(context.Background())
		cancel()
		var left *queue.RemainingError
		if _, err := r.Close(done); err != nil && !errors.As(err, &left) {
			t.Error(err)
		}
	})
	t.Cleanup(g.stop)
	return g
}

func (g *rig) dial(t *testing.T) *Client {
	t.Helper()
	c, err := Dial(t.Context(), g.dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// park has the sink parked.
func (g *rig) park(t *testing.T) {
	t.Helper()
	if _, err := g.p.Recorder.Submit(t.Context(), abi.Event{ID: "e", AgentID: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.p.Recorder.DrainPending(t.Context()); !errors.Is(err, queue.ErrParked) {
		t.Fatal(err)
	}
}

// The socket is its owner's alone, whatever the path's length, and goes with the
// daemon.
func TestSinksAndResume(t *testing.T) {
	for _, length := range []int{0, 85, 103, 200, 600} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			dir := dirOf(t, length)
			if long := len(dir)+1+len(socketName) > longestPath; long && runtime.GOOS != "linux" {
				if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "set a shorter state_dir") {
					t.Errorf("%v", err)
				}
				return
			}
			g := newRig(t, dir, nil)
			info, err := os.Stat(filepath.Join(dir, socketName))
			if err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Errorf("%v, %v", info, err)
			}
			c := g.dial(t)
			sinks, err := c.Sinks(t.Context())
			if err != nil || len(sinks) != 2 || sinks[0].Name != "main" || sinks[0].State != "running" || !sinks[0].Required || sinks[0].Oldest != nil || sinks[0].LastErrorAt != nil ||
				sinks[1].State != "missing" || sinks[1].LastError != "no such file" {
				t.Errorf("%+v, %v", sinks, err)
			}
			if err := c.Resume(t.Context(), "main"); err == nil || !strings.Contains(err.Error(), `resume sink "main": it is not parked`) {
				t.Errorf("%v", err)
			}
			if err := c.Resume(t.Context(), "a/b?"); err == nil || !strings.Contains(err.Error(), `resume sink "a/b?": there is no such sink`) {
				t.Errorf("%v", err)
			}
			g.park(t)
			sinks, err = c.Sinks(t.Context())
			if s := sinks[0]; err != nil || s.State != "parked" || !strings.Contains(s.Parked, "broken") || s.PendingEvents != 1 || s.PendingBytes == 0 ||
				s.Oldest == nil || s.AgeSeconds < 0 || s.AgeSeconds > 60 || s.LastError == "" || s.LastErrorAt == nil || time.Since(*s.LastErrorAt) > time.Minute {
				t.Errorf("%+v, %v", s, err)
			}
			g.sink.mu.Lock()
			g.sink.mended = true
			g.sink.mu.Unlock()
			if err := c.Resume(t.Context(), "main"); err != nil {
				t.Error(err)
			}
			if rep, err := g.p.Recorder.DrainPending(t.Context()); err != nil || rep.Appended != 1 {
				t.Errorf("%+v, %v", rep, err)
			}
			g.stop()
			if log := g.log.String(); strings.Count(log, "an operator resumed a sink") != 1 || !strings.Contains(log, "sink=main") ||
				runtime.GOOS == "linux" && !strings.Contains(log, fmt.Sprint("uid=", os.Getuid())) {
				t.Errorf("the log: %s", log)
			}
			if _, err := os.Lstat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is still there: %v", err)
			}
			if _, err := c.Sinks(t.Context()); err == nil {
				t.Error("answered after the end")
			}
		})
	}
}

// Whoever is neither root nor the daemon's user is told so, and nothing is done.
func TestStrangersAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  func(int) (int, bool, error)
		ok   bool
		log  string
	}{
		{"stranger", func(int) (int, bool, error) { return os.Geteuid() + 1, true, nil }, false, "is neither root nor the daemon's user"},
		{"unknown to the kernel", func(int) (int, bool, error) { return 0, true, errors.New("no such peer") }, false, "no such peer"},
		{"root", func(int) (int, bool, error) { return 0, true, nil }, true, ""},
		{"a system that does not tell", func(int) (int, bool, error) { return 0, false, nil }, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, dirOf(t, 0), c.ask)
			_, err := g.dial(t).Sinks(t.Context())
			if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), c.log) {
				t.Errorf("%v", err)
			}
			if err := g.dial(t).Resume(t.Context(), "main"); err == nil || strings.Contains(err.Error(), "not parked") != c.ok {
				t.Errorf("%v", err)
			}
			g.stop()
			if !strings.Contains(g.log.String(), c.log) {
				t.Errorf("the log: %s", g.log)
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	dir := dirOf(t, 0)
	check := func(dir, how string) {
		t.Helper()
		if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", how, err)
		}
	}
	check(dir, "no socket")
	check(filepath.Join(dir, "none"), "no directory")
	check(filepath.Join(dir, strings.Repeat("n", 200)), "no directory of a long name")
	// What a killed daemon left behind.
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.unix.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(ln.path); err != nil {
		t.Fatalf("the test needs a socket that nobody listens on: %v", err)
	}
	check(dir, "a stale socket")
	// The next daemon takes its place.
	g := newRig(t, dir, nil)
	if _, err := g.dial(t).Sinks(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is no socket of ours is not removed for the place, unless it can be.
func TestListenFails(t *testing.T) {
	dir := dirOf(t, 0)
	if err := os.MkdirAll(filepath.Join(dir, socketName, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "remove old control socket") {
		t.Errorf("%v", err)
	}
	if _, err := Listen(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "open control socket") {
		t.Errorf("%v", err)
	}
}

// What is asked in a way that this version does not know is refused.
func TestRequestsThatAreRefused(t *testing.T) {
	g := newRig(t, dirOf(t, 0), nil)
	c := g.dial(t)
	for _, q := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/v1/dead-letters/replay", `{"filter":{"Colour":"red"}}`, 400, "unknown field"},
		{"POST", "/v1/dead-letters/replay", `{`, 400, "read request"},
		{"POST", "/v1/dead-letters/replay", `{"filter":{"Sink":"` + strings.Repeat("x", maxRequest) + `"}}`, 400, "too large"},
		{"GET", "/v1/sinks/main/resume", "", 405, ""},
		{"GET", "/v2/sinks", "", 404, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), q.method, "http://daemon"+q.path, strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(a.Body)
		a.Body.Close()
		if err != nil || a.StatusCode != q.code || !strings.Contains(string(text), q.want) {
			t.Errorf("%s %s: %d %s, %v", q.method, q.path, a.StatusCode, text, err)
		}
	}
	if _, err := c.do(t.Context(), "GET", "/v2/sinks", nil); err == nil || !strings.Contains(err.Error(), "is it another version?") {
		t.Errorf("%v", err)
	}
}

// talk answers one connection after another with the same text.
func talk(t *testing.T, text string) *Client {
	t.Helper()
	dir := dirOf(t, 0)
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := ln.unix.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				b := make([]byte, 4096)
				if n, err := c.Read(b); n == 0 && err != nil {
					return // Dial only looks
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", text)
				c.(*net.UnixConn).CloseWrite()
			})
		}
	})
	t.Cleanup(func() {
		ln.unix.Close()
		group.Wait()
	})
	client, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// A replay is over only when its last line says so.
func TestReplayAnswers(t *testing.T) {
	const letter = `{"letter":{"dlq_id":7,"sink":"s","id":"e","fate":"refused","reason":"no"}}` + "\n"
	for _, c := range []struct{ name, text, want string }{
		{"whole", `{"selected":2}` + "\n" + letter + `{"summary":{"selected":2,"stored":1,"refused":1}}` + "\n", ""},
		{"ended early", `{"selected":2}` + "\n" + letter, "the daemon ended before the replay did"},
		{"failed", letter + `{"summary":{"selected":2,"stored":1},"error":"disk full"}`, "disk full"},
		{"garbage", "<html>", "read the daemon's answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen []string
			s, err := talk(t, c.text).Replay(t.Context(), pipeline.ReplayOptions{
				Begin: func(n uint64) { seen = append(seen, fmt.Sprint("begin ", n)) },
				Each: func(l pipeline.LetterResult) {
					seen = append(seen, fmt.Sprint(l.DLQID, l.Sink, l.ID, l.Fate, l.Reason))
				},
			})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if c.name == "whole" && (strings.Join(seen, "; ") != "begin 2; 7serefusedno" || s.Stored != 1 || s.Left() != 1) {
				t.Errorf("%q, %+v", seen, s)
			}
			if c.name == "ended early" && s != (pipeline.ReplaySummary{Selected: 2, Refused: 1}) {
				t.Errorf("%+v", s)
			}
			if c.name == "failed" && s.Stored != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
	if _, err := talk(t, "<html>").Sinks(t.Context()); err == nil || !strings.Contains(err.Error(), "read the daemon's answer") {
		t.Errorf("%v", err)
	}
}
