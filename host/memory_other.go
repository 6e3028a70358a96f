//go:build !unix

package host

import (
	"context"
	"errors"
)

// linearMemory is left to wazero here.
type linearMemory struct{ growth uint64 } // growth bounds nothing

// errNoAddressSpace does not happen here.
var errNoAddressSpace = errors.New("the host has no address space for the guest's memory")

func (*linearMemory) with(ctx context.Context) context.Context { return ctx }

// Free does nothing: the memory is Go's.
func (*linearMemory) Free() {}
