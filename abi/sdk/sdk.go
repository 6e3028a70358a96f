// Package sdk holds the SDKs for sinks in other languages than Go, each with an
// example, as files, so that the one binary can write them out.
//
// Guarantee: the names and numbers in them are those of package abi; gen writes
// them and its test compares. Not guaranteed: that they compile; that is what
// the nested module interop/sdk tests, which has the compilers.
package sdk

import (
	"embed"
	"io/fs"
)

//go:generate go run ./gen .

// The patterns name what belongs to an SDK, so that what a build leaves beside
// it stays out of the binary.
//
//go:embed c/README.md c/*.h c/example*/*.c c/example*/*.json c/example*/build.sh
//go:embed rust/README.md rust/Cargo.toml rust/src/*.rs rust/example*/*.rs rust/example*/*.json rust/example*/build.sh
//go:embed as/README.md as/package.json as/*.ts as/example*/*.ts as/example*/*.json as/example*/build.sh
//go:embed zig/README.md zig/*.zig zig/example*/*.zig zig/example*/*.json zig/example*/build.sh
var files embed.FS

// Languages lists the folders of [Files].
func Languages() []string { return []string{"c", "rust", "as", "zig"} }

// Files has a folder for each of [Languages]. In it lie the SDK's files, a
// README.md, and a folder example with a sink, its manifest and a script that
// builds it. The script looks for the SDK in the folder audit-host-sdk beside
// it, or where the variable SDK says.
func Files() fs.FS { return files }
