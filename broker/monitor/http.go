package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/portask/portask/broker/fault"
)

// Bounds of the admin listener. They are for a handful of probes and scrapers;
// who needs more is not one.
const (
	connsMax    = 64 // more wait in the kernel's queue
	requestsMax = 16 // more are answered with 503, but for those of probes
	headerBytes = 16 << 10
	bodyBytes   = 64 << 10

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second // beyond the seconds that a profile was asked for
	idleTimeout       = time.Minute
)

func (m *Monitor) server() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: errorLog{m.opts.Logger}, ErrorHandling: promhttp.ContinueOnError, Registry: m.registry,
		EnableOpenMetrics: true, CoalesceGather: true,
		DisableCompression: true, // it would double the cost of a scrape to save some 5 KiB/s
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, struct {
			Alive  bool          `json:"alive"`
			Uptime time.Duration `json:"uptime_ns"`
		}{true, time.Since(m.began)})
	})
	mux.HandleFunc("GET /readyz", m.readyz)
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, m.Report()) })
	mux.HandleFunc("GET /debug/compression", m.debugCompression)
	if !m.opts.NoProfiling {
		m.profiles.handle(mux)
	}
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, fault.New(fault.NotFound, "admin request").WithField("path").WithDetail("there are /metrics, /healthz, /readyz, /stats, /debug/compression and /debug/pprof/"))
	})
	return &http.Server{
		Handler: m.guard(mux), ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(m.opts.Logger.Handler(), slog.LevelDebug),
	}
}

// alwaysAnswered are the paths of probes: they cost next to nothing and never
// wait, and a broker must not look dead because somebody asks much of it here.
var alwaysAnswered = map[string]bool{"/healthz": true, "/readyz": true}

// guard bounds requests, but for those of probes, and refuses those of web pages.
func (m *Monitor) guard(next http.Handler) http.Handler {
	local := isLoopback(hostOf(m.ln.Addr().String()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local && !sentHere(r.Host) {
			refuse(w, fault.New(fault.Unauthorized, "admin request").WithField("host").
				WithDetail("%.80q is neither localhost nor an IP address", r.Host))
			return
		}
		if !alwaysAnswered[r.URL.Path] {
			select {
			case m.requests <- struct{}{}:
			default:
				refuse(w, fault.New(fault.ResourceExhausted, "admin request").WithField("requests").
					WithLimit(requestsMax+1, requestsMax).WithRetryAfter(time.Second))
				return
			}
			defer func() { <-m.requests }()
		}
		r.Body = http.MaxBytesReader(w, r.Body, bodyBytes)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

// sentHere reports whether a Host header names a machine by something that nobody
// else can make point here.
func sentHere(hostport string) bool {
	host := hostOf(hostport)
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' { // without a port
		host = host[1 : n-1]
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, fault.New(fault.Internal, "admin request").WithCause(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // an error is the connection's, which is gone
}

// refusal is an error as it is answered.
type refusal struct {
	Error string `json:"error"`
	Code  string `json:"code"`
	Field string `json:"field,omitempty"`
}

func refusalOf(err *fault.Error) refusal {
	return refusal{err.Error(), err.Code.String(), err.Field}
}

// refuse answers an error with the status of fault's table.
func refuse(w http.ResponseWriter, err *fault.Error) {
	if d := err.RetryAfter; d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
	answer(w, err.Code.Info().HTTP, refusalOf(err))
}

// errorLog takes what promhttp cannot tell its client. That the client has gone,
// of which there is a line for each metric left, is no problem of the broker's.
type errorLog struct{ log *slog.Logger }

func (e errorLog) Println(v ...any) {
	level := slog.LevelWarn
	for _, x := range v {
		var gone *net.OpError
		if err, ok := x.(error); ok && errors.As(err, &gone) {
			level = slog.LevelDebug
		}
	}
	e.log.Log(context.Background(), level, "metrics", "problem", fmt.Sprint(v...))
}

// bounded is a listener with at most so many connections, of clients that may
// connect.
type bounded struct {
	net.Listener
	slots   chan struct{}
	clients []netip.Prefix
	closed  chan struct{}
	once    sync.Once
}

func newBounded(ln net.Listener, n int, clients []netip.Prefix) *bounded {
	return &bounded{Listener: ln, slots: make(chan struct{}, n), clients: clients, closed: make(chan struct{})}
}

func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			<-b.slots
			return nil, err
		}
		if b.welcome(c.RemoteAddr()) {
			return &boundedConn{Conn: c, free: sync.OnceFunc(func() { <-b.slots })}, nil
		}
		_ = c.Close()
	}
}

func (b *bounded) welcome(a net.Addr) bool {
	if len(b.clients) == 0 {
		return true
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap().WithZone("")
	for _, p := range b.clients {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	free func()
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.free()
	return err
}

// readyz answers 200 if the broker should be sent work.
func (m *Monitor) readyz(w http.ResponseWriter, _ *http.Request) {
	ready, all := m.components()
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, struct {
		Ready      bool        `json:"ready"`
		Components []Component `json:"components"`
	}{ready, all})
}
