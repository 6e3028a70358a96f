// Package sdk builds the examples of all SDKs with their compilers and runs them
// in the real host. It is a module of its own because a fresh clone of the main
// one is tested with nothing but Go and make.
//
// The compilers are those that the build scripts look for: clang and lld, rustc
// with the target wasm32-unknown-unknown, asc, zig. RUSTC, ASC and ZIG name
// others. A missing one fails the tests of its language.
package sdk
