package appendfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var errFault = fmt.Errorf("injected: %w", syscall.EIO)

// faulty asks before every operation whether it fails, and whether it takes
// effect although it fails. A write that fails writes half.
type faulty struct {
	volume
	ask func(op string) (apply bool, err error)
}

func (f *faulty) do(op string, do func() error) error {
	apply, err := f.ask(op)
	if err == nil {
		return do()
	}
	if apply {
		_ = do()
	}
	return err
}

func (f *faulty) Lstat(name string) (info fs.FileInfo, err error) {
	e := f.do("lstat", func() error { info, err = f.volume.Lstat(name); return err })
	if e != nil {
		info = nil
	}
	return info, e
}

func (f *faulty) Create(name string) (handle, error) {
	return f.opened("create", func() (handle, error) { return f.volume.Create(name) })
}

func (f *faulty) Open(name string) (handle, error) {
	return f.opened("open", func() (handle, error) { return f.volume.Open(name) })
}

func (f *faulty) opened(op string, open func() (handle, error)) (handle, error) {
	var h handle
	err := f.do(op, func() (err error) { h, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return &faultyHandle{h, f}, nil
}

func (f *faulty) Cut(name string, info fs.FileInfo, size int64) error {
	return f.do("cut", func() error { return f.volume.Cut(name, info, size) })
}

func (f *faulty) Rename(from, to string) error {
	return f.do("rename", func() error { return f.volume.Rename(from, to) })
}

func (f *faulty) Remove(name string) error {
	return f.do("remove", func() error { return f.volume.Remove(name) })
}

func (f *faulty) Names() (names []string, err error) {
	err = f.do("names", func() error { names, err = f.volume.Names(); return err })
	return names, err
}

func (f *faulty) Sync() error { return f.do("sync folder", f.volume.Sync) }

func (f *faulty) Moved() (moved bool, err error) {
	err = f.do("moved", func() error { moved, err = f.volume.Moved(); return err })
	return moved, err
}

type faultyHandle struct {
	handle
	f *faulty
}

func (h *faultyHandle) Write(p []byte) (n int, err error) {
	apply, err := h.f.ask("write")
	if err == nil {
		return h.handle.Write(p)
	}
	if !apply {
		return 0, err
	}
	n, _ = h.handle.Write(p[:(len(p)+1)/2])
	return n, err
}

func (h *faultyHandle) Sync() error { return h.f.do("sync", h.handle.Sync) }
func (h *faultyHandle) Stat() (info fs.FileInfo, err error) {
	e := h.f.do("stat", func() error { info, err = h.handle.Stat(); return err })
	return info, e
}

// writer does what the contract asks of a caller: a batch is appended and
// synced, and after any error all of it is appended again.
type writer struct {
	open func() (*File, error)
	f    *File
}

func (w *writer) batch(records []string) (err error) {
	if w.f == nil {
		if w.f, err = w.open(); err != nil {
			return err
		}
	}
	for _, r := range records {
		if e := w.f.Append([]byte(r)); e != nil {
			// An unwary caller goes on; Sync has to tell it.
			err = e
		}
	}
	return errors.Join(err, w.f.Sync())
}

// content reads all files of a volume, the oldest first.
func content(t *testing.T, m *memory, o Options) (lines []string) {
	t.Helper()
	p, err := parsePattern(o.Pattern, "audit.log")
	if err != nil {
		t.Fatal(err)
	}
	names, _ := m.Names()
	order := p.pick(names)
	if m.names["audit.log"] != nil {
		order = append(order, rotatedFile{name: "audit.log"})
	}
	for _, file := range order {
		data := string(m.names[file.name].data)
		if data != "" && !strings.HasSuffix(data, "\n") {
			t.Errorf("%s does not end a line: %q", file.name, data)
		}
		lines = append(lines, slices.Collect(strings.Lines(data))...)
	}
	return lines
}

func records(batch int) (r []string) {
	for i := range 3 {
		r = append(r, fmt.Sprintf(`{"batch":%d,"record":%d}`+"\n", batch, i))
	}
	return r
}

// TestFaultAtEveryStep fails every operation of a run in turn, once without
// effect and once with, once and then for a while. Nothing that was acknowledged
// is ever missing, no line is broken, and the order of what was acknowledged
// first holds.
func TestFaultAtEveryStep(t *testing.T) {
	o := Options{Path: "/x/audit.log", MaxSize: 100, Pattern: DefaultPattern}
	seen := map[string]int{}
	for _, mode := range []string{"without effect", "with effect", "the first with effect"} {
		for _, times := range []int{1, 2, 5} {
			for at := 0; ; at++ {
				m := newMemory()
				n, failed := 0, ""
				v := &faulty{volume: m, ask: func(op string) (bool, error) {
					n++
					if n > at && n <= at+times {
						first := failed == ""
						if first {
							failed = op
						}
						return mode == "with effect" || first && mode != "without effect", errFault
					}
					return false, nil
				}}
				w := &writer{open: func() (*File, error) { return open(o, func(string) (volume, error) { return v, nil }) }}
				errs := 0
				for batch := range 4 {
					for try := 0; ; try++ {
						err := w.batch(records(batch))
						if err == nil {
							break
						}
						errs++
						if try > 20 {
							t.Fatalf("%s, %d faults from operation %d (%s): never recovers: %v", mode, times, at, failed, err)
						}
					}
				}
				if err := w.f.Close(); err != nil {
					errs++
				}
				if failed == "" {
					break // the run has fewer operations
				}
				seen[failed]++
				if errs == 0 {
					t.Errorf("operation %d (%s) failed and nobody was told", at, failed)
				}
				where := fmt.Sprintf("%s, %d faults from operation %d (%s)", mode, times, at, failed)
				checkLines(t, where, content(t, m, o), 4, false)
				if m.locked {
					t.Errorf("%s: still locked", where)
				}
			}
		}
	}
	for _, op := range []string{"lstat", "create", "rename", "names", "sync folder", "moved", "write", "sync", "stat"} {
		if seen[op] == 0 {
			t.Errorf("no fault at %s: the test does not test it", op)
		}
	}
	t.Logf("faults by operation: %v", seen)
}

// checkLines verifies that the records of all batches are there, and nothing
// else but, where a crash may have been, torn beginnings of them.
func checkLines(t *testing.T, where string, lines []string, batches int, torn bool) {
	t.Helper()
	count := map[string]int{}
	for _, l := range lines {
		count[l]++
	}
	known := ""
	for b := range batches + 1 {
		for _, r := range records(b) {
			known += r
			if b < batches && count[r] == 0 {
				t.Errorf("%s: lost %q; there is %q", where, r, lines)
			}
			delete(count, r)
		}
	}
	for l := range count {
		if !torn || l != "\n" && !strings.Contains(known, strings.TrimSuffix(l, "\n")) {
			t.Errorf("%s: broken line %q", where, l)
		}
	}
}

// TestPowerCut stops a run at every operation, cuts the power, starts again,
// and finds all that was acknowledged.
func TestPowerCut(t *testing.T) {
	o := Options{Path: "/x/audit.log", MaxSize: 100, Pattern: "{name}-{time}-{seq}"}
	for seed := range uint64(40) {
		for at := 0; ; at++ {
			r := rand.New(rand.NewPCG(seed, uint64(at)))
			m := newMemory()
			n := 0
			off := false
			v := &faulty{volume: m, ask: func(string) (bool, error) {
				if n++; n > at {
					// The first one may still reach the disk.
					apply := !off && r.IntN(2) == 0
					off = true
					return apply, errFault
				}
				return false, nil
			}}
			w := &writer{open: func() (*File, error) { return open(o, func(string) (volume, error) { return v, nil }) }}
			acked := 0
			for acked < 4 && w.batch(records(acked)) == nil {
				acked++
			}
			if !off {
				break
			}
			after := m.cutPower(r)
			w = &writer{open: func() (*File, error) { return open(o, func(string) (volume, error) { return after, nil }) }}
			where := fmt.Sprintf("seed %d, power cut at operation %d, %d batches acknowledged", seed, at, acked)
			if err := w.batch(records(acked)); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if err := w.f.Close(); err != nil {
				t.Fatal(err)
			}
			checkLines(t, where, content(t, after, o), acked+1, true)
		}
	}
}

// TestFailedSyncIsFinal: after an fsync that failed the same handle is never
// synced again, and what it did not cover is gone before anything is appended.
func TestFailedSyncIsFinal(t *testing.T) {
	o := Options{Path: "/x/audit.log"}
	m := newMemory()
	fail := false
	opens := 0
	v := &faulty{volume: m}
	v.ask = func(op string) (bool, error) {
		if op == "open" || op == "create" {
			opens++
		}
		if op == "sync" && fail {
			fail = false
			return false, errFault
		}
		return false, nil
	}
	f, err := open(o, func(string) (volume, error) { return v, nil })
	if err != nil {
		t.Fatal(err)
	}
	must(t, f.Append([]byte("first\n")))
	must(t, f.Sync())
	must(t, f.Append([]byte("second\n")))
	fail = true
	if err := f.Sync(); !errors.Is(err, ErrUnsynced) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync: %v", err)
	}
	before := opens
	must(t, f.Append([]byte("second\n")))
	if opens != before+1 {
		t.Errorf("%d opens after a failed fsync, want 1", opens-before)
	}
	must(t, f.Sync())
	if got := string(m.names["audit.log"].durable); got != "first\nsecond\n" {
		t.Errorf("on disk: %q", got)
	}
	must(t, f.Close())
}

// TestSyncTellsWhatAppendTold: the fsync of a rotation fails, the caller tries
// the one Append again and does not think of the records before it.
func TestSyncTellsWhatAppendTold(t *testing.T) {
	m := newMemory()
	fail := false
	v := &faulty{volume: m}
	v.ask = func(op string) (bool, error) {
		if op == "sync" && fail {
			fail = false
			return false, errFault
		}
		return false, nil
	}
	f, err := open(Options{Path: "/x/audit.log", MaxSize: 10}, func(string) (volume, error) { return v, nil })
	if err != nil {
		t.Fatal(err)
	}
	must(t, f.Append([]byte("a234567\n")))
	fail = true
	if err := f.Append([]byte("b234567\n")); !errors.Is(err, ErrUnsynced) {
		t.Fatalf("Append: %v", err)
	}
	must(t, f.Append([]byte("b234567\n")))
	if err := f.Sync(); !errors.Is(err, ErrUnsynced) {
		t.Fatalf("Sync forgets the record that was cut: %v", err)
	}
	must(t, f.Append([]byte("a234567\n")))
	must(t, f.Append([]byte("b234567\n")))
	must(t, f.Sync())
	must(t, f.Close())
}

// TestChangedBetweenFaults: a write and the cut after it fail, so that the file
// ends with a part of a record, and before it is opened again somebody else
// does something to it. Nothing of theirs is cut off.
func TestChangedBetweenFaults(t *testing.T) {
	for name, k := range map[string]struct {
		do   func(m *memory)
		want string
	}{
		"nothing":  {func(*memory) {}, "first\nsecond\n"},
		"replaced": {func(m *memory) { m.names["audit.log"] = &inode{data: []byte("theirs\n12")} }, "theirs\n12\nsecond\n"},
		"longer": {func(m *memory) {
			n := m.names["audit.log"]
			n.data = append(n.data, "nd\ntheirs\n"...)
		}, "first\nsecond\ntheirs\nsecond\n"},
		"shorter": {func(m *memory) { m.names["audit.log"].data = []byte("fi") }, "fi\nsecond\n"},
		"removed": {func(m *memory) { delete(m.names, "audit.log") }, "second\n"},
	} {
		m := newMemory()
		failing := false
		v := &faulty{volume: m, ask: func(op string) (bool, error) {
			if failing && (op == "write" || op == "cut") {
				return op == "write", errFault
			}
			return false, nil
		}}
		f, err := open(Options{Path: "/x/audit.log"}, func(string) (volume, error) { return v, nil })
		must(t, err)
		must(t, f.Append([]byte("first\n")))
		must(t, f.Sync())
		failing = true
		if err := f.Append([]byte("second\n")); !errors.Is(err, errFault) {
			t.Fatalf("%s: %v", name, err)
		}
		failing = false
		k.do(m)
		if name != "nothing" {
			if err := f.Append([]byte("second\n")); !errors.Is(err, ErrReplaced) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must(t, f.Append([]byte("second\n")))
		must(t, f.Close())
		if got := string(m.names["audit.log"].durable); got != k.want {
			t.Errorf("%s: on disk %q, want %q", name, got, k.want)
		}
	}
}

func TestDiskFull(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, fmt.Errorf("quota: %w", syscall.EDQUOT)} {
		m := newMemory()
		full := false
		v := &faulty{volume: m}
		v.ask = func(op string) (bool, error) {
			if op == "write" && full {
				return true, errno
			}
			return false, nil
		}
		f, err := open(Options{Path: "/x/audit.log"}, func(string) (volume, error) { return v, nil })
		if err != nil {
			t.Fatal(err)
		}
		must(t, f.Append([]byte("first\n")))
		full = true
		err = f.Append([]byte("second, cut in half\n"))
		if !errors.Is(err, ErrNoSpace) || !errors.Is(err, errno) {
			t.Fatalf("Append: %v", err)
		}
		if got := string(m.names["audit.log"].data); got != "first\n" {
			t.Errorf("after a full disk: %q", got)
		}
		full = false
		must(t, f.Append([]byte("second\n")))
		must(t, f.Close())
		if got := string(m.names["audit.log"].durable); got != "first\nsecond\n" {
			t.Errorf("on disk: %q", got)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
