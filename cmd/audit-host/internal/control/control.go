// Package control is how a command talks to the daemon that runs on the same
// state directory: HTTP over a Unix socket in that directory.
//
//	GET  /v1/sinks                 the sinks with their state
//	POST /v1/sinks/{name}/resume   lets a parked sink deliver again
//	POST /v1/sinks/{name}/forget   gives up the events of one that is not configured; ?dry_run=1 only tells
//	POST /v1/dead-letters/replay   replays dead letters; answers line by line
//	POST /v1/reload                has the daemon follow its configuration
//
// Guarantee: only processes of the daemon's user and of root are served. The
// socket has mode 0600 and lies in a directory of mode 0700, and where the system
// tells who the peer is (Linux, macOS, FreeBSD) it is asked besides. There is no
// TCP. What changes something is logged with the user who asked.
//
// Not guaranteed: that a command and a daemon of different versions understand
// each other. What one of them does not know it refuses.
package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/deadletter"
)

// socketName is the socket's name in the state directory.
const socketName = "control.sock"

// longestPath is the longest path of a socket that every system takes, in bytes:
// the smallest sun_path has 104, with a zero at its end.
const longestPath = 103

// ErrNoDaemon is wrapped by the error of [Dial] when nobody listens.
var ErrNoDaemon = errors.New("no daemon runs")

// Sink is a sink of the daemon.
type Sink struct {
	Name     string `json:"name"`
	Required bool   `json:"required"`
	// State is one of package queue, "missing" for an optional sink that could not
	// be loaded, or StateUnclaimed.
	State         string     `json:"state"`
	PendingEvents uint64     `json:"pending_events"`
	PendingBytes  uint64     `json:"pending_bytes"` // about
	Oldest        *time.Time `json:"oldest"`        // when the oldest pending event was accepted; null if there is none
	AgeSeconds    float64    `json:"age_seconds"`   // since then
	Appended      uint64     `json:"appended"`
	DeadLettered  uint64     `json:"dead_lettered"`
	Replayed      uint64     `json:"replayed"`
	Restarts      uint64     `json:"restarts"`
	Parked        string     `json:"parked"` // why; empty if it is not
	LastError     string     `json:"last_error"`
	LastErrorAt   *time.Time `json:"last_error_at"` // null if nothing ever went wrong

	Plugin  string `json:"plugin"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	// Probation tells that the plugin may still be taken back; Swaps counts those
	// that took over, Rollbacks those taken back. RolledBack says why the last one
	// was; empty if it was not.
	Probation    bool       `json:"probation"`
	Swaps        uint64     `json:"swaps"`
	Rollbacks    uint64     `json:"rollbacks"`
	RolledBack   string     `json:"rolled_back"`
	RolledBackAt *time.Time `json:"rolled_back_at"`
}

// StateUnclaimed is the state of a sink that the queue keeps events for and that
// is not configured.
const StateUnclaimed = "unclaimed"

// forgotten is the answer to a sink that was forgotten.
type forgotten struct {
	Forgotten string `json:"forgotten"`
	Pending   uint64 `json:"pending_events"`
}

// replayLine is one line of the answer to a replay; one of its members is set.
type replayLine struct {
	Selected *uint64                 `json:"selected,omitempty"`
	Letter   *pipeline.LetterResult  `json:"letter,omitempty"`
	Summary  *pipeline.ReplaySummary `json:"summary,omitempty"` // the last line
	Error    string                  `json:"error,omitempty"`   // may stand beside the summary
}

// replayRequest says what is replayed.
type replayRequest struct {
	Filter deadletter.Filter `json:"filter"`
}

// Listener is an open socket.
type Listener struct {
	unix *net.UnixListener
	path string
}

// Listen opens the socket in a state directory, which the caller has locked: what
// lies there under its name is left from a process that has ended.
func Listen(dir string) (*Listener, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	name, done, err := address(dir)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	defer done()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	// Its name may be one for the moment only.
	ln.SetUnlinkOnClose(false)
	// Until here the directory's mode alone has kept others out.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("open control socket: %w", errors.Join(err, ln.Close()))
	}
	return &Listener{ln, path}, nil
}

// address returns a name by which the socket of a directory can be reached. It
// is good until done is called.
func address(dir string) (name string, done func(), err error) {
	name = filepath.Join(dir, socketName)
	if len(name) <= longestPath {
		return name, func() {}, nil
	}
	short, done, err := shorten(dir)
	if err != nil {
		return "", nil, fmt.Errorf("the path %s has %d bytes and a socket's has at most %d: set a shorter state_dir (%w)", name, len(name), longestPath, err)
	}
	return filepath.Join(short, socketName), done, nil
}
