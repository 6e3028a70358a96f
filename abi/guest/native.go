//go:build !wasip1

package guest

// Outside WebAssembly there is no host: a plugin's code compiles, so that its
// pure parts can be tested, and a call to the host stops the program with the
// reason.
const noHost = "guest: this is a function of the host; build with GOOS=wasip1 GOARCH=wasm -buildmode=c-shared and run it under audit-host"

func hostVerdict(_, _, _, _ uint32)       { panic(noHost) }
func hostLog(_, _, _ uint32)              { panic(noHost) }
func hostMetric(_ uint32, _ uint64)       { panic(noHost) }
func hostSHA256(_, _, _ uint32)           { panic(noHost) }
func hostSQL(_, _, _, _, _ uint32) uint64 { panic(noHost) }

var _ = [...]any{reserve, open, deliver, flush, closeSink}
