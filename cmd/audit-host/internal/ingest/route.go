package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/audit-host/audit-host/event"
)

// failure is an answer that ends a request before any event was accepted.
type failure struct {
	code  int
	text  string
	key   string // of one further header; may be empty
	value string
}

func (f *failure) Error() string { return f.text }

func fail(code int, format string, args ...any) *failure {
	return &failure{code: code, text: fmt.Sprintf(format, args...)}
}

func (f *failure) with(key, value string) *failure {
	f.key, f.value = key, value
	return f
}

// retryAfter is what a client is asked to wait before it repeats, in seconds.
const retryAfter = "1"

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for i := range s.o.Routes {
		rt := &s.o.Routes[i]
		serve := s.endpoint(func(w http.ResponseWriter, r *http.Request) *failure {
			f := s.take(rt, w, r)
			if f != nil && f.code < 500 && rt.Format.OnBad == event.KeepBad {
				// The client repeats it for ever, so somebody should know.
				s.refused(r, f.code, f.text)
			}
			return f
		}, true, http.MethodPost)
		for _, pattern := range rt.Format.Paths {
			mux.Handle(pattern, serve)
		}
	}
	mux.Handle("/-/healthy", s.endpoint(s.healthy, false, http.MethodGet, http.MethodHead))
	mux.Handle("/-/ready", s.endpoint(s.ready, false, http.MethodGet, http.MethodHead))
	if s.o.Metrics != nil {
		mux.Handle("/metrics", s.endpoint(s.metrics, true, http.MethodGet, http.MethodHead))
	}
	mux.Handle("/", s.endpoint(s.nothing, false))
	return mux
}

type endpoint func(http.ResponseWriter, *http.Request) *failure

// endpoint wraps what every request goes through: the count of requests under
// way, the method, the browser's and the host's origin, the token. Without
// methods any is served.
func (s *Server) endpoint(serve endpoint, secret bool, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.begin() {
			w.Header().Set("Connection", "close")
			refuse(w, fail(http.StatusServiceUnavailable, "shutting down").with("Retry-After", retryAfter))
			return
		}
		defer s.requests.end()
		f := checkMethod(r, methods)
		if f == nil {
			f = s.checkOrigin(r)
		}
		if f == nil && secret {
			f = s.checkToken(r)
		}
		if f != nil { // anybody could fill the log with these
			refuse(w, f)
			return
		}
		if f = serve(w, r); f == nil {
			return
		}
		if f.code >= 500 {
			s.refused(r, f.code, f.text)
		}
		refuse(w, f)
	})
}

// refused logs a request that was refused.
func (s *Server) refused(r *http.Request, code int, text string) {
	s.refusals.warn(r, s.o.Log, "request refused", slog.String("path", cut(r.URL.Path)),
		slog.Int("status", code), slog.String("error", text))
}

func refuse(w http.ResponseWriter, f *failure) {
	if f.key != "" {
		w.Header().Set(f.key, f.value)
	}
	writeJSON(w, f.code, struct {
		Error string `json:"error"`
	}{f.text})
}

func checkMethod(r *http.Request, methods []string) *failure {
	for _, m := range methods {
		if r.Method == m {
			return nil
		}
	}
	if len(methods) == 0 {
		return nil
	}
	allow := strings.Join(methods, ", ")
	return fail(http.StatusMethodNotAllowed, "the method is not served here, only %s", allow).with("Allow", allow)
}

// checkOrigin keeps web pages out. A browser on the machine reaches a loopback
// address, and so do the pages it shows: by a request across origins, which the
// browser marks, or under a name of their own that they let point at 127.0.0.1,
// which shows in Host. With a token neither gets anywhere.
func (s *Server) checkOrigin(r *http.Request) *failure {
	if err := s.origin.Check(r); err != nil {
		return fail(http.StatusForbidden, "a web page of another origin can't send events")
	}
	if s.o.Token != "" || r.Host == "" {
		return nil
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil || strings.EqualFold(host, "localhost") {
		return nil
	}
	return fail(http.StatusMisdirectedRequest,
		"without a token only an IP address or localhost is answered, not %q: set http.token_file to use names", cut(host))
}

// checkToken compares hashes, so that neither the token's bytes nor its length
// show in the time it takes.
func (s *Server) checkToken(r *http.Request) *failure {
	if s.o.Token == "" {
		return nil
	}
	given := r.Header.Get("Authorization")
	if given == "" {
		return fail(http.StatusUnauthorized, "a bearer token is needed: Authorization: Bearer TOKEN").
			with("WWW-Authenticate", `Bearer realm="audit-host"`)
	}
	scheme, token, _ := strings.Cut(given, " ")
	sum := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], s.token[:]) != 1 {
		return fail(http.StatusUnauthorized, "the bearer token is not the right one").
			with("WWW-Authenticate", `Bearer realm="audit-host", error="invalid_token"`)
	}
	return nil
}

func (s *Server) healthy(w http.ResponseWriter, _ *http.Request) *failure {
	writeJSON(w, http.StatusOK, struct {
		Healthy bool `json:"healthy"`
	}{true})
	return nil
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) *failure {
	answer := struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
		// Degraded: events are recorded, and yet something is not as it should be.
		Degraded bool `json:"degraded,omitempty"`
	}{Ready: true}
	if s.o.Ready != nil {
		answer.Ready, answer.Reasons = s.o.Ready(s.o.Token != "" && s.checkToken(r) == nil)
	}
	if answer.Reasons == nil {
		answer.Reasons = []string{}
	}
	answer.Degraded = answer.Ready && len(answer.Reasons) > 0
	code := http.StatusOK
	if !answer.Ready {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, answer)
	return nil
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) *failure {
	s.o.Metrics.ServeHTTP(w, r)
	return nil
}

func (s *Server) nothing(http.ResponseWriter, *http.Request) *failure {
	var posts strings.Builder
	for i := range s.o.Routes {
		fmt.Fprintf(&posts, "POST %s, ", s.o.Routes[i].Format.Paths[0])
	}
	return fail(http.StatusNotFound, "nothing is served here: see %sGET /-/healthy, /-/ready, /metrics", &posts)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	write(w, event.ReplyJSON(code, v))
}

func write(w http.ResponseWriter, reply event.Reply) {
	h := w.Header()
	if reply.Body != nil {
		h.Set("Content-Type", reply.Media)
		h.Set("X-Content-Type-Options", "nosniff")
	}
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(reply.Status)
	if reply.Body != nil {
		reply.Body(w)
	}
}

// maxText is the largest text of ours or of a client in an answer or a log
// line, in bytes.
const maxText = 512

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
