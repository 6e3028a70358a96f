package host

import (
	"context"
	"os"
	osexec "os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/audit-host/audit-host/abi"
)

// Where a system forbids executable memory, as systemd does with
// MemoryDenyWriteExecute, plugins run in the interpreter, and the log says so.
// The child of this test forbids it to itself. A kernel before 6.3 can't, and
// then the child must compile without a word.
func TestWithoutExecutableMemory(t *testing.T) {
	const child = "AUDIT_HOST_TEST_NOEXEC"
	if os.Getenv(child) == "" {
		cmd := osexec.Command(os.Args[0], "-test.run=^TestWithoutExecutableMemory$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "child: delivered") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	forbidden := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == nil
	var lines countingHandler
	s := openGuest(t, guestModule{}.bytes(), Options{Log: lines.logger(), Cache: sharedCache(t)})
	if r := s.Deliver(context.Background(), batchOf(3, "x")); r.Outcome != abi.OK {
		t.Fatalf("%v %q", r.Outcome, r.Detail)
	}
	if warned := lines.has("WARN", "interpreter"); warned != forbidden {
		t.Errorf("executable memory forbidden: %t, warned: %t", forbidden, warned)
	}
	t.Logf("child: delivered, executable memory forbidden: %t", forbidden)
}
