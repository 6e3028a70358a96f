package pipeline

import (
	"context"
	"errors"
	"log/slog"

	"github.com/audit-host/audit-host/queue"
)

// catchUp sets a ledger's place in the queue back where the ledger, which has
// come to position at, ends before it: the queue delivers again what it still has.
//
// It is for a ledger of which no head is remembered, so that nothing else would
// tell that it went back: with its -wal, in the second before the first one is. A
// place is acknowledged after the rows are committed, so such a ledger has lost
// rows; or all that came since became dead letters, or was in the ledger already.
// Nobody needs to know which it is, for sink and dead letters recognise an event
// by its id, and what they have does not land again. A crash in between finds the
// place set back or not, and the next start does the same, for the head is
// remembered afterwards.
func catchUp(ctx context.Context, q queue.Queue, name string, required bool, at uint64, log *slog.Logger) error {
	keeper, ok := q.(queue.CursorKeeper)
	if !ok {
		return nil
	}
	for _, c := range keeper.Cursors() {
		if c.Name != name {
			continue
		}
		acked, from := uint64(q.Watermarks().Accepted)-c.Pending, at+1
		if acked < from {
			return nil
		}
		open := func() (queue.Consumer, error) {
			return q.Consumer(ctx, name, queue.ConsumerOptions{Required: required, From: queue.Seq(from)})
		}
		con, err := open()
		if gone := (queue.ErrLagged{}); errors.As(err, &gone) {
			if from = uint64(gone.To) + 1; acked < from {
				log.Warn("the ledger ends before its place in the queue, which has none of the events between any more; if they are no dead letters they are lost to the ledger",
					slog.String("sink", name), slog.Uint64("no_longer_kept", acked-at))
				return nil
			}
			con, err = open()
		}
		if err != nil {
			return err
		}
		log.Warn("the ledger ends before its place in the queue: the events between are delivered again, and those that it has are recognised",
			slog.String("sink", name), slog.Uint64("events", acked-from+1), slog.Uint64("no_longer_kept", from-at-1))
		return con.Close()
	}
	return nil
}
