package host

import (
	"context"
	"fmt"

	"github.com/audit-host/audit-host/ledger"
)

// HashAt returns the row hash of the row with that sequence. An error that wraps
// [ErrNoRow]: there is no such row.
func (l *Ledger) HashAt(ctx context.Context, sequence uint64) (hash [ledger.HashSize]byte, err error) {
	rows, err := l.rows(ctx, " WHERE sequence = ?", int64(sequence))
	switch {
	case err != nil:
	case len(rows) == 0:
		err = ErrNoRow
	case len(rows[0].RowHash) != ledger.HashSize:
		err = &RowError{Sequence: sequence, Reason: fmt.Sprintf("row_hash has %d bytes", len(rows[0].RowHash))}
	default:
		return [ledger.HashSize]byte(rows[0].RowHash), nil
	}
	return hash, fmt.Errorf("look up row %d: %w", sequence, err)
}

// checkKept returns an error unless the ledger keeps ids apart and rows as they
// are given: the index on the id as the schema makes it, and no trigger.
func (l *Ledger) checkKept(c *dbConn) error {
	index := false
	err := c.each("SELECT type, name, sql FROM sqlite_schema WHERE tbl_name = ? AND type IN ('index', 'trigger')", []any{ledger.Table}, func(s *dbStmt) error {
		if s.string(0) == "trigger" {
			return &FormatError{Path: l.path, Reason: fmt.Sprintf("%s has a trigger, which may change or drop rows: DROP TRIGGER %s", ledger.Table, s.string(1))}
		}
		index = index || s.string(2) == ledger.Schema[1]
		return nil
	})
	if err == nil && !index {
		err = &FormatError{Path: l.path, Reason: "an index is missing, without which a second delivery would be a second row: " + ledger.Schema[1]}
	}
	return err
}

// CheckWritable tells whether rows can be appended to the ledger so that they are
// kept as they are: the error wraps a [*FormatError] if its schema was changed. A
// reader gets along without.
func (l *Ledger) CheckWritable(ctx context.Context) error {
	if err := l.r.do(ctx, l.checkKept); err != nil {
		return fmt.Errorf("check ledger: %w", err)
	}
	return nil
}
