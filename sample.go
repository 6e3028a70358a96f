// Package audithost is the root of a module that takes the refusals of a policy
// engine, keeps them through crashes, and lands them in a signed, hash-chained
// ledger through WebAssembly sinks.
//
// The way of an event runs through these packages:
//
//   - abi: what crosses the boundary between host and plugin, with its
//     normative text; abi/guest is the SDK for plugins written in Go
//   - queue: keeps accepted events, a cursor and a drainer for each sink
//   - host: makes a sink of a .wasm file, with limits and granted capabilities
//   - ledger: reads and verifies a ledger; ledger/chain is its format, a leaf that
//     plugins import too
//   - deadletter: the events that no sink took
//   - sign: keys, hashes and signatures
//   - plugins/sink-sqlite, plugins/sink-mock: the bundled plugins
//   - cmd/audit-host: the binary: configuration, ingest, commands
//
// queue, host, ledger and deadletter know nothing of each other and can be used
// without the binary.
// This package itself holds only the sample configuration and the sources of the
// SDK for Go.
package audithost

import _ "embed" // for SampleConfig

// SampleConfig is audit.toml, the configuration that "audit-host init" writes.
// Its comments name every key with its default.
//
//go:embed audit.toml
var SampleConfig []byte
