package queue_test

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/audit-host/audit-host/queue"
)

// memDisk is a disk in memory that forgets, when the power is cut, any part of
// what was not synced: sectors of files, the end of a write, names.
type memDisk struct {
	mu     sync.Mutex
	names  map[string]*inode // as processes see it
	stored map[string]*inode // what is durable
	ops    []nameOp          // not durable yet
	locked bool
}

// nameOp changes names: from goes, if not empty, and to leads to node.
type nameOp struct {
	from, to string
	node     *inode
}

func (op nameOp) apply(names map[string]*inode) {
	if op.from != "" {
		delete(names, op.from)
	}
	if op.to != "" {
		names[op.to] = op.node
	}
}

// inode is a file. memDisk.mu guards it.
type inode struct {
	data, stored []byte
	ops          []dataOp // what makes data of stored
}

// dataOp writes bytes, or sets the size.
type dataOp struct {
	off  int64
	data []byte // nil: set the size to off
}

func (op dataOp) apply(b []byte) []byte {
	size := op.off + int64(len(op.data))
	if op.data == nil && size < int64(len(b)) {
		return b[:size:size]
	}
	if n := size - int64(len(b)); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	copy(b[op.off:], op.data)
	return b
}

func (n *inode) do(op dataOp) {
	n.ops = append(n.ops, op)
	n.data = op.apply(n.data)
}

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*inode{}, stored: map[string]*inode{}}
}

// cutPower loses what is not durable, in one of several ways.
func (d *memDisk) cutPower(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 77))
	mode := rng.IntN(4)
	keep := func() bool { // one operation, or one sector
		return mode == 1 || mode > 1 && rng.IntN(2) == 0
	}
	for _, op := range d.ops {
		if keep() {
			op.apply(d.stored)
		}
	}
	d.ops, d.locked = nil, false
	d.names = maps.Clone(d.stored)
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		n := d.names[name]
		if mode == 3 && len(n.ops) > 0 { // all up to some byte of some write
			i := rng.IntN(len(n.ops))
			for _, op := range n.ops[:i] {
				n.stored = op.apply(n.stored)
			}
			if op := n.ops[i]; len(op.data) > 0 {
				n.stored = dataOp{op.off, op.data[:rng.IntN(len(op.data)+1)]}.apply(n.stored)
			}
		} else {
			for _, op := range n.ops {
				n.stored = tear(op, n.stored, keep)
			}
		}
		n.ops, n.data = nil, slices.Clone(n.stored)
	}
}

// tear applies the sectors of a write that keep wants.
func tear(op dataOp, b []byte, keep func() bool) []byte {
	if op.data == nil {
		if keep() {
			b = op.apply(b)
		}
		return b
	}
	for len(op.data) > 0 {
		n := min(512-int(op.off%512), len(op.data))
		if keep() {
			b = dataOp{op.off, op.data[:n]}.apply(b)
		}
		op = dataOp{op.off + int64(n), op.data[n:]}
	}
	return b
}

func (d *memDisk) files() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string][]byte{}
	for name, n := range d.names {
		out[name] = slices.Clone(n.data)
	}
	return out
}

func (d *memDisk) setFiles(files map[string][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names, d.ops, d.locked = map[string]*inode{}, nil, false
	for name, data := range files {
		d.names[name] = &inode{data: slices.Clone(data), stored: slices.Clone(data)}
	}
	d.stored = maps.Clone(d.names)
}

func (d *memDisk) Path(name string) string { return "/mem/" + name }

func (d *memDisk) Lock() (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked {
		return nil, fmt.Errorf("%w: /mem", queue.ErrBusy)
	}
	d.locked = true
	return memLock{d}, nil
}

type memLock struct{ d *memDisk }

func (l memLock) Close() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.d.locked = false
	return nil
}

func (d *memDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.names)), nil
}

func (d *memDisk) Create(name string) (queue.DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.names[name]; n != nil {
		n.do(dataOp{})
		return &memFile{d, n}, nil
	}
	n := &inode{}
	d.names[name] = n
	d.ops = append(d.ops, nameOp{to: name, node: n})
	return &memFile{d, n}, nil
}

func (d *memDisk) find(op, name string) (*inode, error) {
	if n := d.names[name]; n != nil {
		return n, nil
	}
	return nil, &fs.PathError{Op: op, Path: d.Path(name), Err: fs.ErrNotExist}
}

func (d *memDisk) Open(name string, _ bool) (queue.DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find("open", name)
	if err != nil {
		return nil, err
	}
	return &memFile{d, n}, nil
}

func (d *memDisk) changeNames(op nameOp) {
	op.apply(d.names)
	d.ops = append(d.ops, op)
}

func (d *memDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find("rename", from)
	if err == nil {
		d.changeNames(nameOp{from, to, n})
	}
	return err
}

func (d *memDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.find("remove", name)
	if err == nil {
		d.changeNames(nameOp{from: name})
	}
	return err
}

func (d *memDisk) SyncDir() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range d.ops {
		op.apply(d.stored)
	}
	d.ops = nil
	return nil
}

func (d *memDisk) Same(name string, f queue.DiskFile) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find("stat", name)
	if err == nil && n != f.(*memFile).n {
		err = fmt.Errorf("%s was replaced", name)
	}
	return err
}

// memFile is an open file of a memDisk.
type memFile struct {
	d *memDisk
	n *inode
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.do(dataOp{off, slices.Clone(b)})
	return len(b), nil
}

func (f *memFile) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Allocate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if size > int64(len(f.n.data)) {
		f.n.do(dataOp{off: size})
	}
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.do(dataOp{off: size})
	return nil
}

func (f *memFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	for _, op := range f.n.ops {
		f.n.stored = op.apply(f.n.stored)
	}
	f.n.ops = nil
	return nil
}

// forget is what Linux does when a sync fails: the pages count as clean, so that
// the next sync succeeds without writing them.
func (f *memFile) forget() {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.ops = nil
}

func (f *memFile) Close() error { return nil }
