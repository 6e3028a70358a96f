package sqlite

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/tetratelabs/wazero/api"

	"github.com/audit-host/audit-host/host/meter"
)

// The progress handler looks between two instructions of SQLite's virtual
// machine. One instruction can take hours: instr over two texts of some
// megabytes is one. So SQLite's module is metered like any guest's: it lets
// Go's collector run beside it, and can be stopped from another goroutine. A
// stop costs the connection, so it comes only some time after the progress
// handler should have ended the statement.

// grace is how long the progress handler has before the engine is
// stopped.
const grace = 500 * time.Millisecond

// stackSize is the native stack that one connection may use, in bytes.
const stackSize = 16 << 20

// metered rewrites the binding's module, before anything is opened.
func metered(module []byte) ([]byte, error) {
	// No fuel limit: what SQL may take is a time.
	wasm, _, err := meter.Rewrite(module, meter.Options{Fuel: 1 << 62, Stack: stackSize})
	if err != nil {
		return nil, fmt.Errorf("meter SQLite: %w", err)
	}
	return wasm, nil
}

// bindMeter finds the meter of a connection's instance. The binding has no
// way to reach the instance, so it is taken from where its pinned version
// keeps it.
func (c *Conn) bindMeter() error {
	if s := reflect.ValueOf(c.DB).Elem().FieldByName("sqlite"); s.IsValid() && s.Kind() == reflect.Pointer {
		if m := s.Elem().FieldByName("mod"); m.IsValid() && m.Type() == reflect.TypeFor[api.Module]() {
			c.mod = *(*api.Module)(unsafe.Pointer(m.UnsafeAddr()))
		}
	}
	if c.mod == nil {
		return errors.New("meter SQLite: this version of its binding keeps the module elsewhere")
	}
	var err error
	c.gauge, err = meter.Bind(func(name string) meter.Global {
		g, ok := c.mod.ExportedGlobal(name).(api.MutableGlobal)
		if !ok {
			return nil
		}
		return g
	})
	return err
}

// guarded runs f and stops the engine if f has not ended some time after ctx.
// A commit that has begun is not stopped: it ends by itself, and its outcome
// would be unknown.
func (c *Conn) guarded(ctx context.Context, f func() error) error {
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Add(1)
	stopped := false
	cancel := context.AfterFunc(ctx, func() {
		defer watch.Done()
		grace := time.NewTimer(grace)
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
			if !c.committing.Load() {
				stopped = true
				c.gauge.Stop()
			}
		}
	})
	err := c.Protect(f)
	close(ended)
	if cancel() {
		watch.Done()
	}
	watch.Wait()
	if stopped {
		c.broken = true
		return &Error{Text: "the engine was stopped in the middle of an instruction", stopped: true}
	}
	return err
}
