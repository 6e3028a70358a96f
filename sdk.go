package audithost

import "embed"

// GuestSources holds the sources of packages abi and abi/guest, the SDK for
// plugins in Go, with go.mod, whose version of Go they need. "audit-host plugin
// new" gives them to a new plugin, so that it builds without a network. Tests are
// among them.
//
//go:embed go.mod abi/*.go abi/guest/*.go
var GuestSources embed.FS
