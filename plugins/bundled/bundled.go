// Package bundled holds the plugins that come with audit-host, built and with
// their manifests.
//
// "make plugins" builds them into this folder, and the compiler embeds what it
// finds there. They are not in version control, nor in the module that the Go
// proxy serves: a program that was built without them compiles, and [Read]
// then says what to do.
//
// A program that embeds queue and host builds the plugin it wants from the
// module cache, with nothing but Go, and embeds the file itself:
//
//	p=github.com/audit-host/audit-host
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w" -o sink-sqlite.wasm $p/plugins/sink-sqlite
//	go run $p/abi/cmd/add-manifest "$(go list -f '{{.Dir}}' $p/plugins/sink-sqlite)/manifest.json" sink-sqlite.wasm
//
// Guarantee: the files depend on the sources and the version of Go alone, byte
// for byte, and not on where they were built. Not guaranteed: that those from
// a checkout equal those from the module cache, which name their sources with
// the module's version.
package bundled

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// The pattern has to match something in a fresh clone too: a note stands there.
//
//go:embed *.wasm*
var files embed.FS

const suffix = ".wasm"

// ErrNotBuilt is wrapped by the error of [Read] for a bundled plugin that was
// not there when the program was built.
var ErrNotBuilt = errors.New("not in this program: run \"make plugins\" in a checkout of audit-host and build again, " +
	"or build the plugin as the documentation of package plugins/bundled shows and give its file")

// Names lists the plugins that come with audit-host, built or not.
func Names() []string { return []string{"sink-file", "sink-http", "sink-mock", "sink-sqlite"} }

// Read returns a bundled plugin, a WebAssembly module. The error for a name
// that is not among [Names] wraps fs.ErrNotExist, that for a plugin that was
// not built [ErrNotBuilt].
func Read(name string) ([]byte, error) {
	for _, n := range Names() {
		if n != name {
			continue
		}
		wasm, err := files.ReadFile(name + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotBuilt
		}
		if err != nil {
			return nil, fmt.Errorf("read bundled plugin %s: %w", name, err)
		}
		return wasm, nil
	}
	return nil, fmt.Errorf("read bundled plugin %q: %w; there are %s", name, fs.ErrNotExist, strings.Join(Names(), ", "))
}
