package host

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	mathrand "math/rand/v2"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/audit-host/audit-host/abi"
)

const wasiModule = "wasi_snapshot_preview1"

// Error numbers of WASI preview 1.
const (
	wasiOK     = 0
	wasiBadF   = 8
	wasiFault  = 21
	wasiInval  = 28
	wasiNotSup = 58
)

// wasiFunctions are those that Go's port to WASI can import, whether a guest
// uses them or not, and no others. None of them reaches a file, the
// environment or the network: what is not named in exportWASI answers that
// the file is not open.
var wasiFunctions = []abi.Signature{
	wasi("args_get", "ii"), wasi("args_sizes_get", "ii"), wasi("environ_get", "ii"), wasi("environ_sizes_get", "ii"),
	wasi("clock_time_get", "iIi"), wasi("poll_oneoff", "iiii"), wasi("random_get", "ii"), wasi("sched_yield", ""),
	{Name: "proc_exit", Params: []abi.ValueType{abi.I32}},

	wasi("fd_close", "i"), wasi("fd_fdstat_get", "ii"), wasi("fd_fdstat_set_flags", "ii"), wasi("fd_fdstat_set_rights", "iII"),
	wasi("fd_filestat_get", "ii"), wasi("fd_filestat_set_size", "iI"), wasi("fd_pread", "iiiIi"), wasi("fd_prestat_dir_name", "iii"),
	wasi("fd_prestat_get", "ii"), wasi("fd_pwrite", "iiiIi"), wasi("fd_read", "iiii"), wasi("fd_readdir", "iiiIi"),
	wasi("fd_seek", "iIii"), wasi("fd_sync", "i"), wasi("fd_write", "iiii"),

	wasi("path_create_directory", "iii"), wasi("path_filestat_get", "iiiii"), wasi("path_filestat_set_times", "iiiiIIi"),
	wasi("path_link", "iiiiiii"), wasi("path_open", "iiiiiIIii"), wasi("path_readlink", "iiiiii"),
	wasi("path_remove_directory", "iii"), wasi("path_rename", "iiiiii"), wasi("path_symlink", "iiiii"), wasi("path_unlink_file", "iii"),

	wasi("sock_accept", "iii"), wasi("sock_shutdown", "ii"),
}

// wasi is a function that returns an error number. Its parameters are written
// i for i32 and I for i64.
func wasi(name, params string) abi.Signature {
	s := abi.Signature{Name: name, Results: []abi.ValueType{abi.I32}}
	for _, p := range params {
		t := abi.I32
		if p == 'I' {
			t = abi.I64
		}
		s.Params = append(s.Params, t)
	}
	return s
}

// wasiState belongs to one instance.
type wasiState struct {
	clock time.Duration // of a guest without the real one
	rand  *mathrand.ChaCha8
}

func isExit(err error) bool {
	var exit *sys.ExitError
	return errors.As(err, &exit)
}

func (s *Sink) exportWASI(ctx context.Context) error {
	b := s.runtime.NewHostModuleBuilder(wasiModule)
	served := map[string]func(context.Context, api.Module, []uint64){
		"args_sizes_get": noStrings, "environ_sizes_get": noStrings,
		"args_get": done, "environ_get": done, "sched_yield": done,
		"clock_time_get": s.clockTime, "fd_write": s.fdWrite, "poll_oneoff": s.poll,
		"proc_exit": procExit, "random_get": s.randomGet, "fd_fdstat_get": fdStat,
	}
	for _, sig := range wasiFunctions {
		f, ok := served[sig.Name]
		if !ok {
			f = notOpen
		}
		export(b, sig, s.hostFunc(wasiModule, sig, f))
	}
	_, err := b.Instantiate(ctx)
	return err
}

func notOpen(_ context.Context, _ api.Module, stack []uint64) { stack[0] = wasiBadF }

func done(_ context.Context, _ api.Module, stack []uint64) { stack[0] = wasiOK }

// noStrings answers that there are no arguments and no environment.
func noStrings(_ context.Context, mod api.Module, stack []uint64) {
	clear(view(mod, stack[0], 4))
	clear(view(mod, stack[1], 4))
	stack[0] = wasiOK
}

// clockTime tells the real time if that is granted. Without the grant the
// clock stands where the guest's own waiting has moved it.
func (s *Sink) clockTime(_ context.Context, mod api.Module, stack []uint64) {
	t := uint64(s.inst.wasi.clock)
	if s.o.Now {
		t = uint64(time.Now().UnixNano())
	} else {
		s.inst.wasi.clock += time.Microsecond // Go's scheduler wants it to move
	}
	if !mod.Memory().WriteUint64Le(uint32(stack[2]), t) {
		stack[0] = wasiFault
		return
	}
	stack[0] = wasiOK
}

// fdWrite keeps what goes to standard output and error for the crash record.
func (s *Sink) fdWrite(_ context.Context, mod api.Module, stack []uint64) {
	if fd := uint32(stack[0]); fd != 1 && fd != 2 {
		stack[0] = wasiBadF
		return
	}
	n, mem := uint32(0), mod.Memory()
	for i := range min(uint32(stack[2]), 1024) {
		at := uint32(stack[1]) + 8*i
		ptr, ok1 := mem.ReadUint32Le(at)
		size, ok2 := mem.ReadUint32Le(at + 4)
		b, ok3 := mem.Read(ptr, size)
		if !ok1 || !ok2 || !ok3 {
			stack[0] = wasiFault
			return
		}
		_, _ = s.inst.stderr.Write(b) // never fails
		n += size
	}
	if !mem.WriteUint32Le(uint32(stack[3]), n) {
		stack[0] = wasiFault
		return
	}
	stack[0] = wasiOK
}

func fdStat(_ context.Context, mod api.Module, stack []uint64) {
	if fd := uint32(stack[0]); fd != 1 && fd != 2 {
		stack[0] = wasiBadF
		return
	}
	b := view(mod, stack[1], 24)
	clear(b)
	b[0] = 2      // a character device
	b[8] = 1 << 6 // right to write, nothing else
	stack[0] = wasiOK
}

// poll waits for the shortest of the guest's timers, bounded by the call's
// deadline, and answers that all timers are due. A guest can wait for nothing
// but time.
func (s *Sink) poll(ctx context.Context, mod api.Module, stack []uint64) {
	const subscription, event = 48, 32
	in, out, n := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
	if n == 0 || n > 64 {
		stack[0] = wasiInval
		return
	}
	mem := mod.Memory()
	wait := time.Duration(math.MaxInt64)
	events := uint32(0)
	for i := range n {
		sub, ok := mem.Read(in+i*subscription, subscription)
		dst, ok2 := mem.Read(out+i*event, event)
		if !ok || !ok2 {
			stack[0] = wasiFault
			return
		}
		userdata, kind := string(sub[:8]), sub[8]
		clear(dst)
		copy(dst, userdata)
		dst[10] = kind
		events++
		if kind != 0 {
			dst[8] = wasiNotSup
			wait = 0
			continue
		}
		d := time.Duration(min(binary.LittleEndian.Uint64(sub[24:]), uint64(math.MaxInt64)))
		if sub[40]&1 != 0 { // an absolute time on the guest's clock
			base := s.inst.wasi.clock
			if s.o.Now {
				base = time.Duration(time.Now().UnixNano())
			}
			d = max(0, d-base)
		}
		wait = min(wait, d)
	}
	if wait > 0 && s.player != nil {
		s.inst.wasi.clock += wait // what was recorded has waited already
	} else if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			panic(errStopped)
		}
		s.inst.wasi.clock += wait
	}
	if !mem.WriteUint32Le(uint32(stack[3]), events) {
		stack[0] = wasiFault
		return
	}
	stack[0] = wasiOK
}

// procExit unwinds the guest. The module is closed by whoever called it: here
// its frames are still on the stack, and closing frees its memory.
func procExit(_ context.Context, _ api.Module, stack []uint64) {
	panic(sys.NewExitError(uint32(stack[0])))
}

// randomGet gives real randomness if granted, else the same bytes to every
// instance, so that a run can be repeated.
func (s *Sink) randomGet(ctx context.Context, mod api.Module, stack []uint64) {
	b := view(mod, stack[0], stack[1])
	if s.o.Random {
		fillRandom(ctx, rand.Reader, b)
	} else {
		w := &s.inst.wasi
		if w.rand == nil {
			w.rand = mathrand.NewChaCha8([32]byte{'a', 'u', 'd', 'i', 't'})
		}
		fillRandom(ctx, w.rand, b)
	}
	stack[0] = wasiOK
}
