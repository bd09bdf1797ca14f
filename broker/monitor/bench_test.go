package monitor

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/portask/portask/broker/message"
)

// BenchmarkRequest is what a request costs the broker's process, the connection
// apart: a scrape comes every 15 s or so, a report every second while somebody
// looks.
func BenchmarkRequest(b *testing.B) {
	r := newRig(b, Options{})
	r.attach()
	c := r.dial()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		r.topic(c, name, 4)
		if err := r.send(c, name, 10, message.AckAccepted); err != nil {
			b.Fatal(err)
		}
	}
	for _, path := range []string{"/metrics", "/stats", "/readyz", "/healthz"} {
		b.Run("path="+path[1:]+"/topics=5/partitions=20", func(b *testing.B) {
			req := httptest.NewRequest(http.MethodGet, path, nil)
			req.Host = "localhost"
			b.ReportAllocs()
			bytes := 0
			for b.Loop() {
				w := httptest.NewRecorder()
				r.m.http.Handler.ServeHTTP(w, req)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
				bytes = w.Body.Len()
			}
			b.ReportMetric(float64(bytes), "B/answer")
		})
	}
}
