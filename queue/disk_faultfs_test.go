package queue_test

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"github.com/audit-host/audit-host/queue"
)

var errDead = errors.New("the process is dead")

// faultFS is one process's view of a disk. It can be killed, it can hang, and it
// can fail at any operation, before or after it took effect.
type faultFS struct {
	queue.DiskFS
	killed chan struct{}

	mu      sync.Mutex
	dead    bool
	handles int
	stalled chan struct{}          // not nil: syncs wait until it is closed
	fault   func(op operation) how // nil: none
	count   map[string]int         // operations by kind
}

// operation is one call.
type operation struct {
	n    int // number of the operation in this process, from 1
	kind string
	name string // of the file
}

// how is how a call fails.
type how struct {
	err   error
	after bool // it took effect
	short int  // a write wrote so many bytes
}

func newFaultFS(d queue.DiskFS) *faultFS {
	return &faultFS{DiskFS: d, killed: make(chan struct{}), count: map[string]int{}}
}

// kill ends the process: nothing it calls has an effect from now on.
func (d *faultFS) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dead {
		d.dead = true
		close(d.killed)
	}
}

func (d *faultFS) stall() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ch := make(chan struct{})
	d.stalled = ch
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.stalled = nil
		close(ch)
	}
}

// setFault decides on every operation from now on.
func (d *faultFS) setFault(f func(operation) how) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

func (d *faultFS) counted(kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count[kind]
}

func (d *faultFS) open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.handles
}

// do runs one operation. effect gets how many bytes a write may write, -1 for
// all.
func (d *faultFS) do(kind, name string, effect func(short int) error) error {
	d.mu.Lock()
	d.count[kind]++
	d.count["all"]++
	stalled := d.stalled
	fault := d.fault
	op := operation{d.count["all"], kind, name}
	d.mu.Unlock()
	if kind == "sync" && stalled != nil {
		select {
		case <-stalled:
		case <-d.killed:
		}
	}
	var h how
	if fault != nil {
		h = fault(op)
	}
	d.mu.Lock()
	dead := d.dead
	d.mu.Unlock()
	switch {
	case dead:
		return errDead
	case h.err == nil:
		return effect(-1)
	case h.after:
		return errors.Join(h.err, effect(-1))
	case h.short > 0:
		return errors.Join(h.err, effect(h.short))
	}
	return h.err
}

func (d *faultFS) opened(f queue.DiskFile, name string) queue.DiskFile {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handles++
	return &faultFile{DiskFile: f, d: d, name: name}
}

func (d *faultFS) Lock() (l io.Closer, err error) {
	err = d.do("lock", "LOCK", func(int) (err error) {
		l, err = d.DiskFS.Lock()
		return err
	})
	if err != nil {
		return nil, errors.Join(err, closeIf(l))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handles++
	return &faultLock{l, d}, nil
}

// closeIf closes what an operation opened that then was made to fail.
func closeIf(c io.Closer) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

type faultLock struct {
	io.Closer
	d *faultFS
}

func (l *faultLock) Close() error {
	l.d.mu.Lock()
	l.d.handles--
	l.d.mu.Unlock()
	return l.Closer.Close() // the system does it for a dead process
}

func (d *faultFS) List() (names []string, err error) {
	err = d.do("list", "", func(int) (err error) {
		names, err = d.DiskFS.List()
		return err
	})
	return names, err
}

func (d *faultFS) Create(name string) (queue.DiskFile, error) {
	return d.file("create", name, func() (queue.DiskFile, error) { return d.DiskFS.Create(name) })
}

func (d *faultFS) Open(name string, write bool) (queue.DiskFile, error) {
	return d.file("open", name, func() (queue.DiskFile, error) { return d.DiskFS.Open(name, write) })
}

func (d *faultFS) file(kind, name string, open func() (queue.DiskFile, error)) (f queue.DiskFile, err error) {
	err = d.do(kind, name, func(int) (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	return d.opened(f, name), nil
}

func (d *faultFS) Rename(from, to string) error {
	return d.do("rename", to, func(int) error { return d.DiskFS.Rename(from, to) })
}

func (d *faultFS) Remove(name string) error {
	return d.do("remove", name, func(int) error { return d.DiskFS.Remove(name) })
}

func (d *faultFS) SyncDir() error {
	return d.do("syncdir", "", func(int) error { return d.DiskFS.SyncDir() })
}

func (d *faultFS) Same(name string, f queue.DiskFile) error {
	return d.do("same", name, func(int) error { return d.DiskFS.Same(name, f.(*faultFile).DiskFile) })
}

// faultFile is an open file of a faultFS.
type faultFile struct {
	queue.DiskFile
	d      *faultFS
	name   string
	closed bool
}

func (f *faultFile) ReadAt(b []byte, off int64) (n int, err error) {
	err = f.d.do("read", f.name, func(int) (err error) {
		n, err = f.DiskFile.ReadAt(b, off)
		return err
	})
	return n, err
}

func (f *faultFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.d.do("write", f.name, func(short int) (err error) {
		if short >= 0 {
			b = b[:min(short, len(b))]
		}
		n, err = f.DiskFile.WriteAt(b, off)
		return err
	})
	return n, err
}

func (f *faultFile) Size() (n int64, err error) {
	err = f.d.do("size", f.name, func(int) (err error) {
		n, err = f.DiskFile.Size()
		return err
	})
	return n, err
}

func (f *faultFile) Allocate(size int64) error {
	return f.d.do("allocate", f.name, func(int) error { return f.DiskFile.Allocate(size) })
}

func (f *faultFile) Truncate(size int64) error {
	return f.d.do("truncate", f.name, func(int) error { return f.DiskFile.Truncate(size) })
}

func (f *faultFile) Sync() error {
	done := false
	err := f.d.do("sync", f.name, func(int) error {
		done = true
		return f.DiskFile.Sync()
	})
	if m, ok := f.DiskFile.(*memFile); ok && !done && err != nil && !errors.Is(err, errDead) {
		m.forget()
	}
	return err
}

// Close closes in any case: an error of close(2) leaves the descriptor closed.
func (f *faultFile) Close() error {
	f.d.mu.Lock()
	if f.closed {
		f.d.mu.Unlock()
		return errors.New("closed twice: " + f.name)
	}
	f.closed = true
	f.d.handles--
	f.d.mu.Unlock()
	err := f.d.do("close", f.name, func(int) error { return nil })
	return errors.Join(err, f.DiskFile.Close())
}

// failSync makes every sync fail until heal is called.
func (d *faultFS) failSync() (heal func()) {
	d.setFault(func(op operation) how {
		if op.kind == "sync" {
			return how{err: syscall.EIO}
		}
		return how{}
	})
	return func() { d.setFault(nil) }
}
