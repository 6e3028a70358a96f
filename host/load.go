package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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

// errAbandoned is a compilation that is not waited for any longer. The runtime
// is its own then: who started it must not use or close it.
var errAbandoned = errors.New("not waited for: the compiler can't be interrupted")

// compileModule compiles on one goroutine: a panic in one of wazero's workers
// (experimental.WithCompilationWorkers) could not be recovered and would end the
// process, and what is compiled here is a stranger's.
//
// wazero looks at no context meanwhile. So that a stop does not wait for a
// compiler, that goroutine is left alone when ctx ends; it frees what it has when
// it is through, and the end of the process ends it. It is the only one in this
// package that nobody waits for; the meter's limits bound what it may take.
func compileModule(ctx context.Context, r wazero.Runtime, metered []byte, pages uint32) (wazero.CompiledModule, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("compile: %w", context.Cause(ctx))
	}
	type compilation struct {
		c   wazero.CompiledModule
		err error
	}
	done, abandoned := make(chan compilation), make(chan struct{})
	go func() {
		ctx := context.WithoutCancel(ctx)
		var got compilation
		got.err = noPanic("compile the module", func() (err error) {
			got.c, err = r.CompileModule(ctx, metered)
			return err
		})
		select {
		case done <- got:
		case <-abandoned:
			if got.c != nil {
				_ = got.c.Close(ctx)
			}
			_ = r.Close(ctx)
		}
	}()
	select {
	case got := <-done:
		if got.err != nil {
			// The text may hold what a stranger wrote, at any length.
			return nil, fmt.Errorf("compile (memory_limit %d bytes): %s", int64(pages)*wasmPage, firstLines(got.err.Error(), 4))
		}
		return got.c, nil
	case <-ctx.Done():
		close(abandoned)
		return nil, fmt.Errorf("compile: %w: %w", errAbandoned, context.Cause(ctx))
	}
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
