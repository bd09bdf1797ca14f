package monitor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/fault"
)

// raw sends bytes and returns the status of the answer, 0 if there is none.
func (r *rig) raw(request string) int {
	r.t.Helper()
	c, err := net.Dial("tcp", r.m.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go io.WriteString(c, request) // it may be answered before it was sent
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// What a browser was lured into, what is too long, and what is not there.
func TestRequestsThatAreRefused(t *testing.T) {
	r := newRig(t, Options{})
	unauthorized := fault.Unauthorized.Info().HTTP
	for request, want := range map[string]int{
		"GET /stats HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n":                                        200,
		"GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n":                                          200,
		"GET /stats HTTP/1.1\r\nHost: [::1]\r\n\r\n":                                              200,
		"GET /stats HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                       unauthorized,
		"GET /debug/pprof/heap HTTP/1.1\r\nHost: localhost.evil.example:7475\r\n\r\n":             unauthorized,
		"GET /stats HTTP/1.0\r\n\r\n":                                                             unauthorized,
		"POST /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n":                    405,
		"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n":                                        404,
		"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n":             431,
		"GET /stats HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("a", 1<<20) + "\r\n\r\n": 431,
		"\x16\x03\x01": 400,
	} {
		if got := r.raw(request + strings.Repeat("\r\n", 4)); got != want {
			t.Errorf("%.60q: %d, want %d", request, got, want)
		}
	}
	if res, err := http.Post("http://"+r.m.Addr().String()+"/debug/pprof/symbol", "", io.LimitReader(zeros{}, 1<<30)); err == nil {
		res.Body.Close() // it was not read to its end
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// So many requests at once are served, and no more; the others are told.
func TestConcurrentRequestsAreBounded(t *testing.T) {
	r := newRig(t, Options{})
	for range requestsMax {
		r.m.requests <- struct{}{}
	}
	status, b, h := r.get("/stats")
	if status != fault.ResourceExhausted.Info().HTTP || h.Get("Retry-After") != "1" || !strings.Contains(string(b), "requests") {
		t.Errorf("one too many: %d %s %v", status, b, h)
	}
	// A probe is answered all the same (this broker is still starting).
	if status, _, _ := r.get("/healthz"); status != http.StatusOK {
		t.Errorf("alive: %d", status)
	}
	if _, b, _ := r.get("/readyz"); !strings.Contains(string(b), "components") {
		t.Errorf("ready: %s", b)
	}
	<-r.m.requests
	if status, _, _ := r.get("/stats"); status != 200 {
		t.Errorf("with room for one: %d", status)
	}
	for range requestsMax - 1 {
		<-r.m.requests
	}
}

// The difference of a profile over some seconds is one of what is done for one at
// a time, and for so long only.
func TestDifferencesOfProfilesAreBounded(t *testing.T) {
	r := newRig(t, Options{})
	for path, want := range map[string]fault.Code{
		"/debug/pprof/heap?seconds=9999999999": fault.TooLarge,
		"/debug/pprof/goroutine?seconds=x":     fault.Invalid,
	} {
		if status, b, _ := r.get(path); status != want.Info().HTTP {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	r.m.profiles.busy.Lock()
	defer r.m.profiles.busy.Unlock()
	if status, b, _ := r.get("/debug/pprof/heap?seconds=1"); status != fault.ResourceExhausted.Info().HTTP {
		t.Errorf("a second one: %d %s", status, b)
	}
	if status, _, _ := r.get("/debug/pprof/heap"); status != 200 {
		t.Errorf("what takes no time: %d", status)
	}
}

// A client that leaves before it has read the metrics fills no log.
func TestClientsThatLeaveAreNoProblem(t *testing.T) {
	var log strings.Builder
	e := errorLog{slog.New(slog.NewTextHandler(&log, nil))}
	e.Println("error encoding and sending metric family:", fmt.Errorf("write: %w", &net.OpError{Op: "write", Err: syscall.EPIPE}))
	if log.Len() > 0 {
		t.Errorf("%s", &log)
	}
	e.Println("error gathering metrics:", errors.New("collected twice"))
	if s := log.String(); !strings.Contains(s, "WARN") || !strings.Contains(s, "collected twice") {
		t.Errorf("a problem of ours: %s", s)
	}
}

// Whoever may not connect is not listened to.
func TestClients(t *testing.T) {
	mine, others := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if status := newRig(t, Options{Clients: mine}).raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 200 {
		t.Errorf("a client that may connect: %d", status)
	}
	if status := newRig(t, Options{Clients: others}).raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 0 {
		t.Errorf("a client that may not connect: %d", status)
	}
	for in, want := range map[string][]string{
		"": nil, " 10.1.2.3/8 , ::1": {"10.0.0.0/8", "::1/128"}, "192.168.1.5": {"192.168.1.5/32"},
	} {
		got, err := ParseClients(in)
		var text []string
		for _, p := range got {
			text = append(text, p.String())
		}
		if err != nil || !slices.Equal(text, want) {
			t.Errorf("%q: %v, %v", in, text, err)
		}
	}
	for _, in := range []string{"x", "10.0.0.0/33", "1.2.3.4,", "fe80::1%eth0", "::ffff:1.2.3.4"} {
		if _, err := ParseClients(in); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzParseClients(f *testing.F) {
	f.Add("10.0.0.0/8, ::1")
	f.Add(",")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseClients(s)
		if err != nil {
			return
		}
		var text []string
		for _, p := range got {
			text = append(text, p.String())
		}
		again, err := ParseClients(strings.Join(text, ","))
		if err != nil || !slices.Equal(again, got) {
			t.Errorf("%q: %v, then %v, %v", s, got, again, err)
		}
	})
}

// pipes is a listener whose connections are in memory, so that a test has its own
// time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:7475"))
}

// Slow clients take connections, for a while: then it is others' turn.
func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		m := &Monitor{opts: Options{}.WithDefaults(), ln: ln, requests: make(chan struct{}, requestsMax)}
		if err := m.register(); err != nil {
			t.Fatal(err)
		}
		srv := m.server()
		var served sync.WaitGroup
		served.Go(func() {
			if err := srv.Serve(newBounded(ln, connsMax, nil)); err != http.ErrServerClosed {
				t.Errorf("serve: %v", err)
			}
		})
		defer served.Wait()
		defer srv.Close()

		began := time.Now()
		var slow sync.WaitGroup
		cut := make([]time.Duration, connsMax)
		for i := range connsMax {
			mine, theirs := net.Pipe()
			ln.conns <- theirs
			slow.Go(func() { // a byte of a header each second
				defer mine.Close()
				slow.Go(func() { io.Copy(io.Discard, mine) })
				for {
					if _, err := mine.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y"[:1])); err != nil {
						cut[i] = time.Since(began)
						return
					}
					time.Sleep(time.Second)
				}
			})
		}
		synctest.Wait()
		mine, theirs := net.Pipe()
		ln.conns <- theirs // accepted as soon as one of the others has gone
		go fmt.Fprint(mine, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(mine), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("after the slow ones: %v, %v", res, err)
		}
		res.Body.Close()
		if d := time.Since(began); d > readHeaderTimeout+2*time.Second {
			t.Errorf("served after %v", d)
		}
		mine.Close()
		slow.Wait()
		if d := slices.Max(cut); d > readHeaderTimeout+2*time.Second {
			t.Errorf("the last slow client was cut after %v", d)
		}
	})
}

// A listener that only this machine reaches, unless it is said otherwise; all
// violations at once.
func TestOptionsCheck(t *testing.T) {
	for listen, ok := range map[string]bool{"127.0.0.1:0": true, "localhost:1": true, "[::1]:1": true, "": true, ":7475": false,
		"0.0.0.0:7475": false, "[::]:1": false, "10.0.0.1:1": false, "example.org:1": false, "127.0.0.1": false} {
		o := Options{Listen: listen}.WithDefaults()
		if err := o.Check(); (err == nil) != ok {
			t.Errorf("%q: %v", listen, err)
		}
		if o.Exposed = true; listen != "127.0.0.1" && o.Check() != nil {
			t.Errorf("%q, exposed: %v", listen, o.Check())
		}
	}
	bad := Options{Listen: "x", Interval: 1, TopicSeries: -2, PartitionSeries: SeriesMax + 1, MutexFraction: -1, BlockRate: -1, FlightBytes: 1, FlightAge: -1}
	err := bad.Check()
	for _, field := range []string{"monitor_listen", "monitor_interval", "topic_series", "partition_series", "mutex_profile", "block_profile", "flight_recorder", "flight_window"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not among the violations: %v", field, err)
		}
	}
	if _, err := New(bad); !errors.Is(err, fault.Invalid) {
		t.Errorf("New: %v", err)
	}
}

// The port above the broker's, or any that is free.
func TestListenNear(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	for near, taken := range map[string]bool{fmt.Sprintf("127.0.0.1:%d", port-1): true, "127.0.0.1:0": false, "": false, "127.0.0.1:65535": false} {
		o := Options{Near: near}.WithDefaults()
		got, err := o.listen()
		if err != nil {
			t.Errorf("near %s: %v", near, err)
			continue
		}
		if a := got.Addr().(*net.TCPAddr); !a.IP.IsLoopback() || taken && a.Port == port {
			t.Errorf("near %s: %v", near, a)
		}
		got.Close()
	}
	ln.Close()
	o := Options{Near: fmt.Sprintf("0.0.0.0:%d", port-1)}.WithDefaults()
	got, err := o.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if a := got.Addr().String(); a != fmt.Sprintf("127.0.0.1:%d", port) {
		t.Errorf("near a broker on port %d: %s", port-1, a)
	}
}
