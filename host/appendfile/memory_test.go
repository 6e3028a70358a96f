package appendfile

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// inode is a file of a memory volume: what a reader sees, and what a power cut
// surely leaves.
type inode struct {
	data, durable []byte
}

// memory is a volume that can lose power. Names that were made or taken since
// the folder's last Sync survive in the order in which they came, up to some
// point; of a file survives what was synced and some of what came after.
type memory struct {
	names map[string]*inode
	// past are the states of the folder since its last Sync, the durable one
	// first.
	past   []map[string]*inode
	locked bool
}

func newMemory() *memory {
	return &memory{names: map[string]*inode{}, past: []map[string]*inode{{}}}
}

type memoryInfo struct {
	name string
	node *inode
	size int64
}

func (i memoryInfo) Name() string       { return i.name }
func (i memoryInfo) Size() int64        { return i.size }
func (i memoryInfo) Mode() fs.FileMode  { return 0o600 }
func (i memoryInfo) ModTime() time.Time { return time.Time{} }
func (i memoryInfo) IsDir() bool        { return false }
func (i memoryInfo) Sys() any           { return nil }

func (m *memory) Lstat(name string) (fs.FileInfo, error) {
	n, ok := m.names[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return memoryInfo{name, n, int64(len(n.data))}, nil
}

func (m *memory) Same(a, b fs.FileInfo) bool {
	return a.(memoryInfo).node == b.(memoryInfo).node
}

func (m *memory) changed() { m.past = append(m.past, maps.Clone(m.names)) }

func (m *memory) Create(name string) (handle, error) {
	if m.names[name] != nil {
		return nil, fs.ErrExist
	}
	m.names[name] = &inode{}
	m.changed()
	return m.Open(name)
}

func (m *memory) Open(name string) (handle, error) {
	n, ok := m.names[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &memoryHandle{name, n}, nil
}

func (m *memory) Cut(name string, info fs.FileInfo, size int64) error {
	n := m.names[name]
	if n == nil || n != info.(memoryInfo).node {
		return errors.New("cut of another file")
	}
	if size > int64(len(n.data)) {
		return errors.New("cut makes the file longer")
	}
	n.data = n.data[:size:size]
	return nil
}

func (m *memory) Rename(from, to string) error {
	if m.names[from] == nil || m.names[to] != nil {
		return errors.New("rename of nothing or over a file")
	}
	m.names[to] = m.names[from]
	delete(m.names, from)
	m.changed()
	return nil
}

func (m *memory) Remove(name string) error {
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(m.names, name)
	m.changed()
	return nil
}

func (m *memory) Names() ([]string, error) { return slices.Collect(maps.Keys(m.names)), nil }
func (m *memory) Sync() error {
	m.past = []map[string]*inode{maps.Clone(m.names)}
	return nil
}
func (m *memory) Moved() (bool, error) { return false, nil }
func (m *memory) Lock(string) error {
	if m.locked {
		return ErrLocked
	}
	m.locked = true
	return nil
}
func (m *memory) Close() error { m.locked = false; return nil }

// cutPower returns what the next start finds.
func (m *memory) cutPower(r *rand.Rand) *memory {
	names := maps.Clone(m.past[r.IntN(len(m.past))])
	for name, n := range names {
		// The synced bytes, or what a later cut left of them, and of the rest
		// a beginning.
		base := n.durable
		if len(n.data) < len(base) && r.IntN(2) == 0 {
			base = n.data
		}
		data := slices.Clone(base)
		if len(n.data) > len(base) {
			more := n.data[len(base):]
			data = append(data, more[:r.IntN(len(more)+1)]...)
		}
		names[name] = &inode{data: data, durable: slices.Clone(data)}
	}
	return &memory{names: names, past: []map[string]*inode{maps.Clone(names)}}
}

type memoryHandle struct {
	name string
	node *inode
}

func (h *memoryHandle) Write(p []byte) (int, error) {
	h.node.data = append(h.node.data, p...)
	return len(p), nil
}

func (h *memoryHandle) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(h.node.data)) {
		return 0, io.EOF
	}
	return copy(p, h.node.data[off:]), nil
}

func (h *memoryHandle) Sync() error {
	h.node.durable = slices.Clone(h.node.data)
	return nil
}

func (h *memoryHandle) Stat() (fs.FileInfo, error) {
	return memoryInfo{h.name, h.node, int64(len(h.node.data))}, nil
}
func (h *memoryHandle) Close() error { return nil }
