package pipeline

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/host"
	"github.com/audit-host/audit-host/host/appendfile"
	"github.com/audit-host/audit-host/host/egress"
	"github.com/audit-host/audit-host/queue"
	"github.com/audit-host/audit-host/sign"
)

// trialDir is where the stand-ins of a trial lie.
func trialDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "trial") }

// trial opens a prepared plugin beside the one that is delivering and hands it
// batches, without anything that it does being of consequence: its database, file
// and store are empty ones in a folder that is removed, its requests are answered by
// this process, and its secrets are no secrets. All else is as it will be: the
// configuration, the limits, and which hosts, methods and paths it may ask. After it
// the plugin has what o grants, and is not started.
//
// It fails if the plugin refuses its configuration or if the host has to end it.
// What else it answers is between it and the stand-ins, which are not what it is
// used to.
func trial(ctx context.Context, cfg *config.Config, s *host.Sink, o host.Options, sample *abi.Batch) (err error) {
	dir := filepath.Join(trialDir(cfg), o.Name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return fmt.Errorf("sink %s: make room for the trial: %w", o.Name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(dir))) }() // there is one trial at a time
	if err := s.Grant(standIns(o, dir)); err != nil {
		return err
	}
	defer func() {
		_ = s.Stop(ctx) // how it ends is not its trial: the stand-ins may be in the way
		err = errors.Join(err, s.Grant(o))
	}()
	r, err := s.Start(ctx)
	if err != nil {
		return err
	}
	failed := func(export string, n int, r *abi.Result) error {
		what := ""
		if n > 0 {
			what = fmt.Sprintf(" of a batch of %d events", n)
		}
		text := fmt.Sprintf("sink %s: the new plugin was tried beside the old one, and its %s%s ended with %s: %s", o.Name, export, what, r.Outcome, r.Detail)
		if r.Stderr != "" {
			text += "\n" + r.Stderr
		}
		return errors.New(text)
	}
	if r.Outcome.HostMade() {
		return failed(abi.ExportOpen, 0, &r)
	}
	made, err := invented()
	if err != nil {
		return fmt.Errorf("sink %s: make events for the trial: %w", o.Name, err)
	}
	for _, b := range []*abi.Batch{made, sample} {
		if b == nil {
			continue
		}
		// The second time is a redelivery, as after an unknown outcome.
		for attempt := range uint32(2) {
			b.Attempt = attempt + 1
			if r := s.Deliver(ctx, b); r.Outcome.HostMade() || r.Outcome == abi.BadConfig {
				return failed(abi.ExportDeliver, len(b.Events), &r)
			}
		}
	}
	if r := s.Flush(ctx); r.Outcome.HostMade() {
		return failed(abi.ExportFlush, 0, &r)
	}
	return nil
}

// standIns replaces what is granted.
func standIns(o host.Options, dir string) host.Options {
	// What the plugin logs of made-up events would be read as news.
	o.Log = slog.New(slog.DiscardHandler)
	if o.SQL != nil {
		g := *o.SQL
		g.Database, g.Create = filepath.Join(dir, "database.db"), true
		o.SQL = &g
	}
	if o.Append != nil {
		o.Append = &appendfile.Options{Path: filepath.Join(dir, "lines"), MaxSize: o.Append.MaxSize, Keep: o.Append.Keep, Pattern: o.Append.Pattern, Log: o.Log}
	}
	if o.KV != nil {
		g := *o.KV
		g.Path = filepath.Join(dir, "kv.db")
		o.KV = &g
	}
	if o.HTTP != nil {
		p := *o.HTTP
		p.StandIn = collector{}
		p.Secrets = map[string]egress.Secret{}
		for name := range o.HTTP.Secrets {
			p.Secrets[name] = egress.NewSecret("stands-in-for-a-secret")
		}
		o.HTTP = &p
	}
	return o
}

// collector answers as collectors do that are content: with 200, and with words
// that Splunk and Elasticsearch use.
type collector struct{}

func (collector) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
		if err := r.Body.Close(); err != nil {
			return nil, err
		}
	}
	const text = `{"text":"Success","code":0,"errors":false,"items":[]}`
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(text))), ContentLength: int64(len(text))}, nil
}

// invented makes a batch of events of several kinds, signed with a key that is
// forgotten: nobody can take them for evidence.
func invented() (*abi.Batch, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	plain, _, err1 := event.FromRefusal("agent:trial", event.Bash{Command: "true"}, event.Decision{Kind: event.KindRefuse, RuleID: "trial", Reason: "made up for the trial of a plugin"})
	odd, _, err2 := event.FromRefusal("agent:\u00fcml\u00e4ut \U0001F512", event.Bash{Command: "printf '\"<&>\\n\u2028'"}, event.Decision{Kind: event.KindRefuse, RuleID: "trial|=,", Reason: "\u00b5 \\ \" \t | ="})
	own, err3 := event.Plugin{What: event.PluginLoaded, Sink: "trial", Digest: "0"}.Event(event.Options{})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	b := &abi.Batch{ID: 1, Events: []abi.Event{plain, odd, own}}
	if _, err := rand.Read(b.Queue[:]); err != nil {
		return nil, err
	}
	sealer := sign.NewSealer(key)
	for i := range b.Events {
		e := &b.Events[i]
		e.Seq = uint64(i) + 1
		// As it comes out of the queue.
		record := abi.AppendRecord(nil, e)
		if *e, err = abi.DecodeRecord(e.ID, e.Seq, record); err != nil {
			return nil, err
		}
		sealer.Seal(e)
	}
	return b, nil
}

// tuning is how the recorder serves a sink.
func tuning(s config.Sink, digest string) queue.Tuning {
	return queue.Tuning{Plugin: digest, BatchEvents: s.BatchEvents, BatchBytes: int(s.BatchBytes), MaxRestarts: s.MaxRestarts, RestartWindow: s.RestartWindow}
}
