package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host/meter"
)

// Inspection is what can be known of a plugin without running it.
type Inspection struct {
	// Size is the file's in bytes, Digest its SHA-256 in hex.
	Size   int    `json:"size"`
	Digest string `json:"sha256"`
	// Fits tells whether a sink could be opened with it if all it asks for
	// were granted; Problem is why not.
	Fits    bool   `json:"fits"`
	Problem string `json:"problem,omitempty"`
	// ABI lists the major versions that the module says it speaks.
	ABI []int `json:"abi"`
	// Manifest is nil if there is none or it can't be read.
	Manifest *manifest.Manifest `json:"manifest,omitempty"`
	// Capabilities lists the grants that its imports need.
	Capabilities []string `json:"capabilities"`
	Imports      []Symbol `json:"imports"`
	Exports      []Symbol `json:"exports"`
	// Start tells of a start section, which is refused.
	Start bool `json:"start_section"`
	// MemoryMin and MemoryMax are of its linear memory in bytes: what it
	// begins with, and what it may grow to under the limit it was inspected
	// with.
	MemoryMin uint64 `json:"memory_min"`
	MemoryMax uint64 `json:"memory_max"`
	// Functions and Charges are what the meter rewrote and wrote, MaxFrame
	// the largest frame it expects on the native stack in bytes.
	Functions int   `json:"functions"`
	Charges   int   `json:"charges"`
	MaxFrame  int64 `json:"max_frame"`
	// MeteredSize is the size after metering in bytes.
	MeteredSize int `json:"metered_size"`
	// Compile is how long compiling took, or reading the code from the cache.
	Compile time.Duration `json:"compile_ns"`
	// Compiled is false when the module was only prepared for the
	// interpreter.
	Compiled bool `json:"compiled"`
}

// Symbol is an import or export.
type Symbol struct {
	// Module is empty for an export.
	Module string `json:"module,omitempty"`
	Name   string `json:"name"`
	// Type is a function's signature, else table, memory or global.
	Type string `json:"type"`
}

// InspectOptions says how a plugin is inspected. The zero value will do.
type InspectOptions struct {
	// Memory is the limit to check against in bytes, DefaultMemory if 0.
	Memory int64
	// Cache is where the compiled code is looked up and kept.
	Cache *Cache
}

// Inspect looks at a plugin without running any of its code. What is wrong
// with it stands in the result; the error is the host's own.
func Inspect(ctx context.Context, wasm []byte, o InspectOptions) (*Inspection, error) {
	sum := sha256.Sum256(wasm)
	in := &Inspection{Size: len(wasm), Digest: hex.EncodeToString(sum[:])}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("inspect plugin: %w", err)
	}
	m, err := readModule(wasm, meter.Options{})
	if m.manifest.Name != "" {
		in.Manifest = &m.manifest
	}
	in.Start, in.MeteredSize = m.start, len(m.metered)
	in.Functions, in.Charges, in.MaxFrame = m.info.Functions, m.info.Charges, m.info.MaxFrame
	// Without a manifest there is still a module to show.
	problems := []error{err}
	if m.metered != nil {
		err, fatal := in.compile(ctx, &m, o)
		if fatal != nil {
			return nil, fmt.Errorf("inspect plugin: %w", fatal)
		}
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		in.Problem = err.Error()
	}
	in.Fits = in.Problem == ""
	return in, nil
}

// compile compiles the module and lists what it holds. The first error is the
// module's, the second the host's.
func (in *Inspection) compile(ctx context.Context, m *module, o InspectOptions) (problem, fatal error) {
	pages := pagesOf(o.Memory)
	r, compiles, err := newRuntime(ctx, runtimeOptions{pages: pages, cache: o.Cache})
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	c, err := compileModule(ctx, r, m.metered, pages)
	if errors.Is(err, errAbandoned) {
		return nil, err
	}
	defer func() { fatal = errors.Join(fatal, r.Close(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err, nil
	}
	defer func() { fatal = errors.Join(fatal, c.Close(context.WithoutCancel(ctx))) }()
	in.Compile, in.Compiled = time.Since(begin), compiles
	in.symbols(m, c)
	granted := map[string]bool{}
	for _, name := range abi.Capabilities() {
		granted[name] = true
	}
	if in.Manifest == nil {
		// Said already; what the manifest would have asked for is not known.
		assumed := *m
		assumed.manifest.Capabilities = in.Capabilities
		m = &assumed
	}
	return check(m, c, granted), nil
}

// symbols fills in imports, exports, versions, capabilities and memory.
func (in *Inspection) symbols(m *module, c wazero.CompiledModule) {
	functions := map[[2]string]string{}
	for _, def := range c.ImportedFunctions() {
		mod, name, _ := def.Import()
		functions[[2]string{mod, name}] = formOf(def)
		if sig, known := importOf(mod, name); known && sig.Capability != "" && !slices.Contains(in.Capabilities, sig.Capability) {
			in.Capabilities = append(in.Capabilities, sig.Capability)
		}
	}
	for _, i := range m.imports {
		typ := i.kind
		if i.kind == "function" {
			typ = functions[[2]string{i.module, i.name}]
		}
		in.Imports = append(in.Imports, Symbol{Module: i.module, Name: i.name, Type: typ})
	}
	exports := c.ExportedFunctions()
	for _, name := range slices.Sorted(maps.Keys(exports)) {
		in.Exports = append(in.Exports, Symbol{Name: name, Type: formOf(exports[name])})
		if v, ok := strings.CutPrefix(name, markerPrefix); ok {
			if n, err := strconv.Atoi(v); err == nil {
				in.ABI = append(in.ABI, n)
			}
		}
	}
	slices.Sort(in.ABI)
	for name, mem := range c.ExportedMemories() {
		in.Exports = append(in.Exports, Symbol{Name: name, Type: "memory"})
		in.memory(mem)
	}
}

func (in *Inspection) memory(mem api.MemoryDefinition) {
	in.MemoryMin = uint64(mem.Min()) * wasmPage
	most, _ := mem.Max()
	in.MemoryMax = uint64(most) * wasmPage
}
