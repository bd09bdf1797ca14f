// Package monitor shows what a broker does: metrics, health, profiles and the
// Report, over HTTP on a listener of its own, so that neither side's limits or
// load reach the other.
//
//	/metrics          Prometheus; docs/monitoring.md has the names
//	/healthz          200 while the process answers
//	/readyz           200, or 503 with the reasons, as JSON
//	/stats            the Report, as JSON
//	/debug/pprof/...  profiles, as net/http/pprof has them
//	/debug/flight     the last seconds of the execution trace
//
// The main type is Monitor. It listens before there is a broker to show, so that
// a probe tells a broker that recovers its logs from one that is not there; Attach
// gives it the broker. All methods may be called concurrently.
//
// # What it costs the broker
//
// Event loops count in plain fields and store what changed at the end of a turn;
// durations are counted in buckets (package latency). Everything else happens
// here: once in an interval the buckets are merged into HdrHistograms, and whoever
// asks over HTTP has the rest read and computed on a goroutine of the HTTP server,
// the system at most once in an interval. No request waits for an event loop or wakes one.
//
// # Threats
//
// There is no authentication. Who may connect is the listener's address, and
// Options.Clients. Beyond that: requests, connections, headers and times are
// bounded; a listener on loopback answers only requests that were sent to
// localhost or an IP address, so that a web page cannot read it by having its own
// name resolve to loopback.
package monitor
