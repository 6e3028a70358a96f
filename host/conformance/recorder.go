package conformance

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

// recorder is the probe of a world: it writes down what the plugin asks for and
// has calls fail as a case wants. It is used by the goroutine that delivers.
type recorder struct {
	// fault befalls call number at of a delivery, counted from 0; -1 none.
	at    int
	fault host.Fault

	asks   []asked // of the running or last delivery
	digest hash.Hash
	struck bool // the fault was done
	wrote  bool // since it was made; ids or not

	// order has the ids of events in the order in which they were written.
	order []string

	lines         [][]byte // of the running delivery
	synced, stray [][]byte
	staged        map[string][]byte // nil for a key that is removed
	values        map[string][]byte
}

// asked is one call of a capability.
type asked struct {
	function string
	writes   bool
}

func newRecorder() *recorder {
	return &recorder{at: -1, digest: sha256.New(), staged: map[string][]byte{}, values: map[string][]byte{}}
}

// begin begins a delivery, or another call into the guest.
func (r *recorder) begin() {
	r.asks, r.struck = nil, false
	r.lines = nil
	clear(r.staged)
	r.digest.Reset()
}

// ended ends it. The host syncs the file and keeps the store's changes only if
// the answer was OK or PARTIAL: else both may be lost, and are taken for lost.
func (r *recorder) ended(ok bool) {
	if !ok {
		r.stray = append(r.stray, r.lines...)
		r.lines = nil
		return
	}
	r.synced = append(r.synced, r.lines...)
	for key, v := range r.staged {
		if v == nil {
			delete(r.values, key)
		} else {
			r.values[key] = v
		}
	}
	r.lines = nil
}

// strike has call number at of the next deliveries fail, until calm.
func (r *recorder) strike(at int, f host.Fault) { r.at, r.fault = at, f }

func (r *recorder) calm() { r.at = -1 }

// Asked writes a call down.
func (r *recorder) Asked(a *host.Ask) host.Fault {
	r.asks = append(r.asks, asked{a.Function, a.Writes})
	r.digest.Write([]byte(a.Function))
	for _, b := range a.Data {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(b)))
		r.digest.Write(size[:])
		r.digest.Write(b)
	}
	if len(r.asks)-1 != r.at {
		return host.Fault{}
	}
	r.struck = true
	return r.fault
}

// Answered takes what was done for written.
func (r *recorder) Answered(a *host.Ask, status uint32) {
	if status != 0 || !a.Writes {
		return
	}
	r.wrote = true
	switch a.Function {
	case abi.ImportAppend:
		r.lines = append(r.lines, bytes.Clone(a.Data[0]))
	case abi.ImportKVSet:
		r.staged[string(a.Data[0])] = append([]byte{}, a.Data[1]...)
	case abi.ImportKVDel:
		r.staged[string(a.Data[0])] = nil
	}
	if a.Function == abi.ImportKVSet || a.Function == abi.ImportKVDel {
		return // a store has no order
	}
	for _, b := range a.Data {
		eachMark(b, func(id string) { r.order = append(r.order, id) })
	}
}
