package ingest

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/audit-host/audit-host/queue"
)

// A client that meets a full queue again and again does not fill the log, and
// one that has no token writes nothing into it.
func TestWarningsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t, queue.MemoryOptions{MaxEvents: 1}, func(o *Options) {
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			o.Token = "correct horse battery"
		})
		auth := []string{"Authorization", "Bearer correct horse battery"}
		for range 100 {
			r.do(401, request("POST", "/logs", "7"))
		}
		if log.Len() > 0 {
			t.Errorf("logged %s", &log)
		}
		r.post(202, "/v1/events?ack=accepted", one("a"), auth...)
		for range 100 {
			r.post(503, "/v1/events?ack=accepted", one("b"), auth...)
			r.do(503, request("POST", "/logs", one("c"), auth...))
			r.do(415, request("POST", "/logs", "", append(auth, "Content-Encoding", "br")...))
		}
		if got := strings.Count(log.String(), "\n"); got != 2 {
			t.Errorf("%d lines were logged, want 2: %s", got, &log)
		}
		log.Reset()
		<-time.After(time.Second)
		r.post(503, "/v1/events?ack=accepted", one("b"), auth...)
		if got := log.String(); !strings.Contains(got, "and_not_shown=99") || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "from=192.0.2.1:1234") {
			t.Errorf("logged %s", got)
		}
	})
}
