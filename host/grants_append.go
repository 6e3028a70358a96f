package host

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host/appendfile"
)

// appendGrant serves the append capability of one sink. A write or an fsync
// that the disk does not answer can't be cut short: the deadline is noticed
// behind it.
type appendGrant struct {
	o appendfile.Options
	f *appendfile.File // nil until it could be opened
	// dirty tells that something was appended, or failed to be, since the last
	// good sync.
	dirty bool
}

func (a *appendGrant) open() error {
	if a.f != nil {
		return nil
	}
	f, err := appendfile.Open(a.o)
	if err != nil {
		return err
	}
	a.f = f
	return nil
}

func (a *appendGrant) append(record []byte) error {
	if err := a.open(); err != nil {
		return err
	}
	a.dirty = true
	return a.f.Append(record)
}

// sync makes durable what was appended. One call covers all of a batch: a loss
// that an append has reported in between is reported again.
func (a *appendGrant) sync() error {
	if !a.dirty {
		return nil
	}
	if err := a.f.Sync(); err != nil {
		return err
	}
	a.dirty = false
	return nil
}

func (a *appendGrant) close() error {
	if a.f == nil {
		return nil
	}
	return a.f.Close()
}

// appendRecord is the append import.
func (s *Sink) appendRecord(ctx context.Context, mod api.Module, stack []uint64) {
	record := view(mod, stack[0], stack[1])
	status := abi.StatusRefused
	if a := s.grants.append; a != nil {
		switch err := a.append(record); {
		case err == nil:
			status = abi.StatusDone
		case errors.Is(err, appendfile.ErrRecord):
			status = abi.StatusInvalid
		default:
			status = abi.StatusUnavailable
			s.complain(ctx, "plugin could not append", slog.String("error", err.Error()))
		}
	}
	stack[0] = abi.StatusAnswer(status, 0)
}
