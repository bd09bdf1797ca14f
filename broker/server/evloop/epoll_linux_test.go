package evloop

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/mempool"
	"golang.org/x/sys/unix"
)

// Connections get the options from the listener, or one by one where they
// cannot inherit them.
func TestSocketOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		listen func(network, addr string) (net.Listener, error)
	}{{"listener=plain", Listen}, {"listener=net.Listen", net.Listen}} {
		t.Run(c.name, func(t *testing.T) {
			fds := make(chan int32, 1)
			h := &hooks{opened: func(l *Loop, c Conn) { fds <- l.slab.get(c).fd }}
			ln, err := c.listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			f := serveOn(t, ln, EngineEpoll, func(int) Handler { return h }, func(o *Options) {
				o.KeepAlive, o.UserTimeout = 40*time.Second, 50*time.Second
			})
			f.dial()
			fd := int(wait(t, fds, "the connection"))
			for _, o := range []struct {
				name             string
				level, opt, want int
			}{
				{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 40},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
				{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 50_000},
			} {
				if v, err := unix.GetsockoptInt(fd, o.level, o.opt); err != nil || v != o.want {
					t.Errorf("%s is %d (%v), want %d", o.name, v, err, o.want)
				}
			}
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
				t.Error("the socket blocks")
			}
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("children inherit the socket")
			}
		})
	}
}

func TestUnixListener(t *testing.T) {
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	f := serveOn(t, ln, EngineEpoll, func(int) Handler { return echo() }, nil)
	c, err := net.Dial("unix", f.srv.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u := unitOf(5000, 1)
	mustWrite(t, c, u)
	mustReadUnit(t, c, u)
}

// The promise of the hot path: no allocation for a unit and its reply, small or
// cut by reads, nor for a wake.
func TestNothingIsAllocatedPerUnit(t *testing.T) {
	if raceEnabled || mempool.LeaseCheck {
		t.Skip("the race detector allocates, and so do checked leases")
	}
	h := echo()
	woken := make(chan struct{}, 1)
	h.woken = func(*Loop) { woken <- struct{}{} }
	ln, _ := Listen("tcp", "127.0.0.1:0")
	s, err := New(ln, Options{Loops: 1, Handler: func(int) Handler { return h }, OutPerConnBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve() }()
	defer func() { s.Close(); <-served }()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, n := range []int{40, 1000, 100_000} {
		u := unitOf(n, 1)
		buf := make([]byte, n)
		trip := func() {
			c.Write(u[:n/3])
			c.Write(u[n/3:])
			if _, err := io.ReadFull(c, buf); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			trip()
		}
		if a := testing.AllocsPerRun(200, trip); a != 0 {
			t.Errorf("echo of %d bytes: %v allocations", n, a)
		}
	}
	wake := func() { s.Loops()[0].Wake(); <-woken }
	wake()
	if a := testing.AllocsPerRun(200, wake); a != 0 {
		t.Errorf("Wake: %v allocations", a)
	}
}

// storm opens n connections from several source addresses, as raw descriptors,
// and sends first on each. It returns a function that closes them.
func storm(t testing.TB, addr net.Addr, n int, first []byte) func() {
	port := addr.(*net.TCPAddr).Port
	fds := make([]int, 0, n)
	for i := range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		fds = append(fds, fd)
		src := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + i/8000)}}
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, src); err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if _, err := unix.Write(fd, first); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

func rssBytes() int {
	b, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	pages, _ := strconv.Atoi(f[1])
	return pages * os.Getpagesize()
}

// What an idle connection holds after it has spoken: its record. Counted on the
// heap and in the pool; the benchmark measures the process.
func TestIdleConnectionsHoldNothing(t *testing.T) {
	if raceEnabled || mempool.LeaseCheck {
		t.Skip("the race detector's pool has other sizes, and checked records have a history")
	}
	const n = 2000
	pool := mempool.NewPool(mempool.Options{})
	units := make(chan struct{}, n)
	h := &hooks{unit: func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
		units <- struct{}{}
		return nil
	}}
	idle := make(chan struct{}, 1)
	h.tick = func(l *Loop, _ int64) {
		if l.idleTicks >= 2 && l.slab.Live() == n {
			select {
			case idle <- struct{}{}:
			default:
			}
		}
	}
	f := serve(t, EngineEpoll, func(int) Handler { return h }, func(o *Options) {
		o.Pool, o.wrap = pool, nil
	})
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	closeAll := storm(t, f.srv.Addr(), n, unitOf(40, 1))
	for range n {
		wait(t, units, "a unit")
	}
	wait(t, idle, "the loop to be idle")
	each := (heap() - before) / n
	t.Logf("%d bytes of heap each, beside %d of record", each, recordBytes)
	if each+recordBytes > 100 {
		t.Errorf("an idle connection holds %d bytes", each+recordBytes)
	}
	if s := pool.Stats(); s.LiveBytes != 0 {
		t.Errorf("idle connections hold chunks: %v", s)
	}
	closeAll()
}

const clientEnv = "EVLOOP_TEST_CLIENT"

// BenchmarkIdleConnections measures resident memory per idle connection. The
// clients live in another process, a second run of this test program.
func BenchmarkIdleConnections(b *testing.B) {
	for _, c := range []struct {
		name  string
		first []byte
	}{{"pending=none", unitOf(40, 1)}, {"pending=8B", unitOf(40, 1)[:8]}, {"pending=20B", unitOf(40, 1)[:20]}} {
		b.Run(c.name, func(b *testing.B) {
			var lim unix.Rlimit
			unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
			n := min(19_000, int(lim.Cur)-500)
			ln, err := Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			idle := make(chan struct{}, 1)
			h := &hooks{tick: func(l *Loop, _ int64) {
				if l.idleTicks >= 3 && l.slab.Live() == n {
					select {
					case idle <- struct{}{}:
					default:
					}
				}
			}}
			s, err := New(ln, Options{Loops: 1, Handler: func(int) Handler { return h },
				PreTimeout: -1, PartialTimeout: -1, IdleTimeout: -1})
			if err != nil {
				b.Fatal(err)
			}
			go s.Serve()
			defer s.Close()
			for b.Loop() {
				runtime.GC()
				before := rssBytes()
				cmd := exec.Command(os.Args[0], "-test.run=^TestClientProcess$")
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%d,%x", clientEnv, s.Addr(), n, c.first))
				in, _ := cmd.StdinPipe()
				out, _ := cmd.StdoutPipe()
				if err := cmd.Start(); err != nil {
					b.Fatal(err)
				}
				bufio.NewReader(out).ReadString('\n')
				<-idle
				b.ReportMetric(float64(rssBytes()-before)/float64(n), "B/conn")
				b.ReportMetric(float64(n), "conns")
				in.Close()
				cmd.Wait()
			}
		})
	}
}

// TestClientProcess is the other end of BenchmarkIdleConnections.
func TestClientProcess(t *testing.T) {
	spec := strings.Split(os.Getenv(clientEnv), ",")
	if len(spec) != 3 {
		return
	}
	addr, err := net.ResolveTCPAddr("tcp", spec[0])
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(spec[1])
	var first []byte
	fmt.Sscanf(spec[2], "%x", &first)
	closeAll := storm(t, addr, n, first)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	closeAll()
}

// BenchmarkIngest: one client writes 64 KiB at a time, the handler retains and
// releases each unit as a broker does while it appends.
func BenchmarkIngest(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		for _, engine := range []string{EngineEpoll, EngineStd} {
			b.Run(fmt.Sprintf("engine=%s/unit=%d", engine, size), func(b *testing.B) {
				want := 64 << 20 / size
				seen := 0
				done := make(chan struct{}, 1)
				h := &hooks{unit: func(_ *Loop, _ Conn, u []byte, ch *mempool.Chunk) error {
					ch.Gen()
					ch.Retain()
					ch.Release()
					if seen++; seen%want == 0 {
						done <- struct{}{}
					}
					return nil
				}}
				ln, err := Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				s, err := New(ln, Options{Loops: 1, Handler: func(int) Handler { return h }, Engine: engine})
				if err != nil {
					b.Fatal(err)
				}
				go s.Serve()
				defer s.Close()
				c, err := net.Dial("tcp", s.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				u := unitOf(size, 1)
				var chunk []byte
				for len(chunk) < 64<<10 {
					chunk = append(chunk, u...)
				}
				per := len(chunk) / size
				b.SetBytes(64 << 20)
				before := s.Stats()
				for b.Loop() {
					for range want / per {
						c.Write(chunk)
					}
					<-done
				}
				after := s.Stats()
				b.ReportMetric(float64(after.Reads-before.Reads)/float64(b.N), "reads/op")
				b.ReportMetric(float64(after.Turns-before.Turns)/float64(b.N), "turns/op")
			})
		}
	}
}

// BenchmarkEcho: round trips of 1 KiB, one connection and many.
func BenchmarkEcho(b *testing.B) {
	for _, conns := range []int{1, 64} {
		for _, engine := range []string{EngineEpoll, EngineStd} {
			b.Run(fmt.Sprintf("engine=%s/conns=%d", engine, conns), func(b *testing.B) {
				ln, err := Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				s, err := New(ln, Options{Loops: 1, Handler: func(int) Handler { return echo() }, Engine: engine})
				if err != nil {
					b.Fatal(err)
				}
				go s.Serve()
				defer s.Close()
				var cs []net.Conn
				for range conns {
					c, err := net.Dial("tcp", s.Addr().String())
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					cs = append(cs, c)
				}
				u := unitOf(1<<10, 1)
				buf := make([]byte, len(u))
				for b.Loop() {
					for _, c := range cs {
						c.Write(u)
					}
					for _, c := range cs {
						io.ReadFull(c, buf)
					}
				}
			})
		}
	}
}
