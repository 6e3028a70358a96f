//go:build unix

package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// linearMemory is the memory of one instance: its whole limit reserved as
// address space, and committed as far as it grew. Growing never copies, and a
// fresh instance costs a tenth of what it does with Go's memory.
type linearMemory struct {
	all       []byte
	committed int
	// growth, if not 0, bounds what is had beyond first, the size at the
	// beginning, in bytes.
	growth, first uint64
}

// errNoAddressSpace is a lack of the host's, not of the guest's.
var errNoAddressSpace = errors.New("the host has no address space for the guest's memory")

// with has the next instantiation under ctx use m.
func (m *linearMemory) with(ctx context.Context) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, limit uint64) experimental.LinearMemory {
		page := uint64(unix.Getpagesize() - 1)
		if limit += page; limit > page {
			b, err := unix.Mmap(-1, 0, int(limit&^page), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				// wazero has no way to return an error here.
				panic(fmt.Errorf("%w: reserve %d bytes: %w", errNoAddressSpace, limit, err))
			}
			m.all = b
		}
		return m
	}))
}

// Reallocate returns nil, and memory.grow -1, beyond what can be had.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if m.committed == 0 {
		m.first = size
	}
	if size > uint64(len(m.all)) || m.growth > 0 && size > m.first+m.growth {
		return nil
	}
	page := unix.Getpagesize() - 1
	if need := (int(size) + page) &^ page; need > m.committed {
		if err := unix.Mprotect(m.all[m.committed:need], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil
		}
		m.committed = need
	}
	return m.all[:size:size]
}

// Free gives the memory back. The guest must not be running. It is called by
// wazero when the module is closed, but not when its instantiation failed.
func (m *linearMemory) Free() {
	if m.all == nil {
		return
	}
	// It can only fail for a range that was not mapped.
	_ = unix.Munmap(m.all)
	m.all, m.committed = nil, 0
}
