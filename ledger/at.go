package ledger

import (
	"context"
	"fmt"

	"github.com/audit-host/audit-host/ledger/chain"
)

// HashAt returns the row hash of the row with that sequence. An error that wraps
// [ErrNoRow]: there is no such row.
func (l *Reader) HashAt(ctx context.Context, sequence uint64) (hash [chain.HashSize]byte, err error) {
	rows, err := l.rows(ctx, " WHERE sequence = ?", int64(sequence))
	switch {
	case err != nil:
	case len(rows) == 0:
		err = ErrNoRow
	case len(rows[0].RowHash) != chain.HashSize:
		err = &RowError{Sequence: sequence, Reason: fmt.Sprintf("row_hash has %d bytes", len(rows[0].RowHash))}
	default:
		return [chain.HashSize]byte(rows[0].RowHash), nil
	}
	return hash, fmt.Errorf("look up row %d: %w", sequence, err)
}
