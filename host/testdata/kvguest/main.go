// Command kvguest is a Go guest for the tests of the kv capability: it keeps
// the number of events by agent, and what each agent did last, and checks what
// it reads back.
package main

import (
	"strconv"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

func main() {}

func init() { guest.Register(sink{}) }

type sink struct{}

func (sink) Open([]byte) guest.Answer { return guest.OK(0) }

func (sink) Deliver(b abi.View) guest.Answer {
	var buf [4]byte // grows by itself
	for i := range b.Len() {
		agent := string(b.At(i).AgentID())
		n := 0
		v, status := guest.KVGet("count/"+agent, buf[:])
		switch status {
		case abi.StatusDone:
			n, _ = strconv.Atoi(string(v))
		case abi.StatusAbsent:
		default:
			return guest.Busy(0, "get: "+status.String())
		}
		if s := guest.KVSet("count/"+agent, []byte(strconv.Itoa(n+1))); s != abi.StatusDone {
			return guest.Busy(0, "set count: "+s.String())
		}
		if s := guest.KVDelete("last/" + agent); n > 0 && s != abi.StatusDone {
			return guest.Busy(0, "delete: "+s.String())
		}
		if s := guest.KVSet("last/"+agent, b.At(i).Payload()); s != abi.StatusDone {
			return guest.Busy(0, "set last: "+s.String())
		}
		v, status = guest.KVGet("last/"+agent, buf[:])
		if status != abi.StatusDone || string(v) != string(b.At(i).Payload()) {
			return guest.Busy(0, "read back: "+status.String())
		}
	}
	return guest.OK(b.Len())
}
