//go:build unix

package appendfile

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("APPENDFILE_TEST_WRITER"); path != "" {
		os.Exit(appendUntilKilled(path))
	}
	os.Exit(m.Run())
}

// appendUntilKilled appends and syncs records of which each says its number,
// and prints the number when it is acknowledged.
func appendUntilKilled(path string) int {
	f, err := Open(Options{Path: path, MaxSize: 400, Pattern: "{name}.{seq}.{time}"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, ErrLocked) {
			return 3
		}
		return 1
	}
	for i := 0; ; i++ {
		if err := errors.Join(f.Append(fmt.Appendf(nil, "%d %d %s\n", os.Getpid(), i, strings.Repeat("x", i%97))), f.Sync()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(i)
	}
}

func writerProcess(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "APPENDFILE_TEST_WRITER="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestKill kills a writing process with SIGKILL, in the middle of rotations as
// often as not, and finds every acknowledged record whole and in order.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	acked := map[int]int{} // by process, how many
	for round := range 8 {
		cmd := writerProcess(t, path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		in := bufio.NewScanner(out)
		for n := 0; n < 20+7*round && in.Scan(); n++ {
			acked[cmd.Process.Pid]++
		}
		must(t, cmd.Process.Kill())
		for in.Scan() {
			acked[cmd.Process.Pid]++
		}
		if err := cmd.Wait(); err == nil || acked[cmd.Process.Pid] == 0 {
			t.Fatalf("the writer ended by itself: %v", err)
		}
	}
	f := openFile(t, Options{Path: path, MaxSize: 400, Pattern: "{name}.{seq}.{time}"})
	files := f.pattern.pick(names(t, dir))
	if len(files) < 20 {
		t.Fatalf("only %d rotations", len(files))
	}
	got := map[int]int{}
	for _, file := range append(files, rotatedFile{name: "audit.log"}) {
		text := read(t, filepath.Join(dir, file.name))
		if len(text) > 400 {
			t.Errorf("%s has %d bytes", file.name, len(text))
		}
		for line := range strings.Lines(text) {
			var pid, i int
			var x string
			if _, err := fmt.Sscan(line, &pid, &i, &x); err != nil && i%97 != 0 {
				t.Errorf("%s: broken line %q", file.name, line)
			}
			if i != got[pid] {
				t.Errorf("%s: process %d: record %d where %d should be", file.name, pid, i, got[pid])
			}
			got[pid]++
		}
	}
	for pid, n := range acked {
		// The last ones may have been written and not acknowledged in time.
		if got[pid] < n {
			t.Errorf("process %d: %d acknowledged, %d there", pid, n, got[pid])
		}
	}
}

func TestLockBetweenProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f := openFile(t, Options{Path: path})
	cmd := writerProcess(t, path)
	cmd.Stderr = nil
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("the second process: %v, want exit code 3 (locked)", err)
	}
	must(t, f.Append([]byte("x\n")))
}

// TestFIFO: neither a FIFO in place of the file nor one in place of the lock
// holds anybody up.
func TestFIFO(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"fifo", "file.lock"} {
		must(t, syscall.Mkfifo(filepath.Join(dir, name), 0o600))
	}
	for _, name := range []string{"fifo", "file"} {
		if f, err := Open(Options{Path: filepath.Join(dir, name)}); err == nil {
			t.Errorf("%s was opened", name)
			f.Close()
		}
	}
}

// TestExactCost pins what a record and a Sync ask of the disk: the check, one
// write, one fsync. Nothing else may creep in.
func TestExactCost(t *testing.T) {
	m := newMemory()
	ops := map[string]int{}
	v := &faulty{volume: m, ask: func(op string) (bool, error) { ops[op]++; return false, nil }}
	f, err := open(Options{Path: "/x/audit.log", MaxSize: 64}, func(string) (volume, error) { return v, nil })
	must(t, err)
	for _, c := range []struct {
		what string
		do   func() error
		want string
	}{
		{"append", func() error { return f.Append([]byte("0123456789\n")) }, "map[lstat:1 moved:1 write:1]"},
		{"sync", f.Sync, "map[lstat:1 moved:1 sync:1]"},
		{"sync of nothing", f.Sync, "map[lstat:1 moved:1]"},
		{"append that rotates", func() error { return f.Append([]byte(strings.Repeat("x", 60) + "\n")) },
			"map[create:1 lstat:3 moved:1 names:1 rename:1 stat:1 sync:2 sync folder:2 write:1]"},
	} {
		clear(ops)
		must(t, c.do())
		if got := fmt.Sprint(ops); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	must(t, f.Close())
}
