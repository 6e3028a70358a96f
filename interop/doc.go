// Package interop holds tests against real clients of audit-host. It is a
// module of its own so that what they pull in never reaches an importer of the
// main module.
package interop
