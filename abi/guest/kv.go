package guest

import (
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// KVGet returns the value of a key from the sink's small store, with
// abi.StatusAbsent if there is none. It is written into buf, or into a larger
// buffer if it does not fit. What the running call has set is seen. It needs
// the capability "kv", as do [KVSet] and [KVDelete].
func KVGet(key string, buf []byte) ([]byte, abi.Status) {
	for {
		status, n := abi.SplitStatus(hostKVGet(key, unsafe.Pointer(unsafe.SliceData(buf)), uint32(len(buf))))
		if status == abi.StatusTooLarge && n > uint32(len(buf)) {
			buf = make([]byte, n)
			continue
		}
		if status != abi.StatusDone {
			return nil, status
		}
		return buf[:min(n, uint32(len(buf)))], status
	}
}

// KVSet sets a key. It is kept if the running call ends in OK or PARTIAL, all
// changes of the call together; else it is as if it had never been. The host
// remembers with them which events they belong to, so that an event whose
// changes are kept is never delivered again.
func KVSet(key string, value []byte) abi.Status {
	status, _ := abi.SplitStatus(hostKVSet(key, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value))))
	return status
}

// KVDelete removes a key, with abi.StatusAbsent if there is none.
func KVDelete(key string) abi.Status {
	status, _ := abi.SplitStatus(hostKVDelete(key))
	return status
}
