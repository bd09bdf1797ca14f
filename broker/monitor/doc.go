// Package monitor shows what a broker does: metrics, health, profiles and the
// Report, over HTTP on a listener of its own.
//
// # Paths
//
//	/metrics          Prometheus
//	/healthz          200 while the process answers
//	/readyz           200, or 503 with the reasons, as JSON
//	/stats            the Report, as JSON
//	/debug/pprof/...  profiles, as net/http/pprof has them
//	/debug/flight     the last seconds of the execution trace
package monitor
