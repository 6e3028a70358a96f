package audithost

import "embed"

// GuestSources holds the sources of packages abi and abi/guest, the SDK for
// plugins in Go, with go.mod, whose version of Go they need, and the text of the
// ABI, abi/README.md. "audit-host plugin new" gives them to a new plugin, so that
// nothing but the binary is needed. Tests are among the sources.
//
//go:embed go.mod abi/README.md abi/*.go abi/guest/*.go
var GuestSources embed.FS
