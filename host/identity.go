package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/audit-host/audit-host/abi/manifest"
)

// Identity is what a plugin's file says about itself, read without metering,
// compiling or running it.
type Identity struct {
	// Digest is the SHA-256 of the file in hex, and decides alone; the rest is
	// for a person who wants to know what differs.
	Digest   string
	Manifest manifest.Manifest
	// ABI lists the major versions that it says it speaks.
	ABI []int
	// Imports has "module.name" of each import, sorted.
	Imports []string
}

// Identify reads a plugin's identity. It says nothing about whether the plugin
// fits, see [Inspect].
func Identify(wasm []byte) (Identity, error) {
	sum := sha256.Sum256(wasm)
	id := Identity{Digest: hex.EncodeToString(sum[:])}
	err := noPanic("read the module", func() (err error) {
		if id.Manifest, err = manifest.Read(wasm); err != nil {
			return err
		}
		imports, _, err := readImports(wasm)
		if err != nil {
			return err
		}
		for _, i := range imports {
			id.Imports = append(id.Imports, i.module+"."+i.name)
		}
		slices.Sort(id.Imports)
		id.Imports = slices.Compact(id.Imports)
		id.ABI, err = readVersions(wasm)
		return err
	})
	if err != nil {
		return Identity{}, fmt.Errorf("identify plugin (sha256 %s): %w", id.Digest, err)
	}
	return id, nil
}

const sectionExport = 7

// readVersions finds the version markers among the exports.
func readVersions(wasm []byte) (list []int, err error) {
	err = manifest.Sections(wasm, func(id byte, _ string, b []byte) error {
		if id != sectionExport {
			return nil
		}
		r := importReader{b: b}
		n := r.number()
		for i := uint64(0); i < n && !r.bad; i++ {
			name := r.text()
			r.byte()
			r.number()
			if v, ok := strings.CutPrefix(name, markerPrefix); ok {
				if n, err := strconv.Atoi(v); err == nil {
					list = append(list, n)
				}
			}
		}
		if r.bad {
			return errors.New("malformed export section")
		}
		return nil
	})
	slices.Sort(list)
	return list, err
}
