package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/tetratelabs/wazero"
)

// crashChild names the ledger that a child process of TestKilledWriter
// appends to.
const crashChild = "AUDIT_HOST_TEST_CRASH_LEDGER"

// crashCode names the folder of SQLite's compiled code for it.
const crashCode = "AUDIT_HOST_TEST_CRASH_CODE"

// TestKilledWriter kills a process with SIGKILL while it commits: what it had
// been told is committed is there, in order, and nothing else is half there.
func TestKilledWriter(t *testing.T) {
	if path := os.Getenv(crashChild); path != "" {
		appendForEver(t, path)
		return
	}
	path := testLedger(t, 0)
	code := filepath.Join(t.TempDir(), "cache")
	last := 0
	for round := range 4 {
		cmd := osexec.Command(os.Args[0], "-test.run=^TestKilledWriter$", "-test.timeout=10m")
		cmd.Env = append(os.Environ(), crashChild+"="+path, crashCode+"="+code)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 10+7*round; {
			if !lines.Scan() {
				t.Fatalf("the child ended by itself: %v", cmd.Wait())
			}
			if s, ok := strings.CutPrefix(lines.Text(), "committed "); ok {
				if last, err = strconv.Atoi(s); err != nil {
					t.Fatal(err)
				}
				n++
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died
			if s, ok := strings.CutPrefix(lines.Text(), "committed "); ok {
				if n, err := strconv.Atoi(s); err == nil {
					last = n
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		// First as an auditor would look at it, then with the log recovered.
		for range 2 {
			l := openLedger(t, path)
			head, _, err := l.Head(context.Background())
			if err != nil || head < uint64(last) || head > uint64(last)+3 {
				t.Fatalf("round %d: head %d, %v; %d was committed", round, head, err, last)
			}
			readAll(t, l, int(head))
			if problems, err := l.integrity(context.Background()); err != nil || len(problems) > 0 {
				t.Errorf("%q, %v", problems, err)
			}
			last = int(head)
			if err := MakeDurable(context.Background(), path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if last < 50 {
		t.Errorf("%d rows in all", last)
	}
	if files, err := filepath.Glob(path + "*"); err != nil || len(files) != 1 {
		t.Errorf("files left: %q, %v", files, err)
	}
}

// appendForEver appends batches of three and says what is committed.
func appendForEver(t *testing.T, path string) {
	code, err := wazero.NewCompilationCacheWithDir(os.Getenv(crashCode))
	if err == nil {
		err = sqlite.Start(func() wazero.CompilationCache { return code })
	}
	if err != nil {
		t.Fatal(err)
	}
	g := newWriter(t, path)
	g.f.Limits = sqlite.LogLimits{Begin: 20, Rest: 5, Most: 60} // so that it is killed while the log is written back
	g.close()
	l := openLedger(t, path)
	last, err := l.lastSequence(t.Context())
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	next := int(last) + 1
	for {
		g.appendRows(next, next+2)
		fmt.Printf("committed %d\n", next+2)
		next += 3
	}
}
