package host

import (
	"context"
	"fmt"
)

// Find returns the latest letter of a sink with an event's id, or an error that
// wraps [ErrNoLetter].
func (d *DeadLetters) Find(ctx context.Context, sink, id string) (Letter, error) {
	letters, err := d.letters(ctx, "WHERE sink = ? AND id = ? ORDER BY dlq_id DESC LIMIT 1", sink, id)
	if err == nil && len(letters) == 0 {
		err = ErrNoLetter
	}
	if err != nil {
		return Letter{}, fmt.Errorf("find dead letter %q of %s: %w", id, d.path, err)
	}
	return letters[0], nil
}
