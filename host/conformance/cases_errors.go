package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

// failure is one way in which a call of a capability fails.
type failure struct {
	name  string
	fault host.Fault
	// passes tells that waiting or the operator mends it, so that no event is
	// to be refused for it.
	passes bool
}

// The codes of SQLite that a sink meets in practice.
const (
	sqliteBusy  = 5
	sqliteIOErr = 10
	sqliteFull  = 13
)

func sqlFailures(writes bool) []failure {
	of := func(name string, kind host.FaultKind, status abi.SQLStatus, text string) failure {
		return failure{name, host.Fault{Kind: kind, Status: uint32(status), Text: text}, true}
	}
	list := []failure{
		of("5 (BUSY)", host.FaultInstead, sqliteBusy, "database is locked"),
		of("10 (IOERR)", host.FaultInstead, sqliteIOErr, "disk I/O error"),
		of("13 (FULL)", host.FaultInstead, sqliteFull, "database or disk is full"),
		of("0x10002 (out of time)", host.FaultInstead, abi.SQLTimeout, "not finished in time"),
		of("0x10004 (the engine failed), with nothing done", host.FaultInstead, abi.SQLBroken, "the engine failed"),
		of("0x10005 (the file was replaced)", host.FaultInstead, abi.SQLReplaced, "the file was replaced"),
	}
	if writes {
		const all = ", with the transaction committed all the same"
		list = append(list, of("0x10004 (the engine failed)"+all, host.FaultAfter, abi.SQLBroken, "the engine failed"),
			of("0x10006 (the disk failed at the commit)"+all, host.FaultAfter, abi.SQLDiskFailed, "commit: disk I/O error"))
	}
	return list
}

// failuresOf lists how a call can fail.
func failuresOf(a asked) []failure {
	of := func(kind host.FaultKind, status abi.Status, passes bool, more string) failure {
		return failure{fmt.Sprintf("%d (%s)%s", status, status, more), host.Fault{Kind: kind, Status: uint32(status), Text: "as the conformance kit wants"}, passes}
	}
	switch a.function {
	case abi.ImportSQL:
		return sqlFailures(a.writes)
	case abi.ImportAppend:
		return []failure{of(host.FaultInstead, abi.StatusUnavailable, true, ""), of(host.FaultInstead, abi.StatusTooLarge, true, ""), of(host.FaultInstead, abi.StatusRefused, true, "")}
	case abi.ImportHTTP:
		return []failure{of(host.FaultInstead, abi.StatusUnavailable, true, ""), of(host.FaultInstead, abi.StatusTimeout, true, ""),
			of(host.FaultAfter, abi.StatusTimeout, true, ", although the server took the request"), of(host.FaultInstead, abi.StatusRefused, false, "")}
	case abi.ImportKVSet:
		return []failure{of(host.FaultInstead, abi.StatusUnavailable, true, ""), of(host.FaultInstead, abi.StatusTooLarge, false, "")}
	}
	return []failure{of(host.FaultInstead, abi.StatusUnavailable, true, "")}
}

// hostErrors has each call of a batch fail with each status.
func hostErrors(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	if !k.visible() {
		return "", inapplicable("the plugin calls no capability")
	}
	tried := 0
	for _, warm := range []bool{false, true} {
		for at := range maxPoints {
			// Which call it is shows when it is made.
			if err := w.ready(ctx, warm); err != nil {
				return "", err
			}
			w.strike(at, host.Fault{})
			if err := w.accept(ctx, k.batch(6)); err != nil {
				return "", err
			}
			w.calm()
			if !w.struck {
				break
			}
			for _, f := range failuresOf(w.asks[at]) {
				if err := w.ready(ctx, warm); err != nil {
					return "", err
				}
				tried++
				if err := w.fails(ctx, at, f); err != nil {
					return "", err
				}
			}
		}
	}
	return fmt.Sprintf("%d failures", tried), nil
}

// fails has one call fail, and looks at the answer and at what comes of the
// batch when nothing fails any more.
func (w *world) fails(ctx context.Context, at int, f failure) error {
	b := w.k.batch(6)
	w.strike(at, f.fault)
	r := w.deliver(ctx, b)
	w.calm()
	if !w.struck {
		return w.pump(ctx, again(b)) // it went another way this time
	}
	function := w.asks[at].function
	sent := fmt.Sprintf("a batch of 6 events; its call %d, %s, was answered with status %s", at+1, function, f.name)
	rule := "R22"
	if function == abi.ImportAppend {
		rule = "R13"
	}
	if err := w.honest(ctx, b, r, sent, rule, f.passes); err != nil {
		return err
	}
	return w.recovers(ctx, b, r, sent, rule)
}

// honest looks that an answer to a batch that met a failure counts nothing as
// stored that is not, and refuses nothing for what passes.
func (w *world) honest(ctx context.Context, b *abi.Batch, r abi.Result, sent, rule string, passes bool) error {
	done, _ := stored(b, r)
	refused := r.Outcome == abi.Reject
	for _, v := range r.Verdicts {
		refused = refused || v.Code == abi.Reject
	}
	switch {
	case r.Outcome == abi.BadABI:
		return misanswer(sent, r, "BUSY or RETRY, or PARTIAL with a verdict for each event that is not stored")
	case r.Outcome.HostMade():
		breach := misanswer(sent, r, "BUSY or RETRY")
		if breach.Rule == "R25" {
			breach.Rule, breach.Change = "R11", "the status of the call: a failure is an answer, and no reason to trap"
		}
		return breach
	case refused && passes:
		return &Breach{Rule: rule, Sent: sent, Got: answered(r), Wanted: "BUSY or RETRY: this passes, and an event that is refused becomes a dead letter",
			Change: "which statuses are answered with REJECT"}
	}
	missing, _, err := w.compare(ctx, done)
	if err != nil {
		return err
	}
	if missing != nil {
		return &Breach{Rule: rule, Sent: sent, Got: fmt.Sprintf("%s, with %s missing", r.Outcome, places(b.Events, missing)),
			Wanted: "BUSY: only what the capability took counts as stored", Change: "that the status of each call is looked at before OK is answered"}
	}
	return nil
}

// recovers delivers the batch again, to the instance that met the failure.
func (w *world) recovers(ctx context.Context, b *abi.Batch, r abi.Result, sent, rule string) error {
	_, later := stored(b, r)
	var done []abi.Event
	switch r.Outcome {
	case abi.OK:
		return w.all(ctx, b.Events, sent, comeAgain)
	case abi.Partial:
		for i := range b.Events {
			if r.Verdicts[i].Code != abi.Reject {
				done = append(done, b.Events[i])
			}
		}
		if len(later) > 0 {
			if err := w.pump(ctx, w.k.batchOf(later)); err != nil {
				return named(err, sent)
			}
		}
	default:
		done = b.Events
		if err := w.pump(ctx, again(b)); err != nil {
			return named(err, sent)
		}
	}
	err := w.all(ctx, done, sent+"; then the batch again, attempt 2, with nothing failing", "what is remembered of a batch that was not OK: lines that were appended before a BUSY may be lost, and are to be appended again")
	var breach *Breach
	if errors.As(err, &breach) && breach.Rule == "R5" {
		breach.Rule = rule
	}
	return err
}

// serverErrors has the collector fail.
func serverErrors(ctx context.Context, k *kit) (string, error) {
	if !slices.Contains(k.manifest.Capabilities, abi.CapabilityHTTP) {
		return "", inapplicable("the plugin does not ask for http")
	}
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	note := ""
	for _, c := range []struct {
		reply  reply
		passes bool
	}{
		{reply{status: 500}, true}, {reply{status: 503, retryAfter: "7"}, true}, {reply{status: 429, retryAfter: "7"}, true},
		{reply{drop: true}, true}, {reply{drop: true, keeps: true}, true}, {reply{status: 400}, false}, {reply{status: 301}, false},
	} {
		b := k.batch(6)
		k.server.answers(c.reply)
		r := w.deliver(ctx, b)
		k.server.answers(reply{})
		sent := "a batch of 6 events, to " + c.reply.String()
		if err := w.honest(ctx, b, r, sent, "R22", c.passes); err != nil {
			return "", err
		}
		if c.reply.retryAfter != "" && (r.Outcome == abi.Busy || r.Outcome == abi.Retry) && r.RetryAfter.Seconds() < 7 {
			note = fmt.Sprintf("Retry-After: 7 is not heeded, the pause is %s", r.RetryAfter)
		}
		if r.Outcome == abi.Reject {
			continue // its events are dead letters now
		}
		if err := w.recovers(ctx, b, r, sent, "R22"); err != nil {
			return "", err
		}
	}
	return note, nil
}
