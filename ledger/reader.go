package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/audit-host/audit-host/internal/durable"
	"github.com/audit-host/audit-host/internal/sqlite"
	"github.com/audit-host/audit-host/ledger/chain"
)

// Create makes an empty ledger in a new file, mode 0600. It refuses a
// file that exists, and takes away what it made if it fails.
func Create(path string) error {
	if err := sqlite.CreateEmpty(path); err != nil {
		return fmt.Errorf("create ledger: %w", err)
	}
	f := sqlite.File{Path: path, Options: sqlite.Options{Busy: 5 * time.Second}}
	err := f.Transact(context.Background(), true, func(c *sqlite.Conn) error {
		for _, sql := range chain.Schema {
			if err := c.Exec(sql); err != nil {
				return err
			}
		}
		return nil
	})
	err = errors.Join(err, f.Close())
	if err == nil {
		err = durable.SyncDir(filepath.Dir(path))
	}
	if err == nil {
		return nil
	}
	for _, name := range []string{path + "-wal", path + "-shm", path} {
		if e := os.Remove(name); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return fmt.Errorf("create ledger %s: %w", path, err)
}

// MakeDurable has what the database at path shows on disk: it opens it as a sink
// would, which writes its log to disk once more, writes the log back and closes it.
// It is for whoever is about to rely on what a [Ledger] says of itself that it is
// not known to be on disk. It waits 5 s for a lock of others.
func MakeDurable(ctx context.Context, path string) error {
	f := sqlite.File{Path: path, Options: sqlite.Options{Busy: 5 * time.Second}}
	if err := errors.Join(f.Connect(ctx), f.Close()); err != nil {
		return fmt.Errorf("make what %s shows durable: %w", path, err)
	}
	return nil
}

// ErrNoRow is returned by [Reader.Lookup] for an id that is not in the ledger.
var ErrNoRow = errors.New("no such row")

// FormatError is a file that is no ledger of this version, or one whose schema
// was changed.
type FormatError struct {
	Path, Reason string
	// Changed tells that it is a ledger, with a schema by which its rows may read
	// otherwise than they are stored, or may not be kept as they are given.
	Changed bool
}

// Error names the file, what differs and, if Changed, how to mend it.
func (e *FormatError) Error() string {
	if e.Changed {
		return fmt.Sprintf("the schema of the ledger %s was changed, by which its rows may read otherwise than they are stored: %s", e.Path, e.Reason)
	}
	return fmt.Sprintf("%s is not a ledger: %s", e.Path, e.Reason)
}

// RowError is a row that can't be read as one: a column of another type, or a
// damaged page. It is a break of the ledger and no fault of the reader.
type RowError struct {
	// Sequence is the row's, or that of the first row which is not readable.
	Sequence uint64
	Reason   string
}

// Error names the row and what is wrong with it.
func (e *RowError) Error() string { return fmt.Sprintf("row %d: %s", e.Sequence, e.Reason) }

// Reader reads a ledger file and never writes: neither the file nor, where
// nobody else has it open, one beside it. It is used by one goroutine at a
// time. Every method sees one state of the ledger, and all see the same one:
// that of the moment it was opened, or of the last [Reader.Renew]. As long as it
// is open, a writer's log can't be emptied and grows, except after [Reader.Rest].
//
// The schema is compared with the ledger's own before anything else is read, and
// again when it was changed: SQLite plans its statements by it. Rows then come
// from the table's own b-tree and from no index, whatever a planner would prefer.
type Reader struct {
	path string
	r    *sqlite.Reader
	find *sqlite.Stmt // of Lookup, once it was needed
	page *sqlite.Stmt // of Page

	version          string // of the schema that was checked
	foreign, allowed []string
}

// Open opens a ledger for reading, beside a process that writes it or
// without one, in a folder that permits writing or not. Rows that were
// committed and lie in the log beside the file are read; if the log can't be
// read at all, the ledger is not opened, and what of it is damaged
// Reader.notRead tells. An error that wraps *[FormatError] says that
// the file is no ledger.
func Open(path string) (*Reader, error) {
	ctx := context.Background()
	r, err := sqlite.OpenReader(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Reader{path: path, r: r}
	if err := r.Do(ctx, l.check); err != nil {
		return nil, fmt.Errorf("open ledger: %w", errors.Join(err, r.Close()))
	}
	return l, nil
}

// another opens a second reader of the same ledger, for another goroutine. It
// fails if the file is another one by now or, without a writer, was written; a
// writer may have appended rows in between.
func (l *Reader) another() (*Reader, error) {
	o, err := Open(l.path)
	if err != nil {
		return nil, err
	}
	if !l.r.SameFile(o.r) {
		err := fmt.Errorf("open ledger: %s was written or replaced while it was opened; open it again", l.path)
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

const selectRows = "SELECT " + chain.Columns + " FROM " + chain.Table + " NOT INDEXED"

// Rows returns all rows in the order of their sequences, in constant memory. A
// row is valid until the next one. The last pair has an error if the rows did
// not all come: a *[RowError] if the ledger is to blame.
func (l *Reader) Rows(ctx context.Context) iter.Seq2[*chain.Row, error] {
	return func(yield func(*chain.Row, error) bool) {
		stopped := errors.New("stopped")
		last := uint64(0)
		err := l.r.Do(ctx, func(c *sqlite.Conn) error {
			var row chain.Row
			var rows rowReader
			return c.Each(selectRows+" ORDER BY sequence", nil, func(s *sqlite.Stmt) error {
				if err := rows.read(s, &row); err != nil {
					return err
				}
				last = row.Sequence
				if !yield(&row, nil) {
					return stopped
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(nil, l.blame(err, last+1))
		}
	}
}

// blame makes a RowError of what a damaged page causes.
func (l *Reader) blame(err error, sequence uint64) error {
	if e := (*sqlite.Error)(nil); errors.As(err, &e) && e.Corrupt() {
		return &RowError{Sequence: sequence, Reason: "the file is damaged: " + e.Text}
	}
	if e := (*RowError)(nil); errors.As(err, &e) {
		return e
	}
	return fmt.Errorf("read ledger %s: %w", l.path, err)
}

// Lookup returns the row with an id, or an error that wraps [ErrNoRow]. The index
// on the id tells where to look, and the row what its id is. That an id is not
// there only the index says: Reader.integrity checks it.
func (l *Reader) Lookup(ctx context.Context, id string) (*chain.Row, error) {
	row, err := l.lookup(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", id, err)
	}
	return row, nil
}

func (l *Reader) lookup(ctx context.Context, id string) (*chain.Row, error) {
	sequence, found := int64(0), false
	err := l.r.Do(ctx, func(c *sqlite.Conn) (err error) {
		if l.find == nil {
			if l.find, err = c.PrepareOwn("SELECT sequence FROM " + chain.Table + " INDEXED BY idx_signed_events_id WHERE id = ?"); err != nil {
				return err
			}
		}
		defer l.find.Reset()
		if err = l.find.Set(1, id); err != nil {
			return err
		}
		if found, err = l.find.Step(); found {
			sequence = l.find.Integer(0)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, l.blame(err, 0)
	case !found:
		return nil, ErrNoRow
	}
	rows, err := l.rows(ctx, " WHERE sequence = ?", sequence)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || rows[0].ID != id {
		return nil, &RowError{Sequence: uint64(sequence), Reason: fmt.Sprintf("the index on the id has %q here, the row has not: audit-host verify says more", id)}
	}
	return &rows[0], nil
}

// Renew goes on to the state of now. It is cheap, other than opening the ledger
// again, which is what to do when there is an error: no process has the ledger
// open for writing, or its file was replaced.
func (l *Reader) Renew(ctx context.Context) error {
	err := l.r.Renew(ctx)
	if err == nil {
		err = l.r.Do(ctx, l.checkAgain)
	}
	if err != nil {
		return fmt.Errorf("renew view of ledger %s: %w", l.path, err)
	}
	return nil
}

// Rest lets go of the state, so that a writer's log can be emptied. Before
// anything is read again, Renew has to be called.
func (l *Reader) Rest() error {
	if err := l.r.Rest(); err != nil {
		return fmt.Errorf("let go of ledger %s: %w", l.path, err)
	}
	return nil
}

// Tail returns the last n rows, the oldest first.
func (l *Reader) Tail(ctx context.Context, n int) ([]chain.Row, error) {
	rows, err := l.rows(ctx, " ORDER BY sequence DESC LIMIT ?", int64(max(n, 0)))
	if err != nil {
		return nil, err
	}
	slices.Reverse(rows)
	return rows, nil
}

func (l *Reader) rows(ctx context.Context, where string, arg any) (rows []chain.Row, err error) {
	err = l.r.Do(ctx, func(c *sqlite.Conn) error {
		rows = nil
		return c.Each(selectRows+where, []any{arg}, func(s *sqlite.Stmt) error {
			var row chain.Row
			if err := new(rowReader).read(s, &row); err != nil {
				return err
			}
			rows = append(rows, row)
			return nil
		})
	})
	if err != nil {
		return nil, l.blame(err, 0)
	}
	return rows, nil
}

// Head returns the last row's sequence and row hash; zeros for an empty
// ledger.
func (l *Reader) Head(ctx context.Context) (sequence uint64, rowHash [chain.HashSize]byte, err error) {
	rows, err := l.Tail(ctx, 1)
	if err != nil || len(rows) == 0 {
		return 0, rowHash, err
	}
	if len(rows[0].RowHash) != chain.HashSize {
		return 0, rowHash, &RowError{Sequence: rows[0].Sequence, Reason: fmt.Sprintf("row_hash has %d bytes", len(rows[0].RowHash))}
	}
	copy(rowHash[:], rows[0].RowHash)
	return rows[0].Sequence, rowHash, nil
}

// highWater returns the largest sequence that any row ever had, as SQLite
// remembers it: larger than the head's if rows at the end are gone.
func (l *Reader) highWater(ctx context.Context) (uint64, error) {
	return l.number(ctx, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence NOT INDEXED WHERE name = '"+chain.Table+"'")
}

// lastSequence returns the largest sequence; 0 for an empty ledger.
func (l *Reader) lastSequence(ctx context.Context) (uint64, error) {
	return l.number(ctx, "SELECT max(coalesce(max(sequence), 0), 0) FROM "+chain.Table+" NOT INDEXED")
}

func (l *Reader) number(ctx context.Context, sql string) (n uint64, err error) {
	err = l.r.Do(ctx, func(c *sqlite.Conn) error {
		return c.Each(sql, nil, func(s *sqlite.Stmt) error {
			n = uint64(s.Integer(0))
			return nil
		})
	})
	if err != nil {
		return 0, l.blame(err, 0)
	}
	return n, nil
}

// Positions returns how far the ledger has come in each queue: the position of
// the last event that was taken, by the queue's id.
func (l *Reader) Positions(ctx context.Context) (map[[16]byte]uint64, error) {
	positions := make(map[[16]byte]uint64)
	err := l.r.Do(ctx, func(c *sqlite.Conn) error {
		return c.Each("SELECT queue, position FROM queue_positions NOT INDEXED", nil, func(s *sqlite.Stmt) error {
			id := s.Bytes(0)
			if len(id) != 16 {
				return &FormatError{Path: l.path, Reason: fmt.Sprintf("a queue's id of %d bytes in queue_positions", len(id))}
			}
			positions[[16]byte(id)] = uint64(s.Integer(1))
			return nil
		})
	})
	if err != nil {
		return nil, l.blame(err, 0)
	}
	return positions, nil
}

// notRead says what of the log beside the file could not be read, and so may
// hide rows that were committed; "" if nothing. A verifier has not checked it.
func (l *Reader) notRead() string { return l.r.NotRead() }

// OnDisk says why it is not known that what was read is on disk, and so would
// outlast a power cut; nil if it is known. Ask it after reading, and before a
// promise is made of what was read. Where another process writes, it is that one
// that shows nothing before it is on disk.
func (l *Reader) OnDisk() error { return l.r.OnDisk() }

// noLog is the name of the log that is not beside the file, "" if it is there or
// there need be none. Rows that were committed may stand in it, if the file was
// copied alone; a ledger that was closed has all and no log.
func (l *Reader) noLog() string { return l.r.NoLog }

// Close frees the reader.
func (l *Reader) Close() error { return l.r.Close() }
