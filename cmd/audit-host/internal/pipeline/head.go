package pipeline

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/internal/durable"
	"github.com/audit-host/audit-host/ledger"
	"github.com/audit-host/audit-host/ledger/chain"
)

// Head is a row that the ledger was seen to end with. It is kept outside the
// ledger, in the state directory, so that a ledger that went back in time is
// noticed: a backup that was put back, rows cut off the end, another ledger under
// its name.
//
// # Where it is written
//
// The keeper of the ledger (ledger.go) reads the head through a connection of its
// own, at most a second after a delivery, and then writes it: temporary file,
// fsync, rename, fsync of the directory. It writes only what the reader knows to be
// on disk (ledger.Reader.OnDisk): with synchronous=FULL SQLite syncs its log before it
// lets anybody see a commit, and a log that was read anew, after a crash or a fault,
// counts once it was written to disk again. So the ledger has the row on disk before
// it is remembered, and after a
// crash or a power cut at any point the remembered head is a row of the ledger,
// its last one or an older one. It can never be ahead of an intact ledger, and
// refusing one that lacks it is no false alarm. (Another writer that runs with
// less than FULL can lose rows in a power cut that were seen; then it is one.)
//
// The price is that what was committed in the last second before a crash is not
// covered; clients that ask for it hold receipts.
type Head struct {
	Ledger   string    `json:"ledger"` // path
	Sequence uint64    `json:"sequence"`
	RowHash  string    `json:"row_hash"` // hexadecimal
	At       time.Time `json:"at"`       // when it was seen
}

// String is the form that audit-host verify --head takes.
func (h Head) String() string { return strconv.FormatUint(h.Sequence, 10) + ":" + h.RowHash }

// HeadFile is where a configuration's head is remembered.
func HeadFile(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "ledger-head.json") }

// ReadHead returns what is remembered; false if nothing is.
func ReadHead(file string) (Head, bool, error) {
	text, found, err := readSmall(file)
	if err != nil || !found {
		return Head{}, false, err
	}
	var h Head
	if err := json.Unmarshal(text, &h); err != nil {
		return h, false, fmt.Errorf("read remembered head %s: %w", file, err)
	}
	if raw, err := hex.DecodeString(h.RowHash); err != nil || len(raw) != chain.HashSize || h.Sequence == 0 {
		return h, false, fmt.Errorf("read remembered head %s: it holds no head", file)
	}
	return h, true, nil
}

func (h Head) save(file string) error {
	if err := saveJSON(file, h); err != nil {
		return fmt.Errorf("remember the ledger's head: %w", err)
	}
	return nil
}

// WentBackError is a ledger that lacks the remembered head.
type WentBackError struct {
	Was  Head
	Now  uint64 // where the ledger ends
	Text string // what is wrong
}

func (e *WentBackError) Error() string {
	return fmt.Sprintf("%s. Nothing is appended to it. If rows were lost, put the newer file back, with the -wal beside it; audit-host verify --head %s checks it. "+
		"If this is the ledger to go on with, stop and run audit-host ledger accept-head, after which the queue delivers again what it still has", e.Text, e.Was)
}

// lookAt compares a ledger with the remembered head, of which Sequence 0 is none,
// and returns the present one; the remembered one, if the present one is not known
// to be on disk. An error that wraps *[WentBackError] says that it went back.
func lookAt(ctx context.Context, path string, was Head) (_ Head, err error) {
	l, err := ledger.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && was.Sequence > 0:
		return Head{}, &WentBackError{Was: was, Text: fmt.Sprintf("there is no ledger %s any more: it had %d rows at %s", path, was.Sequence, was.At.Format(time.RFC3339))}
	case err != nil:
		return Head{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	now, err := lookInto(ctx, l, path, was)
	if err == nil && l.OnDisk() != nil {
		return was, nil
	}
	return now, err
}

func lookInto(ctx context.Context, l *ledger.Reader, path string, was Head) (Head, error) {
	sequence, hash, err := l.Head(ctx)
	if err != nil {
		return Head{}, err
	}
	now := Head{Ledger: path, Sequence: sequence, RowHash: hex.EncodeToString(hash[:]), At: time.Now().UTC()}
	back := func(format string, a ...any) (Head, error) {
		return now, &WentBackError{Was: was, Now: sequence, Text: fmt.Sprintf(format, a...)}
	}
	switch {
	case was.Sequence == 0:
	case sequence < was.Sequence:
		return back("the ledger %s ends at row %d and ended at row %d at %s: it is an older copy or another one, or rows were removed",
			path, sequence, was.Sequence, was.At.Format(time.RFC3339))
	default:
		there, err := l.HashAt(ctx, was.Sequence)
		if err != nil {
			return now, err
		}
		if got := hex.EncodeToString(there[:]); got != was.RowHash {
			return back("row %d of the ledger %s has the row_hash %s and had %s at %s: it is another ledger, or was rewritten",
				was.Sequence, path, got, was.RowHash, was.At.Format(time.RFC3339))
		}
	}
	return now, nil
}

// maxSmall bounds the files that readSmall reads, in bytes.
const maxSmall = 64 << 10

func readSmall(file string) (text []byte, found bool, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	text, err = io.ReadAll(io.LimitReader(f, maxSmall))
	return text, true, errors.Join(err, f.Close())
}

// saveJSON is [durable.WriteFile] for a value.
func saveJSON(file string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(file, append(text, '\n'), 0o600)
}
