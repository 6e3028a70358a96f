package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/event"
)

// The power cuts of the queue's and the host's tests run on disks in memory, which
// count what the code says it syncs. Here the program runs on a real file system,
// and strace tells what the kernel was asked: at each commit point, all that was
// written has been synced, before anybody is told and before the next step. It
// needs strace, which .ci/run installs.
func TestEveryCommitIsSynced(t *testing.T) {
	tool, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("strace is missing: .ci/run installs the Debian package strace")
		}
		t.Log("NOT CHECKED: strace is not installed (Debian package strace)")
		return
	}
	config := home(t, `#max_event = "1MiB"`, `max_event = "64KiB"`, `#disk_bytes = "4GiB"`, `disk_bytes = "2MiB"`,
		"[dead_letters]", "[[sink]]\nname = \"counts\"\nplugin = \"kvguest.wasm\"\nrequired = true\n[sink.grant.kv]\n\n[dead_letters]")
	dir := filepath.Dir(config)
	kvGuest(t, filepath.Join(dir, "kvguest.wasm"))
	trace := func(name string) (d *child, stop func() *syncs) {
		file := filepath.Join(t.TempDir(), name)
		d = spawnCommand(t, exec.Command(tool, "-f", "-y", "-qq", "-s", "4096", "-e", "signal=none", "--seccomp-bpf", "-o", file,
			"-e", "trace=write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat",
			os.Getenv(binary), "run", "-c", config))
		end := func(s syscall.Signal) { // of the daemon: strace ends after it
			text, err := os.ReadFile(filepath.Join(dir, "state", "lock"))
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			_ = syscall.Kill(pid, s) // it may have ended
			<-d.done
		}
		t.Cleanup(func() {
			select {
			case <-d.done:
			default:
				end(syscall.SIGKILL)
			}
		})
		return d, func() *syncs {
			end(syscall.SIGTERM)
			return readTrace(t, file, dir)
		}
	}
	d, stop := trace("first")
	for i := range 3 {
		d.post(t, "ledger", refusal(fmt.Sprint("e", i)))
		d.remembered(t, float64(i+1))
	}
	// Another event with an id that is taken is a dead letter.
	if a := d.post(t, "ledger", strings.Replace(refusal("e0"), "rm -rf /", "rm -rf /home", 1)); a.Events[0].Status != event.StatusDeadLetter {
		t.Fatalf("%+v", a)
	}
	large := strings.Repeat("x", 50<<10)
	for i := range 16 { // some segments, each of five such events
		d.post(t, []string{"durable", "ledger"}[i%2], strings.Replace(refusal(fmt.Sprint("l", i)), "rm -rf /", large, 1))
	}
	d.post(t, "ledger", refusal("last"))
	d.remembered(t, 20)
	s := stop()
	for what, least := range map[string]int{
		"queue: folder": 1, "queue: data": 21, "queue: new segment": 3, "queue: segment removed": 2, "queue: oldest": 2, "queue: cursor": 20, "queue: mark": 21,
		"ledger": 20, "dead letters": 1, "kv": 10, "head": 3, "note": 1, "answer": 21,
	} {
		if s.seen[what] < least {
			t.Errorf("%s: %d in the trace, want %d at least: this proves nothing", what, s.seen[what], least)
		}
	}
	d, stop = trace("second") // an opening syncs what it has found
	d.post(t, "ledger", refusal("again"))
	if s := stop(); s.opened == 0 {
		t.Error("at a start the end of the log is not synced")
	}
}

// kvGuest builds the host's guest that keeps something in its store.
func kvGuest(t *testing.T, file string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", file, "../../host/testdata/kvguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	wasm, err := os.ReadFile(file)
	if err == nil {
		wasm, err = manifest.Append(wasm, []byte(`{"name": "kvguest", "version": "1", "capabilities": ["kv"], "idempotent": true}`))
	}
	if err == nil {
		err = os.WriteFile(file, wasm, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// syncs follows a trace. One client asks one thing after the other, so that at its
// answer nothing is on its way.
type syncs struct {
	t     *testing.T
	dir   string
	begun map[string]call // by thread: not ended

	written map[string]int // times that a file was written, or a name in a folder changed
	clean   map[string]int // as many of them are on disk
	started bool           // the daemon listens
	opened  int            // syncs of segments before
	seen    map[string]int
}

// call is a system call.
type call struct {
	name, args   string
	paths        []string
	at, removals int // of a sync: what it covers
}

// removals stands for the names that were removed from a folder: beside everything
// else, while answers are given.
func removals(folder string) string { return folder + " (removals)" }

var (
	callAt    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedAt = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>.*= (-?\d+)`)
	endedAt   = regexp.MustCompile(`\) += (-?\d+)[^=]*$`)
	pathAt    = regexp.MustCompile(`^\d+<([^>]*)>|"(/[^"]*)"`)
)

func readTrace(t *testing.T, file, dir string) *syncs {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &syncs{t: t, dir: dir, begun: map[string]call{}, written: map[string]int{}, clean: map[string]int{}, seen: map[string]int{}}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := resumedAt.FindStringSubmatch(lines.Text()); m != nil {
			s.end(s.begun[m[1]], m[3])
			continue
		}
		m := callAt.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		c := call{name: m[2], args: m[3]}
		for _, p := range pathAt.FindAllStringSubmatch(m[3], -1) {
			c.paths = append(c.paths, p[1]+p[2])
		}
		c = s.begin(c)
		s.begun[m[1]] = c
		if e := endedAt.FindStringSubmatch(m[3]); e != nil && !strings.HasSuffix(m[3], "<unfinished ...>") {
			s.end(c, e[1])
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	s.durable("the end", func(path string) bool { return s.kept(path) || strings.HasSuffix(path, removals("")) })
	return s
}

// begin is what counts when a call begins: what was to be on disk before it.
func (s *syncs) begin(c call) call {
	if len(c.paths) == 0 {
		return c
	}
	path := c.paths[0]
	base := filepath.Base(path)
	switch c.name {
	case "write", "writev", "pwrite64", "pwritev", "pwritev2":
		switch {
		case strings.Contains(c.args, "HTTP/1.1 20") && strings.Contains(c.args, `\"events\"`):
			s.seen["answer"]++
			// The head and what is removed come when they come, beside it.
			must := func(path string) bool {
				base := filepath.Base(path)
				return s.kept(path) && base != "oldest" && base != "state" && base != "ledger-head.json"
			}
			if strings.Contains(c.args, `\"durable\"`) { // the sinks may be at work
				must = func(path string) bool { return strings.HasSuffix(path, ".seg") || filepath.Base(path) == "queue" }
			}
			s.durable("an answer", must)
		case strings.Contains(c.args, "msg=listening"):
			s.durable("the start", func(path string) bool { return s.kept(path) || filepath.Base(path) == "durable" })
			s.started = true
		case strings.HasSuffix(base, ".cur"):
			s.seen["queue: cursor"]++
			s.durable("the next acknowledgement", only(path))
		case base == "oldest":
			s.seen["queue: oldest"]++
		case base == "durable":
			s.seen["queue: mark"]++
		case strings.HasSuffix(base, ".seg"):
			s.seen["queue: data"]++
			s.durable("the next batch", func(p string) bool { return p == path || p == filepath.Dir(path) })
		case base == "ledger.db-wal":
			s.seen["ledger"]++
		case base == "dead-letters.db-wal":
			s.seen["dead letters"]++
		case strings.HasSuffix(base, "-wal"):
			s.seen["kv"]++
		}
		s.written[path]++
	case "fsync", "fdatasync":
		c.at, c.removals = s.written[path], s.written[removals(path)]
	case "rename", "renameat", "renameat2":
		if len(c.paths) < 2 {
			break // relative to an open folder: the cache of compiled code
		}
		from, to := c.paths[len(c.paths)-2], c.paths[len(c.paths)-1]
		if !s.kept(to) && filepath.Base(to) != "durable" {
			break
		}
		s.durable("its renaming", only(from))
		switch {
		case filepath.Base(to) == "ledger-head.json":
			s.seen["head"]++
			s.durable("the next head", only(filepath.Dir(to)))
		case filepath.Base(to) == "queue.json":
			s.seen["note"]++
		case filepath.Base(to) == "meta":
			s.durable("a queue is made in it", only(filepath.Dir(filepath.Dir(to))))
		case strings.HasSuffix(to, ".seg"):
			s.seen["queue: new segment"]++
			s.durable("the next segment", only(filepath.Join(filepath.Dir(to), "durable")))
		}
		s.written[filepath.Dir(to)]++
	case "mkdir", "mkdirat":
		if path = c.paths[len(c.paths)-1]; filepath.Base(path) == "queue" {
			s.seen["queue: folder"]++
			s.written[filepath.Dir(path)]++
		}
	case "unlink", "unlinkat":
		path = c.paths[len(c.paths)-1]
		if strings.HasSuffix(path, ".seg") {
			s.seen["queue: segment removed"]++
			folder := filepath.Dir(path)
			s.durable("the removal of a segment", func(p string) bool { return p == removals(folder) || p == filepath.Join(folder, "oldest") })
			s.written[removals(folder)]++
		}
	}
	return c
}

// end is what counts when a call has ended.
func (s *syncs) end(c call, result string) {
	if c.name != "fsync" && c.name != "fdatasync" || result != "0" || len(c.paths) == 0 {
		return
	}
	path := c.paths[0]
	s.clean[path] = max(s.clean[path], c.at)
	s.clean[removals(path)] = max(s.clean[removals(path)], c.removals)
	if !s.started && strings.HasSuffix(path, ".seg") {
		s.opened++
	}
}

// kept says of which files nothing may be lost that was committed. The mark is
// synced now and then only; SQLite's main file is covered by its log.
func (s *syncs) kept(path string) bool {
	base := filepath.Base(path)
	return strings.HasSuffix(base, ".seg") || strings.HasSuffix(base, ".cur") || strings.HasSuffix(base, "-wal") || base == "oldest" ||
		base == "queue" || base == "state" || base == "ledger-head.json" || base == "queue.json" || base == "meta"
}

func only(path string) func(string) bool { return func(p string) bool { return p == path } }

// durable wants all of those files to be on disk, at a point.
func (s *syncs) durable(point string, must func(path string) bool) {
	s.t.Helper()
	for path, n := range s.written {
		if must(path) && s.clean[path] < n {
			s.t.Errorf("%s was written, and not synced before %s", strings.TrimPrefix(path, s.dir), point)
			s.clean[path] = n // once
		}
	}
}
