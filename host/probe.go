package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// Probe stands between a guest and the capabilities that reach the world: sql,
// append, http and kv. It sees each call and may have it fail. Package
// conformance uses it; a sink of an operator has none, and pays nothing.
type Probe interface {
	// Asked is called before a call is served, and says what is to become of
	// it. What a holds is the guest's memory: to be read before Asked returns.
	Asked(a *Ask) Fault
	// Answered is called when the host has served the call, before the guest
	// hears of it, with the upper half of the answer: an abi.Status, or for sql
	// an abi.SQLStatus.
	Answered(a *Ask, status uint32)
}

// Ask is what a guest asks of a capability.
type Ask struct {
	// Function is the import's name.
	Function string
	// Writes tells that the call can change something.
	Writes bool
	// Data is what was handed over: of append the record, of http head and body,
	// of kv the key and for kv_set the value, of sql for each step its kind,
	// columns, rows and types of cells (numbers of 4 bytes, little-endian), its
	// text, and each cell's bytes.
	Data [][]byte
}

// Fault is what a [Probe] does to a call. The zero value does nothing.
type Fault struct {
	Kind FaultKind
	// Status and Text are the answer in place of the host's.
	Status uint32
	Text   string
}

// FaultKind says when a call fails.
type FaultKind uint8

const (
	// FaultNone leaves the call alone.
	FaultNone FaultKind = iota
	// FaultInstead answers and does nothing.
	FaultInstead
	// FaultAfter does what was asked and then answers as if it had failed.
	FaultAfter
	// FaultKillBefore ends the instance before anything is done, and
	// FaultKillAfter when it is done: the outcome is HOST_PANIC.
	FaultKillBefore
	FaultKillAfter
)

// errProbe ends a guest by order of the probe.
var errProbe = errors.New("ended by the probe")

// probed puts the probe around a host function.
func (s *Sink) probed(sig abi.Signature, f func(context.Context, api.Module, []uint64)) func(context.Context, api.Module, []uint64) {
	p := s.o.Probe
	if p == nil || sig.Capability == "" || sig.Capability == abi.CapabilityNow || sig.Capability == abi.CapabilityRandom {
		return f
	}
	out := map[string]int{abi.ImportSQL: 3, abi.ImportHTTP: 4, abi.ImportKVGet: 2}
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		args := [6]uint64{}
		copy(args[:], stack)
		a := s.ask(sig.Name, mod, &args)
		fault := p.Asked(a)
		if fault.Kind == FaultKillBefore {
			panic(errProbe)
		}
		if fault.Kind != FaultInstead {
			f(ctx, mod, stack)
			p.Answered(a, uint32(stack[0]>>32))
		}
		switch fault.Kind {
		case FaultKillAfter:
			panic(errProbe)
		case FaultInstead, FaultAfter:
			n := 0
			if at, ok := out[sig.Name]; ok {
				n = copy(view(mod, args[at], args[at+1]), fault.Text)
			}
			stack[0] = uint64(fault.Status)<<32 | uint64(n)
		}
	}
}

// ask reads a call of a capability. It traps on a bad pointer, as the call
// itself would.
func (s *Sink) ask(name string, mod api.Module, args *[6]uint64) *Ask {
	a := &Ask{Function: name, Writes: name != abi.ImportKVGet}
	switch name {
	case abi.ImportSQL:
		a.Writes = uint32(args[0]) == abi.SQLWrite
		a.Data = askedSQL(mod, args)
	case abi.ImportHTTP, abi.ImportKVSet:
		a.Data = [][]byte{view(mod, args[0], args[1]), view(mod, args[2], args[3])}
	default:
		a.Data = [][]byte{view(mod, args[0], args[1])}
	}
	return a
}

// askedSQL reads a script; one that the host will refuse is nothing.
func askedSQL(mod api.Module, args *[6]uint64) [][]byte {
	var sc script
	size := uint64(mod.Memory().Size())
	if size == 0 {
		size = 1<<32 - 1 // wazero's answer for 4 GiB
	}
	if err := sc.read(view(mod, 0, size), uint32(args[0]), uint32(args[1]), uint32(args[2]), DefaultMaxSQL); err != nil {
		return [][]byte{[]byte(err.Error())}
	}
	var list [][]byte
	for i := range sc.steps {
		st := &sc.steps[i]
		head := binary.LittleEndian.AppendUint32(nil, st.kind)
		head = binary.LittleEndian.AppendUint32(head, uint32(st.columns))
		head = binary.LittleEndian.AppendUint32(head, uint32(st.rows))
		at := len(list)
		list = append(list, nil, st.sql)
		for c := range st.rows * st.columns {
			typ, n, b := sc.cell(st, c)
			if typ == abi.SQLInt || typ == abi.SQLFloat {
				b = binary.LittleEndian.AppendUint64(nil, n)
			}
			head = binary.LittleEndian.AppendUint32(head, typ)
			list = append(list, b)
		}
		list[at] = head
	}
	return list
}

// Bench has the handles of a test bench on a sink: what package conformance does
// to a guest and no operator does. Its methods wait for the turn of the sink as
// [Sink.Deliver] does, and fail when ctx ends before it or the sink is closed.
type Bench struct{ s *Sink }

// Bench returns the handles.
func (s *Sink) Bench() Bench { return Bench{s} }

// errBench is a handle that could not be reached.
var errBench = errors.New("the sink is closed, or the wait for its turn was ended")

func (b Bench) do(ctx context.Context, f func()) error {
	if _, ok := b.s.begin(ctx); !ok {
		return errBench
	}
	defer b.s.end()
	f()
	return nil
}

// Kill throws the instance away as an outcome of the host's does: without
// audit_flush and audit_close. The next batch meets a fresh one.
func (b Bench) Kill(ctx context.Context) error { return b.do(ctx, b.s.discard) }

// Reopen throws the instance away and opens a fresh one with another
// configuration, which stays. The result is that of audit_open.
func (b Bench) Reopen(ctx context.Context, config []byte) (r abi.Result, err error) {
	doErr := b.do(ctx, func() {
		b.s.discard()
		b.s.o.Config = bytes.Clone(config)
		r, err = b.s.fresh(ctx)
	})
	return r, errors.Join(doErr, err)
}

// Limit sets the fuel of the calls to come in units, and the memory of
// instances to come in bytes beyond what the module begins with. 0 is the
// sink's own. Memory is limited on Unix only.
func (b Bench) Limit(ctx context.Context, fuel, memory int64) error {
	return b.do(ctx, func() {
		if b.s.o.Fuel = fuel; fuel <= 0 {
			b.s.o.Fuel = DefaultFuel
		}
		b.s.o.growth = memory
	})
}

// Spent is what the last call into a guest took.
type Spent struct {
	// Fuel is in units.
	Fuel int64
	// Memory is the size of its linear memory in bytes.
	Memory uint64
	// Inbox is the address of its inbox, InboxSize its size in bytes as far as
	// it was asked for.
	Inbox     uint32
	InboxSize int
}

// Spent returns false if there is no instance.
func (b Bench) Spent(ctx context.Context) (sp Spent, ok bool, err error) {
	err = b.do(ctx, func() {
		i := b.s.inst
		if ok = i != nil; ok {
			sp = Spent{Fuel: b.s.o.Fuel - i.gauge.Left(), Memory: memorySize(i.mod), Inbox: i.inbox, InboxSize: i.inboxSize}
		}
	})
	return sp, ok, err
}

func memorySize(mod api.Module) uint64 {
	if n := uint64(mod.Memory().Size()); n > 0 {
		return n
	}
	return 1 << 32
}

// Raise has the guest's memory grown to a size in bytes, as if the guest had
// done so, and has the next batch ask for its inbox anew.
func (b Bench) Raise(ctx context.Context, size uint64) error {
	return b.do(ctx, func() {
		if i := b.s.inst; i != nil {
			if now := memorySize(i.mod); now < size {
				i.mod.Memory().Grow(uint32((size - now) / wasmPage)) // it is seen in Spent
			}
			i.inboxSize = 0
		}
	})
}

// Frame delivers n bytes of the guest's inbox as a frame of so many events.
// fill writes them; it need not touch what nobody reads. A nil fill only
// asks for the inbox, and the outcome is OK.
func (b Bench) Frame(ctx context.Context, n, events int, fill func(dst []byte)) (r abi.Result) {
	err := b.do(ctx, func() {
		s := b.s
		if s.inst == nil {
			var ok bool
			if r, ok = s.reopen(ctx); !ok {
				return
			}
		}
		i := s.inst
		s.call.begin(events)
		s.trace.begin(abi.ExportDeliver)
		r = s.invoke(ctx, func(ctx context.Context) (uint64, error) {
			if fill == nil {
				return abi.Answer(abi.OK, abi.ReasonOther, uint32(events)), i.put(ctx, n, func([]byte) {})
			}
			if err := i.put(ctx, n, fill); err != nil {
				return 0, err
			}
			return i.call(ctx, i.deliver, uint64(n))
		})
		r = s.judge(r, events, nil)
		s.ended(r.Outcome)
		s.trace.keep(false, nil)
		r = s.settle(ctx, r, nil)
	})
	if err != nil {
		return abi.Result{Outcome: abi.Deadline, Detail: err.Error()}
	}
	return r
}

// EachRow reads all rows of all tables of a database file, also while a sink has
// it open. The cells are texts and blobs, nil for what else there is; they are
// valid until f returns. A table is read in the order of its key.
func EachRow(ctx context.Context, path string, f func(table string, cells [][]byte)) error {
	r, err := sqlite.OpenReader(ctx, path)
	if err != nil {
		return err
	}
	err = r.Do(ctx, func(c *sqlite.Conn) error {
		var tables []string
		if err := c.Each("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name", nil, func(s *sqlite.Stmt) error {
			tables = append(tables, s.Text(0))
			return nil
		}); err != nil {
			return err
		}
		var cells [][]byte
		for _, table := range tables {
			quoted := `"` + string(bytes.ReplaceAll([]byte(table), []byte(`"`), []byte(`""`))) + `"`
			if err := c.Each("SELECT * FROM "+quoted, nil, func(s *sqlite.Stmt) error {
				cells = cells[:0]
				for i := range s.Columns() {
					_, _, b := s.Column(i)
					cells = append(cells, bytes.Clone(b))
				}
				f(table, cells)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, r.Close())
}
