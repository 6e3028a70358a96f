// Package queuetest is the conformance suite of package queue: what a queue must
// do, whatever keeps it, in 24 cases C01 to C24.
//
// A backend calls Run with a Factory from its own test. Each case is a subtest
// and gets an empty site of its own. The hooks of a site let the suite do to the
// backend what the world will do: kill the process, cut the power, damage the
// files, make the disk hang or fail. A case whose hooks a backend does not have
// is not skipped in silence: the backend declares it in Factory.Missing with the
// reason, and Run fails when a case is neither run nor declared, when a declared
// one could run, and when a name is unknown.
//
// Guaranteed: delivered events are compared as sequences and sets of IDs with
// their payloads, never as counts; every case runs inside a testing/synctest
// bubble, so that a goroutine left behind or a wait that nobody ends fails it,
// and no case depends on how fast the machine is. Not guaranteed: speed, and
// whatever depends on a real disk's honesty.
package queuetest

import (
	"maps"
	"os/exec"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/audit-host/audit-host/queue"
)

// Options are what a case wants of a queue.
type Options struct {
	// Small wants a bound that some 100 to 20,000 events of 200 bytes reach.
	Small bool
	// LossRecord is to be passed on to the backend.
	LossRecord func(queue.Refusals) (queue.Event, bool)
}

// Site is the place of one queue, empty at first. Open is needed, all hooks are
// optional.
type Site struct {
	// Open opens the queue. After Close, Crash and PowerLoss it opens what is
	// left of it.
	Open func(Options) (queue.Queue, error)
	// Persistent: events survive Close.
	Persistent bool
	// Crash ends the process that has q, without Close; what it wrote is there.
	Crash func(q queue.Queue)
	// PowerLoss is a crash after which any part of what was not synced is gone.
	PowerLoss func(q queue.Queue, seed uint64)
	// Stall makes every sync hang from now on, until release is called.
	Stall func() (release func())
	// FailSync makes every sync fail from now on, its data lost, until heal is
	// called.
	FailSync func() (heal func())
	// Files and SetFiles read and replace everything that is stored, while the
	// queue is closed.
	Files    func() map[string][]byte
	SetFiles func(map[string][]byte)
	// Child is a command, not yet started, that runs Child on this site with the
	// prefix.
	Child func(prefix string) *exec.Cmd
	// Gap removes one event from the middle, behind the backend's back.
	Gap func()
	// Handles counts what the site has open: files, connections.
	Handles func() int
}

// Factory makes sites, and says which cases its backend can't have.
type Factory struct {
	New     func(t *testing.T) *Site
	Missing map[string]string // name of the case -> reason
}

// testCase is one rule.
type testCase struct {
	name  string
	needs func(*Site) bool // nil: nothing
	run   func(*env)
}

func cases() []testCase {
	crash := func(s *Site) bool { return s.Crash != nil }
	return []testCase{
		{"C01_order", nil, caseOrder},
		{"C02_exact_set_under_contention", nil, caseExactSet},
		{"C03_submit_never_blocks", nil, caseSubmitNeverBlocks},
		{"C04_durable_before_delivered", nil, caseDurableFirst},
		{"C05_levels", crash, caseLevels},
		{"C06_redelivery_after_crash", crash, caseRedelivery},
		{"C07_ack_is_cumulative", nil, caseAck},
		{"C08_consumers_are_independent", nil, caseIndependent},
		{"C09_full", nil, caseFull},
		{"C10_one_owner", nil, caseOneOwner},
		{"C11_takeover", nil, caseTakeover},
		{"C12_from", nil, caseFrom},
		{"C13_duplicate_id", nil, caseDuplicate},
		{"C14_close", nil, caseClose},
		{"C15_panicking_sink", nil, casePanic},
		{"C16_sizes", nil, caseSizes},
		{"C17_failed_sync", func(s *Site) bool { return s.FailSync != nil && s.Crash != nil }, caseFailedSync},
		{"C18_kill", func(s *Site) bool { return s.Child != nil }, caseKill},
		{"C19_power_loss", func(s *Site) bool { return s.PowerLoss != nil }, casePowerLoss},
		{"C20_damage", func(s *Site) bool { return s.Files != nil && s.SetFiles != nil }, caseDamage},
		{"C21_gap", func(s *Site) bool { return s.Gap != nil }, caseGap},
		{"C22_leaks", nil, caseLeaks},
		{"C23_wait_for_room", nil, caseWaitForRoom},
		{"C24_forget", nil, caseForget},
	}
}

// Run runs every case on sites of f.
func Run(t *testing.T, f Factory) {
	t.Helper()
	undeclared := maps.Clone(f.Missing)
	for _, c := range cases() {
		reason, missing := f.Missing[c.name]
		delete(undeclared, c.name)
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := f.New(t)
				can := c.needs == nil || c.needs(s)
				switch {
				case missing && reason == "":
					t.Fatal("declared as missing without a reason")
				case missing && can && c.needs != nil:
					t.Fatalf("declared as missing (%s), but its hooks are there", reason)
				case missing:
					t.Logf("not for this backend: %s", reason)
				case !can:
					t.Fatal("the site lacks a hook for this case, and the backend does not declare it as missing")
				default:
					e := &env{t: t, s: s}
					defer e.cleanup()
					c.run(e)
				}
			})
		})
	}
	if len(undeclared) > 0 {
		t.Errorf("declared as missing, but there is no such case: %q", slices.Sorted(maps.Keys(undeclared)))
	}
}
