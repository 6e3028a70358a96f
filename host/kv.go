package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/internal/sqlite"
)

// Defaults of [KVGrant].
const (
	DefaultKVKeys  = 1024
	DefaultKVBytes = 1 << 20
)

// kvTimeLimit bounds reading or committing the store. Nobody else writes to it.
const kvTimeLimit = 10 * time.Second

// KVGrant is the kv capability: a small store that belongs to one sink.
type KVGrant struct {
	// Path is the store's file, a SQLite database; it is made if missing.
	Path string
	// MaxKeys bounds the number of keys, MaxBytes the sum of keys and values.
	MaxKeys  int
	MaxBytes int64
}

// kvStore is a sink's small store. All of it is in memory, so that reading
// costs no database; what a call changes is staged, and kept or dropped with
// the call's outcome.
//
// It is tied to the queue's cursor by position, since the two are files of
// their own and one is always written before the other: with every change the
// transaction holds which events it belongs to, as spans of positions in the
// queue of that id. An event of these is stored, and is not delivered again
// when a crash has kept the cursor back. So a guest that counts events, say,
// counts each of them once.
//
// Changes and positions come from one transaction, so they are there both or
// not at all. Events whose batch changed nothing are noted in memory and go
// into the next transaction: if they come again before it, they meet the store
// as it was when they came first; if behind it, they are not delivered. A
// position is only noted with OK for its event.
//
// Not guaranteed: this for the replay of a dead letter, which has no position
// (0, in the queue of id 0). If it is cut short it may come again although its
// changes were kept; the guest knows the event by its id.
type kvStore struct {
	grant KVGrant
	file  sqlite.File
	// loaded tells that what follows is what the file holds. It is false after
	// a fault: whether the transaction was committed is then read, not guessed.
	loaded  bool
	values  map[string][]byte
	queue   [16]byte
	covered spans

	staged map[string][]byte // nil for a key that is removed
	// keys and size are what there would be with what is staged.
	keys int
	size int64
}

func newKVStore(g KVGrant, cache *Cache) *kvStore {
	if g.MaxKeys <= 0 {
		g.MaxKeys = DefaultKVKeys
	}
	if g.MaxBytes <= 0 {
		g.MaxBytes = DefaultKVBytes
	}
	_ = StartSQLite(cache) // an error is returned by the first load
	k := &kvStore{grant: g, staged: map[string][]byte{}}
	k.file = sqlite.File{Path: g.Path, Create: true, Opened: func(c *sqlite.Conn) error {
		return c.Exec(`CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
			CREATE TABLE IF NOT EXISTS covered (only INTEGER PRIMARY KEY CHECK (only = 1), queue BLOB NOT NULL, spans BLOB NOT NULL)`)
	}}
	return k
}

// load reads the store unless it is in memory.
func (k *kvStore) load(ctx context.Context) error {
	if k.loaded {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, kvTimeLimit)
	defer cancel()
	var values map[string][]byte
	var queue [16]byte
	var covered spans
	err := k.file.Transact(ctx, false, func(c *sqlite.Conn) error {
		values = map[string][]byte{}
		if err := c.Each("SELECT key, value FROM kv", nil, func(s *sqlite.Stmt) error {
			values[s.Text(0)] = s.Bytes(1)
			return nil
		}); err != nil {
			return err
		}
		return c.Each("SELECT queue, spans FROM covered", nil, func(s *sqlite.Stmt) (err error) {
			copy(queue[:], s.Bytes(0))
			covered, err = decodeSpans(s.Bytes(1))
			return err
		})
	})
	if e := (*sqlite.Error)(nil); errors.Is(err, errSpans) || errors.As(err, &e) && e.Corrupt() {
		return fmt.Errorf("read %s: %w; put a sound copy back, or move it away to begin with an empty store", k.grant.Path, err)
	} else if err != nil {
		return fmt.Errorf("read %s: %w", k.grant.Path, err)
	}
	k.values, k.queue, k.covered, k.loaded = values, queue, covered, true
	k.drop()
	return nil
}

// drop forgets what is staged.
func (k *kvStore) drop() {
	clear(k.staged)
	k.keys, k.size = len(k.values), 0
	for key, v := range k.values {
		k.size += int64(len(key) + len(v))
	}
}

func (k *kvStore) get(key string) ([]byte, bool) {
	if v, ok := k.staged[key]; ok {
		return v, v != nil
	}
	v, ok := k.values[key]
	return v, ok
}

// set stages a change; a nil value removes. What is staged are the keys that the
// grant allows, and removals of keys that the store has: a key that came and went
// within the call leaves nothing. So a call makes the host hold no more than the
// grant, beside the store, and can still turn any store into any other.
func (k *kvStore) set(key string, value []byte) abi.Status {
	old, there := k.get(key)
	keys, size := k.keys, k.size
	if there {
		keys, size = keys-1, size-int64(len(key)+len(old))
	}
	if value != nil {
		keys, size = keys+1, size+int64(len(key)+len(value))
		// What makes the store smaller is welcome even if it was larger once.
		if (keys > k.grant.MaxKeys || size > k.grant.MaxBytes) && (keys > k.keys || size > k.size) {
			return abi.StatusTooLarge
		}
	} else if !there {
		return abi.StatusAbsent
	}
	k.keys, k.size = keys, size
	if _, stored := k.values[key]; value == nil && !stored {
		delete(k.staged, key)
	} else {
		k.staged[key] = value
	}
	return abi.StatusDone
}

// uncovered returns the events of a batch that the store does not cover, as a
// batch of the same id, with their indices; the batch itself if it covers none.
func (k *kvStore) uncovered(b *abi.Batch) (*abi.Batch, []int) {
	if b.Queue != k.queue || !slices.ContainsFunc(b.Events, func(e abi.Event) bool { return k.covered.has(e.Seq) }) {
		return b, nil
	}
	part := &abi.Batch{ID: b.ID, Attempt: b.Attempt, Queue: b.Queue}
	var at []int
	for i := range b.Events {
		if !k.covered.has(b.Events[i].Seq) {
			part.Events, at = append(part.Events, b.Events[i]), append(at, i)
		}
	}
	return part, at
}

// commit keeps what is staged, together with the positions of the batch's
// events that are stored: those with the verdict OK, or all if there are none.
// b is nil for a call that was no delivery.
func (k *kvStore) commit(ctx context.Context, b *abi.Batch, verdicts []abi.Verdict) error {
	queue, covered := k.queue, slices.Clone(k.covered)
	if b != nil && b.Queue != ([16]byte{}) {
		if b.Queue != queue {
			queue, covered = b.Queue, nil
		}
		for i := range b.Events {
			if verdicts == nil || verdicts[i].Code == abi.OK {
				covered.add(b.Events[i].Seq)
			}
		}
	}
	if len(k.staged) == 0 {
		k.queue, k.covered = queue, covered
		return nil
	}
	// Until it is known what the file holds nothing is: if the engine fails in
	// its COMMIT, the next load tells.
	k.loaded = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), kvTimeLimit)
	defer cancel()
	none := func(*sqlite.Stmt) error { return nil }
	err := k.file.Transact(ctx, true, func(c *sqlite.Conn) error {
		for _, key := range slices.Sorted(maps.Keys(k.staged)) {
			var err error
			if v := k.staged[key]; v == nil {
				err = c.Each("DELETE FROM kv WHERE key = ?", []any{[]byte(key)}, none)
			} else {
				err = c.Each("INSERT OR REPLACE INTO kv VALUES (?, ?)", []any{[]byte(key), v}, none)
			}
			if err != nil {
				return err
			}
		}
		return c.Each("INSERT OR REPLACE INTO covered VALUES (1, ?, ?)", []any{queue[:], covered.encode()}, none)
	})
	if err != nil {
		clear(k.staged)
		return fmt.Errorf("commit kv store %s: %w", k.grant.Path, err)
	}
	for key, v := range k.staged {
		if v == nil {
			delete(k.values, key)
		} else {
			k.values[key] = v
		}
	}
	k.queue, k.covered, k.loaded = queue, covered, true
	clear(k.staged)
	return nil
}
