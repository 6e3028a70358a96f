package metrics

import "github.com/prometheus/client_golang/prometheus"

// Egress is what the http capability of one sink has done.
type Egress struct {
	Sink string
	// Requests counts those that the plugin asked for, Refused those that its
	// grant does not allow, at whatever hop. Sent and Received are bytes of
	// bodies.
	Requests, Refused, Sent, Received uint64
}

// egressMetric is one number of every sink that has the capability.
type egressMetric struct {
	desc *prometheus.Desc
	get  func(Egress) uint64
}

func egressMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) []egressMetric {
	return []egressMetric{
		{desc("egress_requests_total", "HTTP requests that the plugin asked for.", "sink"), func(e Egress) uint64 { return e.Requests }},
		{desc("egress_refused_total", "HTTP requests, redirects among them, that the grant does not allow.", "sink"), func(e Egress) uint64 { return e.Refused }},
		{desc("egress_sent_bytes_total", "Bytes of bodies that were sent.", "sink"), func(e Egress) uint64 { return e.Sent }},
		{desc("egress_received_bytes_total", "Bytes of bodies that were received.", "sink"), func(e Egress) uint64 { return e.Received }},
	}
}
