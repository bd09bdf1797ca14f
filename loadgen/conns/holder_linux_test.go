package conns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/launch/launchtest"
)

func TestMain(m *testing.M) { launchtest.Main(m) }

// broker starts one with a topic.
func broker(t *testing.T, partitions int) (o Options, pid int, d driver.Driver) {
	t.Helper()
	b := launchtest.Start(t)
	addr, err := netip.ParseAddrPort(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	d, err = portask.Kind.Open(t.Context(), driver.Options{Addr: b.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if _, err := d.Prepare(t.Context(), driver.Topic{Name: "held", Partitions: partitions, Visibility: message.AckAccepted}); err != nil {
		t.Fatal(err)
	}
	return Options{Addr: addr, Topic: "held", Partitions: partitions}, b.PID(), d
}

// 2,000 connections of a real broker are opened step by step, and its memory is
// read at each. What one of them costs is measured where nothing else runs
// (perflab conns): among other tests a collection of the broker's, or a page it
// gives back, may outweigh the 500 KiB of them all.
func TestTwoThousandConnections(t *testing.T) {
	const n = 2000
	o, pid, _ := broker(t, 4)
	if got := Listener(o.Addr.Port()); got != pid {
		t.Errorf("the process that listens is %d, want %d", got, pid)
	}
	var seen []int
	r, err := Measure(t.Context(), Plan{
		Options: o, Steps: Steps(n), TargetPID: pid, HoldFor: time.Millisecond,
		Progress: func(p Point) { seen = append(seen, p.Connections) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 4 || seen[0] != 100 || seen[3] != n || r.Connections != n || len(r.Points) != 4 || r.HeldFor <= 0 {
		t.Errorf("steps %v, result %+v", seen, r)
	}
	for _, p := range r.Points {
		if p.RSSBytes < 1<<20 || p.RSSBytes > 1<<30 || p.OwnRSSBytes < 1<<20 {
			t.Errorf("%d connections: %d bytes of the broker, %d of this process", p.Connections, p.RSSBytes, p.OwnRSSBytes)
		}
	}
	if slope, base := line(r.Points, func(p Point) int64 { return p.RSSBytes }); r.Slope != slope || r.Base != base {
		t.Errorf("%.0f bytes a connection and %.0f without any, the points say %.0f and %.0f", r.Slope, r.Base, slope, base)
	}
	t.Logf("\n%s", r.Table())
}

// Connections live through their heartbeats, of which each gets several. The
// interval is such that three missed ones, the end of a connection, are more
// than a busy machine takes.
func TestHeartbeats(t *testing.T) {
	const n = 20
	o, _, _ := broker(t, 1)
	o.Heartbeat = 3 * time.Second
	h, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Hold(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); h.Stats().Answered < 2*n; {
		if err := h.Serve(t.Context(), 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, want two answers each", h.Stats())
		}
	}
	if s := h.Stats(); s.Connections != n || s.Answered > s.Heartbeats {
		t.Errorf("%+v of %d connections", s, n)
	}
}

// Less than 100 bytes are allocated for each connection, at every number of them:
// a count, so it does not depend on what else the process or its collector does.
func TestOwnMemory(t *testing.T) {
	o, _, _ := broker(t, 1)
	h, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, n := range []int{1, 2, 100, 101, 1000, 1025, 2000} {
		if err := h.Hold(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if got := h.Stats().Connections; got != n || len(h.conns) != n {
			t.Fatalf("%d connections in %d records, want %d", got, len(h.conns), n)
		}
		each := float64(h.RecordBytes()) / float64(n)
		if size := float64(unsafe.Sizeof(conn{})); each < size || each >= 100 {
			t.Errorf("%d connections: %.1f bytes for each, want %.0f to 99", n, each, size)
		}
		if len(h.left) != 0 {
			t.Errorf("%d connections keep part of a frame", len(h.left))
		}
	}
}

// What is delivered is thrown away, and its credit given back: much more passes
// than was granted at first.
func TestDeliveriesAreThrownAway(t *testing.T) {
	o, _, d := broker(t, 2)
	h, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Hold(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	c, err := d.Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := c.Producer(t.Context(), driver.ProducerOptions{Topic: o.Topic, Ack: message.AckAccepted, Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	const messages, size = 200, 10_000
	for i := range messages {
		if err := p.Slot(func(error) {}).Send(t.Context(), uint32(i%2), &message.Message{Value: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = messages / 2 * size * 10 // half of the messages to each of ten
	for end := time.Now().Add(time.Minute); h.Stats().DeliveredBytes < want; {
		if err := h.Serve(t.Context(), 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, want %d bytes: is credit given back?", h.Stats(), want)
		}
	}
	for i := range h.conns {
		if c := &h.conns[i]; c.used >= credit/2 {
			t.Errorf("connection %d owes %d bytes of credit", i, c.used)
		}
	}
}

// A connection that ends is an error, not a smaller number.
func TestAnEndIsNoticed(t *testing.T) {
	o, pid, _ := broker(t, 1)
	h, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Hold(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.Serve(t.Context(), time.Minute); err == nil || !strings.Contains(err.Error(), "of 50") {
		t.Errorf("the broker was killed: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	o, _, _ := broker(t, 1)
	hold := func(o Options, n int) error {
		h, err := Open(o, 0)
		if err != nil {
			return err
		}
		defer h.Close()
		return h.Hold(t.Context(), n)
	}
	unknown := o
	unknown.Topic = "nothing"
	if err := hold(unknown, 1); !errors.Is(err, fault.NotFound) {
		t.Errorf("a topic that does not exist: %v", err)
	}
	closed := o
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Addr = netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	if err := hold(closed, 1); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	var limit *LimitError
	if err := hold(o, Max); !errors.As(err, &limit) || !errors.Is(err, fault.ResourceExhausted) || limit.Needs < Max || limit.Has == 0 {
		t.Errorf("ten million: %v", err)
	}
	for name, bad := range map[string]Options{
		"IPv6":      {Addr: netip.MustParseAddrPort("[::1]:1"), Topic: "a"},
		"no port":   {Addr: netip.MustParseAddrPort("127.0.0.1:0"), Topic: "a"},
		"a topic":   {Addr: o.Addr, Topic: "a b"},
		"heartbeat": {Addr: o.Addr, Topic: "a", Heartbeat: time.Millisecond},
	} {
		if _, err := Open(bad, 0); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Hold(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What a peer may send that is no answer.
func TestHostilePeers(t *testing.T) {
	greet := wire.AppendFrame(nil, wire.Header{Opcode: wire.OpHello.Response(), Correlation: 1}, &wire.HelloOK{Version: wire.Version})
	huge := wire.AppendFrame(nil, wire.Header{Opcode: wire.OpPing}, &wire.Ping{})
	huge[0], huge[1], huge[2] = 0, 0, 2 // 128 KiB
	for name, says := range map[string][]byte{
		"nonsense":            []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"closes":              {},
		"twice HELLO":         append(append([]byte{}, greet...), greet...),
		"a frame too large":   huge,
		"delivers before":     wire.AppendFrame(nil, wire.Header{Opcode: wire.OpDeliver}, &wire.Ping{}),
		"breaks off in HELLO": greet[:len(greet)-3],
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write(says)
			c.Close()
		}()
		h, err := Open(Options{Addr: netip.MustParseAddrPort(l.Addr().String()), Topic: "a"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Hold(t.Context(), 1); err == nil {
			t.Errorf("%s: subscribed", name)
		}
		h.Close()
		l.Close()
	}
}

func TestSources(t *testing.T) {
	seen := map[[4]byte]bool{}
	for n := range 253 * 300 {
		a := source(n)
		if a[0] != 127 || a[3] < 2 || a[3] > 254 || seen[a] {
			t.Fatalf("address %d is %v, seen before: %v", n, a, seen[a])
		}
		seen[a] = true
	}
}

func TestReadSystem(t *testing.T) {
	s := readSystem(true, os.Getpid())
	if s.soft == 0 || s.openFiles < 3 || s.nrOpen == 0 || s.fileMax == 0 || s.portLow == 0 || s.portHigh <= s.portLow || s.targetSoft != s.soft || s.targetOpen == 0 {
		t.Errorf("%+v", s)
	}
	if Listener(1) != 0 {
		t.Error("somebody listens at port 1")
	}
}

// Whatever a broker sends, in whatever pieces: nothing breaks, and what is kept
// of a connection stays small.
func FuzzRead(f *testing.F) {
	frames := wire.AppendFrame(nil, wire.Header{Opcode: wire.OpHello.Response(), Correlation: 1}, &wire.HelloOK{Version: wire.Version})
	frames = wire.AppendFrame(frames, wire.Header{Opcode: wire.OpSubscribe.Response(), Correlation: 2, Handle: 9}, &wire.SubscribeOK{})
	frames = wire.AppendFrame(frames, wire.Header{Opcode: wire.OpPing, Correlation: 5}, &wire.Ping{Nonce: 3})
	frames = wire.AppendFrame(frames, wire.Header{Opcode: wire.OpDeliver, Handle: 9}, &wire.Ping{})
	f.Add(frames, uint16(7))
	f.Add(frames, uint16(1))
	f.Add(frames, uint16(1000))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[1])
		h := &Holder{epoll: -1, left: map[int32][]byte{}, in: make([]byte, frameMax), conns: []conn{{fd: int32(pair[0]), state: greeting}}, opening: 1}
		defer h.Close()
		subscribed := 0
		for len(b) > 0 {
			n := min(len(b), int(piece%4096)+1)
			if _, err := unix.Write(pair[1], b[:n]); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
			if err := h.read(0, &h.conns[0]); err != nil {
				return
			}
			if n := len(h.left[0]); n >= frameMax {
				t.Fatalf("%d bytes of a frame are kept", n)
			}
			subscribed = h.stats.Connections
		}
		if subscribed > 1 || h.opening < 0 {
			t.Errorf("one connection counts as %d, with %d under way", subscribed, h.opening)
		}
		// Its answers are read by nobody here: they fit the socket.
		unix.Read(pair[1], make([]byte, 1<<16))
	})
}
