// Command goguest is a plugin-sized Go guest for the tests of package meter.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"runtime"
	"sort"
)

type event struct {
	ID       string            `json:"id"`
	Agent    string            `json:"agent_id"`
	Action   map[string]any    `json:"action"`
	Decision map[string]string `json:"decision"`
	Path     []string          `json:"path"`
	Attempt  int               `json:"attempt"`
}

const text = `{"id":"00000000-0000-4000-8000-000000000001","agent_id":"agent:alice",
"action":{"kind":"network_request","host":"example.org","scheme":"https","bytes":[1,2.5,-3e4,null,true]},
"decision":{"decision":"refuse","rule_id":"R001","reason":"memory_write \u00e9"},"path":["a","b","c"],"attempt":7}`

// decode reads the same JSON n times and gives a checksum.
//
//go:wasmexport decode
func decode(n int32) int64 {
	var sum int64
	for range n {
		var e event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return -1
		}
		keys := make([]string, 0, 8)
		for k := range e.Action {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			sum = sum*31 + int64(len(k))
		}
		sum += int64(e.Attempt + len(e.Path) + len(e.Decision["reason"]))
	}
	runtime.Gosched()
	return sum
}

// digest hashes n blocks of 430 bytes in a chain.
//
//go:wasmexport digest
func digest(n int32) int64 {
	buf := make([]byte, 430)
	for range n {
		h := sha256.Sum256(buf)
		copy(buf, h[:])
	}
	return int64(binary.LittleEndian.Uint64(buf))
}

// deep recurses without a loop.
//
//go:wasmexport deep
func deep(n int32) int32 {
	if n <= 0 {
		return 0
	}
	return deep(n-1) + 1
}

// nest decodes n nested arrays, a legitimate deep recursion.
//
//go:wasmexport nest
func nest(n int32) int32 {
	b := make([]byte, 0, 2*n)
	for range n {
		b = append(b, '[')
	}
	for range n {
		b = append(b, ']')
	}
	var v any
	if json.Unmarshal(b, &v) != nil {
		return -1
	}
	return n
}

//go:wasmexport spin
func spin() {
	for {
	}
}

func main() {}
