package ingest

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// forgetful takes all events and keeps none.
type forgetful struct{}

func (forgetful) Submit(context.Context, abi.Event) (queue.Receipt, error) {
	return queue.Receipt{}, nil
}

// A bad element costs no more than a good one: who sends them is refused, and must
// not keep others from being served.
func BenchmarkElement(b *testing.B) {
	for _, c := range []struct{ name, element string }{
		{"good", `{"agent_id":"a","action":{"kind":"k"},"decision":{"decision":"refuse","rule_id":"R","reason":"r"}}`},
		{"zero", `0`},
		{"object", `{}`},
		{"member", `{"agent_id":"a","action":{"kind":"k"},"decision":{"decision":"refuse","rule_id":"R","reason":"r"},"agentid":1}`},
		{"text", `{"agent_id":"a","action":{"kind":"k"},"decision":{"decision":"refuse","rule_id":"R","reason":"\u0000"}}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, queue.MemoryOptions{MaxEvents: 1 << 20, MaxBytes: 1 << 30}, func(o *Options) {
				o.Routes[0].Intake = forgetful{}
				o.Routes[0].Parse = func(raw []byte) (abi.Event, string, error) {
					e, d, err := event.ParseNative(raw, event.Options{})
					return e, d.Kind, err
				}
			})
			const n = 1000
			body := []byte("[" + strings.Repeat(c.element+",", n-1) + c.element + "]")
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/events?ack=accepted", bytes.NewReader(body))
				r.Handler().ServeHTTP(w, req)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
		})
	}
}
