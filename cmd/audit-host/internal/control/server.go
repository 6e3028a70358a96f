package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
	"github.com/audit-host/audit-host/queue"
)

const (
	maxRequest = 1 << 20         // bytes of a request's body
	stopTime   = 2 * time.Second // for the answers under way at the end
)

// server answers for one pipeline.
type server struct {
	p   *pipeline.Pipeline
	log *slog.Logger
	now func() time.Time
}

// peerKey is where a request's context has the *peer that asks.
type peerKey struct{}

// Serve answers on ln until ctx is done; then it closes ln and removes the socket.
// A replay under way is cut short between two deliveries.
func Serve(ctx context.Context, ln *Listener, p *pipeline.Pipeline, log *slog.Logger) error {
	err := serve(ctx, &guarded{ln.unix, peerUID}, &server{p: p, log: log, now: time.Now})
	if e := os.Remove(ln.path); e != nil {
		err = errors.Join(err, fmt.Errorf("remove control socket: %w", e))
	}
	return err
}

func serve(ctx context.Context, ln *guarded, s *server) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	h := &http.Server{
		Handler:           s.routes(),
		BaseContext:       func(net.Listener) context.Context { return working },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c)
		},
	}
	stopped := make(chan error, 1)
	undo := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		err := h.Shutdown(bounded)
		if err != nil {
			err = errors.Join(err, h.Close())
		}
		stopped <- err
	})
	err := h.Serve(ln)
	if undo() { // the listener failed by itself
		return fmt.Errorf("serve control socket: %w", errors.Join(err, h.Close()))
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("stop control socket: %w", err)
	}
	return nil
}

func (s *server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/sinks", s.sinks)
	m.HandleFunc("POST /v1/sinks/{name}/resume", s.resume)
	m.HandleFunc("POST /v1/sinks/{name}/forget", s.forget)
	m.HandleFunc("POST /v1/dead-letters/replay", s.replay)
	m.HandleFunc("POST /v1/reload", s.reload)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(*peer)
		if ok && p.refused == nil {
			m.ServeHTTP(w, r)
			return
		}
		text := "it is not known who asks"
		if ok {
			text = p.refused.Error()
		}
		s.log.Warn("control request refused", slog.String("path", r.URL.Path), slog.String("error", text))
		answer(w, http.StatusForbidden, errorAnswer{text})
	})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // fails only when the client is gone
}

type errorAnswer struct {
	Error string `json:"error"`
}

// asked tells in the log who asked for what.
func (s *server) asked(r *http.Request, what string, attrs ...any) {
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok && p.uid >= 0 {
		attrs = append(attrs, slog.Int("uid", p.uid))
	}
	s.log.Info(what, attrs...)
}

func (s *server) sinks(w http.ResponseWriter, _ *http.Request) {
	list := []Sink{}
	m := s.p.Recorder.Metrics()
	plugins := map[string]pipeline.PluginState{}
	for _, p := range s.p.PluginStates() {
		plugins[p.Sink] = p
	}
	for i := range m.Sinks {
		sink := describe(&m.Sinks[i], s.now())
		sink.seat(plugins[sink.Name])
		list = append(list, sink)
	}
	for _, name := range slices.Sorted(maps.Keys(s.p.Missing)) {
		list = append(list, Sink{Name: name, State: "missing", LastError: s.p.Missing[name]})
	}
	for _, u := range s.p.Unclaimed() {
		list = append(list, Sink{Name: u.Name, Required: u.Required, State: StateUnclaimed, PendingEvents: u.Pending,
			LastError: "not configured: " + u.Mend()})
	}
	answer(w, http.StatusOK, struct {
		Sinks []Sink `json:"sinks"`
	}{list})
}

func describe(m *queue.SinkMetrics, now time.Time) Sink {
	s := Sink{
		Name: m.Name, Required: m.Required, State: string(m.State), PendingEvents: m.Pending, PendingBytes: m.PendingBytes,
		Appended: m.Appended, DeadLettered: m.DLQLanded, Replayed: m.Replayed, Restarts: m.Restarts, Parked: m.Parked, LastError: m.LastError,
	}
	if !m.LastErrorAt.IsZero() {
		at := m.LastErrorAt.UTC()
		s.LastErrorAt = &at
	}
	if !m.Oldest.IsZero() {
		at := m.Oldest.UTC()
		s.Oldest, s.AgeSeconds = &at, max(0, now.Sub(at).Seconds())
	}
	return s
}

// seat tells which plugin a sink has.
func (s *Sink) seat(p pipeline.PluginState) {
	s.Plugin, s.Version, s.SHA256 = p.Name, p.Version, p.Digest
	s.Probation, s.Swaps, s.Rollbacks, s.RolledBack = p.Probation, p.Swaps, p.Rollbacks, p.RolledBack
	if !p.RolledBackAt.IsZero() {
		at := p.RolledBackAt.UTC()
		s.RolledBackAt = &at
	}
}

func (s *server) resume(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	err := s.p.Recorder.Resume(name)
	switch {
	case err == nil:
		s.asked(r, "an operator resumed a sink", slog.String("sink", name))
		answer(w, http.StatusOK, struct {
			Resumed string `json:"resumed"`
		}{name})
	case errors.Is(err, queue.ErrNoSink):
		answer(w, http.StatusNotFound, errorAnswer{err.Error()})
	case errors.Is(err, queue.ErrNotParked):
		answer(w, http.StatusConflict, errorAnswer{err.Error()})
	default:
		answer(w, http.StatusInternalServerError, errorAnswer{err.Error()})
	}
}

func (s *server) forget(w http.ResponseWriter, r *http.Request) {
	write := r.URL.Query().Get("dry_run") == ""
	u, err := s.p.Forget(r.Context(), r.PathValue("name"), write)
	switch {
	case err == nil:
		if write {
			s.asked(r, "an operator forgot a sink", slog.String("sink", u.Name), slog.Uint64("pending", u.Pending))
		}
		answer(w, http.StatusOK, forgotten{u.Name, u.Pending})
	case errors.Is(err, pipeline.ErrUnknownSink):
		answer(w, http.StatusNotFound, errorAnswer{err.Error()})
	case errors.Is(err, pipeline.ErrConfigured):
		answer(w, http.StatusConflict, errorAnswer{err.Error()})
	default:
		answer(w, http.StatusInternalServerError, errorAnswer{err.Error()})
	}
}

func (s *server) replay(w http.ResponseWriter, r *http.Request) {
	var q replayRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		answer(w, http.StatusBadRequest, errorAnswer{"read request: " + err.Error()})
		return
	}
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	begun := false
	say := func(l replayLine) {
		if !begun {
			w.Header().Set("Content-Type", "application/x-ndjson")
			begun = true
		}
		_ = enc.Encode(l) // whoever is gone cancels the request,
		_ = flush.Flush() // and so the replay
	}
	s.asked(r, "an operator replays dead letters", slog.Int("numbers", len(q.Filter.IDs)), slog.String("sink", q.Filter.Sink), slog.String("event_id", q.Filter.EventID))
	summary, err := s.p.Replay(r.Context(), pipeline.ReplayOptions{
		Filter: q.Filter,
		Begin:  func(n uint64) { say(replayLine{Selected: &n}) },
		Each:   func(l pipeline.LetterResult) { say(replayLine{Letter: &l}) },
	})
	if err != nil && !begun {
		code := http.StatusInternalServerError
		if errors.Is(err, pipeline.ErrReplaying) {
			code = http.StatusConflict
		}
		answer(w, code, errorAnswer{err.Error()})
		return
	}
	l := replayLine{Summary: &summary}
	if err != nil {
		l.Error = err.Error()
	}
	if errors.Is(err, context.Canceled) { // and somebody is still there to read it
		l.Error = "the daemon is stopping: what was stored is stored, replay again for the rest"
	}
	say(l)
	s.log.Info("an operator's replay has ended", slog.Uint64("selected", summary.Selected), slog.Uint64("stored", summary.Stored),
		slog.Uint64("skipped", summary.Skipped), slog.Uint64("refused", summary.Refused), slog.Uint64("later", summary.Later), slog.String("error", l.Error))
}
