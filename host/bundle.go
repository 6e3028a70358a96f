package host

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
)

// bundleVersion is the format's. A bundle of another one is refused.
const bundleVersion = 1

// Bundle is what a crash of a plugin leaves behind: a JSON file with all that
// is needed to look at it, and to run it again without any grant ([Replay]).
// It holds the events of the batch.
//
// Secrets: a value of the configuration is left out when its name says that it
// is one, and so is a password in a URL. Secrets of the http grant never reach
// a guest, so that they can't be in its answers.
type Bundle struct {
	Version int          `json:"version"`
	Time    time.Time    `json:"time"`
	Sink    string       `json:"sink"`
	Plugin  BundlePlugin `json:"plugin"`

	// Outcome, Detail and Export tell how which call into the guest ended,
	// Trace is the runtime's own text with the guest's stack.
	Outcome string `json:"outcome"`
	Detail  string `json:"detail"`
	Export  string `json:"export"`
	Trace   string `json:"trace,omitempty"`
	Stderr  string `json:"stderr,omitempty"`
	// FuelLeft and StackLeft are what the call had left, in units and bytes,
	// Memory what the guest's memory had grown to in bytes.
	FuelLeft  int64  `json:"fuel_left"`
	StackLeft int64  `json:"stack_left"`
	Memory    uint64 `json:"memory"`

	Limits   BundleLimits    `json:"limits"`
	Grants   []string        `json:"grants"`
	Config   json.RawMessage `json:"config"`
	Redacted []string        `json:"redacted,omitempty"` // what is left out of Config

	BatchID uint64   `json:"batch_id,omitempty"`
	Attempt uint32   `json:"attempt,omitempty"`
	Events  []string `json:"events,omitempty"` // ids of the batch

	// HostCalls are the last calls of host functions in the call into the
	// guest, of which there were HostCallCount; Ending says what the
	// host did to end it, if it did.
	HostCalls     []BundleCall `json:"host_calls"`
	HostCallCount uint64       `json:"host_call_count"`
	Ending        *ending      `json:"ending,omitempty"`

	// Life are the calls that the instance got, the crash last. Unreplayable
	// says why they do not lead to the crash for certain; empty if they do.
	Life         []BundleEpisode `json:"life"`
	Unreplayable string          `json:"unreplayable,omitempty"`
}

// BundlePlugin says which code crashed. Its file lies beside the bundle under
// its digest.
type BundlePlugin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"sha256"`
	File    string `json:"file,omitempty"`
}

// BundleLimits are those under which it crashed, in the units of [Options].
type BundleLimits struct {
	Memory       int64         `json:"memory"`
	Deadline     time.Duration `json:"deadline_ns"`
	Fuel         int64         `json:"fuel"`
	Stack        int64         `json:"stack"`
	LogLines     int           `json:"log_lines"`
	LogBytes     int           `json:"log_bytes"`
	VerdictBytes int           `json:"verdict_bytes"`
}

// BundleCall is a host call with its answer, for people.
type BundleCall struct {
	Function string   `json:"fn"`
	Args     []uint64 `json:"args"`
	// Result is absent of a function without one, and of a call that did not
	// return.
	Result *uint64 `json:"result,omitempty"`
}

// BundleEpisode is one call into the guest: what it was given, and what came
// to it from outside.
type BundleEpisode struct {
	Export  string         `json:"export"`
	Input   []byte         `json:"input,omitempty"` // configuration or frame; Config stands for that of audit_open
	Answers []BundleAnswer `json:"answers,omitempty"`
}

// BundleAnswer is what a host function returned and what it wrote into the
// guest's memory.
type BundleAnswer struct {
	Function string `json:"fn"`
	Result   uint64 `json:"result"`
	Data     []byte `json:"data,omitempty"`
}

// leave keeps a bundle of what has just happened, the instance being there
// still, if the guest is to blame. It returns what to add to the outcome's detail: where the bundle is.
func (s *Sink) leave(r *abi.Result, err error, blame bool) string {
	if s.player != nil {
		s.player.crashed(s.inst, err)
	}
	if s.o.Crashes == nil || !r.Outcome.HostMade() || !blame {
		return ""
	}
	b := s.bundle(r, err)
	path, werr := s.o.Crashes.put(b, s.wasm)
	if werr != nil {
		s.o.Log.Warn("crash bundle could not be written", "sink", s.o.Name, "plugin", s.manifest.Name, "error", werr)
		return ""
	}
	s.o.Log.Warn("plugin crashed", "sink", s.o.Name, "plugin", s.manifest.Name, "outcome", b.Outcome, "in", b.Export, "bundle", path)
	r.Detail = strings.TrimRight(r.Detail, "\n")
	return "\ncrash bundle " + path
}

// bundle gathers all that is known.
func (s *Sink) bundle(r *abi.Result, err error) *Bundle {
	t, i := &s.trace, s.inst
	b := &Bundle{
		Version: bundleVersion, Time: time.Now().UTC(), Sink: s.o.Name,
		Plugin:  BundlePlugin{s.manifest.Name, s.manifest.Version, s.digest, s.o.File},
		Outcome: r.Outcome.String(), Detail: strings.TrimRight(r.Detail, "\n"), Export: t.current.export, Stderr: strings.ToValidUTF8(r.Stderr, "\uFFFD"),
		Limits: BundleLimits{int64(s.pages) * wasmPage, s.o.Deadline, s.o.Fuel, s.o.Stack, s.o.LogLines, s.o.LogBytes, s.o.VerdictBytes},
	}
	if err != nil {
		text := err.Error()
		b.Trace = strings.ToValidUTF8(text[:min(len(text), 32<<10)], "\uFFFD")
	}
	if i != nil && i.gauge != nil {
		b.FuelLeft, b.StackLeft = i.gauge.Left(), i.gauge.StackLeft()
	}
	if i != nil && i.mod != nil {
		b.Memory = uint64(i.mod.Memory().Size())
	}
	granted := s.granted()
	b.Grants = []string{}
	for _, name := range abi.Capabilities() {
		if granted[name] {
			b.Grants = append(b.Grants, name)
		}
	}
	b.Config, b.Redacted = redact(s.o.Config)
	if t.batch != nil {
		b.BatchID, b.Attempt = t.batch.ID, t.batch.Attempt
		for k := range t.batch.Events {
			b.Events = append(b.Events, t.batch.Events[k].ID)
		}
	}
	for _, c := range t.last() {
		call := BundleCall{Function: c.fn.name, Args: []uint64{}}
		for k, typ := range c.fn.Params[:min(len(c.fn.Params), len(c.args))] {
			arg := c.args[k]
			if typ == abi.I32 {
				arg = uint64(uint32(arg)) // the upper half is whatever lay there
			}
			call.Args = append(call.Args, arg)
		}
		if c.done && len(c.fn.Results) > 0 {
			result := c.result
			call.Result = &result
		}
		b.HostCalls = append(b.HostCalls, call)
	}
	b.HostCallCount = t.calls
	if t.ending.Kind != "" {
		e := t.ending
		b.Ending = &e
	}
	s.life(b)
	return b
}

// life writes the calls into the guest into a bundle.
func (s *Sink) life(b *Bundle) {
	t := &s.trace
	if t.current.export != abi.ExportOpen {
		b.Life = append(b.Life, t.open.bundle())
		for _, e := range t.past {
			b.Life = append(b.Life, e.bundle())
		}
	}
	last := t.current.bundle()
	if t.batch != nil {
		last.Input = frameOf(t.batch)
	}
	b.Life = append(b.Life, last)
	// The configuration stands in Config, without its secrets.
	b.Life[0].Input = nil
	switch {
	case t.overflow:
		b.Unreplayable = fmt.Sprintf("what the host answered in this call is more than the %d bytes that are kept", maxAnswers)
	case !t.whole && t.current.export != abi.ExportOpen:
		b.Unreplayable = fmt.Sprintf("the instance had a longer life than the %d bytes that are kept of it: a replay begins with a fresh one", maxLife)
	}
}

func (e episode) bundle() BundleEpisode {
	out := BundleEpisode{Export: e.export, Input: e.input}
	for a := e.answers; len(a) > 0; {
		n := int(binary.LittleEndian.Uint32(a[9:]))
		out.Answers = append(out.Answers, BundleAnswer{
			Function: outsideFunctions[a[0]].name, Result: binary.LittleEndian.Uint64(a[1:]), Data: append([]byte(nil), a[13:13+n]...)})
		a = a[13+n:]
	}
	return out
}

// maxBundle bounds a bundle's file in bytes when it is read: it may come from
// anywhere.
const maxBundle = 256 << 20

// ReadBundle reads a bundle's file.
func ReadBundle(path string) (_ *Bundle, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read crash bundle %s: %w", path, err)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBundle {
		return nil, fmt.Errorf("it has more than %d bytes", maxBundle)
	}
	var b Bundle
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, err
	}
	if b.Version != bundleVersion {
		return nil, fmt.Errorf("it is of format %d, this program reads %d", b.Version, bundleVersion)
	}
	if len(b.Life) == 0 || b.Life[0].Export != abi.ExportOpen || b.Life[len(b.Life)-1].Export != b.Export {
		return nil, errors.New("its calls do not begin with audit_open and end with the crash")
	}
	for i, e := range b.Life {
		switch known := e.Export == abi.ExportDeliver || e.Export == abi.ExportFlush || e.Export == abi.ExportClose; {
		case i > 0 && !known:
			return nil, fmt.Errorf("call %d is of %q", i, e.Export)
		}
	}
	return &b, nil
}

// stopped is the detail of a call that ended because the host ends.
func stopped(ctx context.Context) string {
	return fmt.Sprint("the host is stopping: ", context.Cause(ctx))
}
