package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/abi/manifest"
	"github.com/audit-host/audit-host/host/meter"
)

// module is a plugin's file after everything that can be known without
// compiling it: nothing in it has been run.
type module struct {
	manifest manifest.Manifest
	digest   string // SHA-256 of the file in hex
	imports  []importEntry
	start    bool // it has a start section
	metered  []byte
	info     meter.Info
}

// readModule checks the file's form and meters it. Metering comes first: it
// has checked every count in the module by the time anything else looks at it.
func readModule(wasm []byte, o meter.Options) (module, error) {
	sum := sha256.Sum256(wasm)
	m := module{digest: hex.EncodeToString(sum[:])}
	err := noPanic("read the module", func() (err error) {
		if m.metered, m.info, err = meter.Rewrite(wasm, o); err != nil {
			return overLimit(err)
		}
		if m.imports, m.start, err = readImports(wasm); err != nil {
			return err
		}
		m.manifest, err = manifest.Read(wasm)
		return err
	})
	return m, err
}

// runtimeOptions is what newRuntime needs of Options.
type runtimeOptions struct {
	pages       uint32 // most linear memory, in pages of 64 KiB
	cache       *Cache
	interpreter bool
}

// newRuntime makes a runtime and tells whether it compiles: wazero falls back
// to its interpreter without a word where executable memory is forbidden.
func newRuntime(ctx context.Context, o runtimeOptions) (r wazero.Runtime, compiles bool, err error) {
	cfg := wazero.NewRuntimeConfig()
	if o.interpreter {
		cfg = wazero.NewRuntimeConfigInterpreter()
	}
	cfg = cfg.WithMemoryLimitPages(o.pages).WithCoreFeatures(api.CoreFeaturesV2)
	if o.cache != nil {
		cfg = cfg.WithCompilationCache(o.cache.cache)
	}
	err = noPanic("start the WebAssembly runtime", func() error {
		r = wazero.NewRuntimeWithConfig(ctx, cfg)
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return r, engineOf(r) != "*interpreter.engine", nil
}

// engineOf names the type of a runtime's engine, "" if wazero's fields are
// called something else by now. Its API does not tell.
func engineOf(r wazero.Runtime) string {
	v := reflect.ValueOf(r)
	for _, field := range [...]string{"store", "Engine"} {
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			return ""
		}
		if v = v.Elem().FieldByName(field); !v.IsValid() {
			return ""
		}
		if v.Kind() == reflect.Interface {
			v = v.Elem()
		}
	}
	return v.Type().String()
}

// warnInterpreter tells the operator why a plugin is slow.
func warnInterpreter(log *slog.Logger, sink string) {
	log.Warn("plugin runs in the interpreter, ten to a hundred times slower: this system allows no executable memory (systemd: MemoryDenyWriteExecute=no) or has no compiler for its processor", "sink", sink)
}

// compileModule compiles on this goroutine alone: a panic in one of wazero's
// workers (experimental.WithCompilationWorkers) could not be recovered and
// would end the process, and what is compiled here is a stranger's.
func compileModule(ctx context.Context, r wazero.Runtime, metered []byte, pages uint32) (c wazero.CompiledModule, err error) {
	err = noPanic("compile the module", func() (err error) {
		c, err = r.CompileModule(ctx, metered)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("compile (memory_limit %d bytes): %w", int64(pages)*wasmPage, err)
	}
	return c, nil
}

// noPanic makes an error of a panic in code that works on a stranger's bytes.
func noPanic(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %s", what, firstLines(fmt.Sprint(p), 3))
		}
	}()
	return f()
}
