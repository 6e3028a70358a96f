package host

import (
	"context"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
)

// kvFor returns the store if it may be used with this key, else a status.
func (s *Sink) kvFor(key []byte) (*kvStore, abi.Status) {
	k := s.grants.kv
	switch {
	case k == nil:
		return nil, abi.StatusRefused
	case len(key) == 0:
		return nil, abi.StatusInvalid
	case len(key) > abi.MaxKVKey:
		return nil, abi.StatusTooLarge
	case !k.loaded:
		return nil, abi.StatusUnavailable
	}
	return k, abi.StatusDone
}

// kvGet is the kv_get import. If the value does not fit, its length is told
// with StatusTooLarge.
func (s *Sink) kvGet(_ context.Context, mod api.Module, stack []uint64) {
	key, out := view(mod, stack[0], stack[1]), view(mod, stack[2], stack[3])
	k, status := s.kvFor(key)
	n := 0
	if status == abi.StatusDone {
		v, ok := k.get(string(key))
		switch n = len(v); {
		case !ok:
			status = abi.StatusAbsent
		case n > len(out):
			status = abi.StatusTooLarge
		default:
			copy(out, v)
		}
	}
	stack[0] = abi.StatusAnswer(status, uint32(n))
}

// kvSet is the kv_set import.
func (s *Sink) kvSet(_ context.Context, mod api.Module, stack []uint64) {
	key, value := view(mod, stack[0], stack[1]), view(mod, stack[2], stack[3])
	k, status := s.kvFor(key)
	switch {
	case status != abi.StatusDone:
	case len(value) > abi.MaxKVValue:
		status = abi.StatusTooLarge
	default:
		status = k.set(string(key), append([]byte{}, value...))
	}
	stack[0] = abi.StatusAnswer(status, 0)
}

// kvDelete is the kv_delete import.
func (s *Sink) kvDelete(_ context.Context, mod api.Module, stack []uint64) {
	key := view(mod, stack[0], stack[1])
	k, status := s.kvFor(key)
	if status == abi.StatusDone {
		status = k.set(string(key), nil)
	}
	stack[0] = abi.StatusAnswer(status, 0)
}
