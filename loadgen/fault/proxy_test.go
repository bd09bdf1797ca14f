package fault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/loadgen/launch/launchtest"
)

func TestMain(m *testing.M) { launchtest.Main(m, func() error { return goleak.Find() }) }

// patience is how long a test waits for what must happen. How long what it waits
// for may take is not asked: the machine may be slow.
const patience = 30 * time.Second

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	return serve(t, func(c net.Conn) { io.Copy(c, c) })
}

// serve handles each connection on a goroutine.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	var all []net.Conn
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			work.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range all {
			c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return l.Addr().String()
}

func proxy(t *testing.T, target string) *Proxy {
	t.Helper()
	p, err := Listen(target, ProxyOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// ping sends a byte and waits for it.
func ping(c net.Conn) (time.Duration, error) {
	began := time.Now()
	c.SetDeadline(began.Add(patience))
	if _, err := c.Write([]byte{1}); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return time.Since(began), err
}

// unanswered sends a byte that must not come back.
func unanswered(t *testing.T, what string, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte{1}); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	c.SetReadDeadline(time.Now().Add(60 * time.Millisecond))
	if _, err := io.ReadFull(c, make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %v", what, err)
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Everything passes as it is, both ways at once, half-closed ends included.
func TestEverythingPasses(t *testing.T) {
	p := proxy(t, echo(t))
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			c := dial(t, p.Addr())
			data := make([]byte, 3<<20+i)
			r := rand.NewChaCha8([32]byte{byte(i)})
			r.Read(data)
			go func() {
				c.Write(data)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
				t.Errorf("%d of %d bytes came back, %v", len(got), len(data), err)
			}
		})
	}
	work.Wait()
	if s := p.Stats(); s.Opened != 4 || s.ToTarget != s.ToBack || s.ToTarget != 4*3<<20+6 {
		t.Errorf("%+v", s)
	}
}

// The proxy does what its delays say, which TestDelays measures: nothing comes
// back early, and all of it in order. The machine may be slow; it is never fast.
func TestLatency(t *testing.T) {
	const latency = 150 * time.Millisecond
	p := proxy(t, echo(t))
	c := dial(t, p.Addr())
	quickest := func(n int) time.Duration {
		best := time.Hour
		for range n {
			d, err := ping(c)
			if err != nil {
				t.Fatal(err)
			}
			best = min(best, d)
		}
		return best
	}
	quickest(1)
	for _, n := range []Network{{Latency: latency}, {Latency: latency, Rate: 1 << 20}} {
		p.Shape(n)
		if d := quickest(2); d < 2*latency {
			t.Errorf("%+v: %v there and back", n, d)
		}
	}
	// What was sent first arrives first.
	p.Shape(Network{Jitter: 30 * time.Millisecond})
	var sent, got bytes.Buffer
	go func() {
		for i := range 200 {
			c.Write([]byte{byte(i)})
		}
	}()
	for i := range 200 {
		sent.WriteByte(byte(i))
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.CopyN(&got, c, 200); err != nil || !bytes.Equal(got.Bytes(), sent.Bytes()) {
		t.Errorf("%v; order lost: %v", err, got.Bytes())
	}
	// Mended, a round trip over loopback needs a thousandth of what it took.
	p.Shape(Network{})
	if d := quickest(50); d >= 2*latency {
		t.Errorf("mended: %v", d)
	}
}

// Every nth read is late, and counted; the others pass at once.
func TestHiccups(t *testing.T) {
	p := proxy(t, echo(t))
	c := dial(t, p.Addr())
	p.Shape(Network{Hiccup: 60 * time.Millisecond, HiccupEvery: 5})
	late := 0
	for range 20 {
		d, err := ping(c)
		if err != nil {
			t.Fatal(err)
		}
		if d >= 60*time.Millisecond {
			late++
		}
	}
	if n := p.Stats().Hiccups; n != 4 || late < 4 {
		t.Errorf("%d hiccups, %d answers late: want 4", n, late)
	}
}

// However many connections share it, no more passes than the rate allows, and at
// least a tenth of that on any machine. That the link gives all of its rate is
// in TestLink, without a clock.
func TestRate(t *testing.T) {
	sink := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for _, tt := range []struct {
		rate, conns int
	}{{1 << 20, 1}, {8 << 20, 3}, {32 << 20, 2}} {
		p := proxy(t, sink)
		p.Shape(Network{Rate: tt.rate})
		began := time.Now() // before the first byte
		var work sync.WaitGroup
		for range tt.conns {
			c := dial(t, p.Addr())
			work.Go(func() {
				b := make([]byte, 64<<10)
				for {
					if _, err := c.Write(b); err != nil {
						return // reset below
					}
				}
			})
		}
		for want := int64(tt.rate); p.Stats().ToTarget < want; time.Sleep(time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Errorf("rate %d over %d connections: %d bytes in %v", tt.rate, tt.conns, p.Stats().ToTarget, time.Since(began))
				break
			}
		}
		n := p.Stats().ToTarget // first: what passes after it is not in it
		took := time.Since(began)
		if most := (took + catchUp).Seconds() * float64(tt.rate); float64(n) > most*1.001 {
			t.Errorf("rate %d over %d connections: %d bytes in %v, at most %.0f", tt.rate, tt.conns, n, took, most)
		}
		p.Reset()
		work.Wait()
	}
}

// A slow link has a short queue: what does not fit waits with its sender.
func TestSlowLinkDoesNotHoard(t *testing.T) {
	p := proxy(t, serve(t, func(c net.Conn) { io.Copy(io.Discard, c) }))
	p.Shape(Network{Rate: 1 << 20})
	c := dial(t, p.Addr())
	c.SetWriteBuffer(64 << 10)
	for range 10 { // the windows of the sockets open with the first bytes
		c.Write(make([]byte, 64<<10))
	}
	var sent int64 = 10 * 64 << 10
	c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for {
		n, err := c.Write(make([]byte, 16<<10))
		sent += int64(n)
		if err != nil {
			break
		}
	}
	if queued := sent - p.Stats().ToTarget; queued > 1<<20 {
		t.Errorf("%d KiB wait before a link of 1 MiB/s", queued>>10)
	}
}

func TestPartitionHeals(t *testing.T) {
	p := proxy(t, echo(t))
	c := dial(t, p.Addr())
	if _, err := ping(c); err != nil {
		t.Fatal(err)
	}
	p.Partition(true)
	unanswered(t, "across a partition", c)
	fresh := dial(t, p.Addr())
	unanswered(t, "across a partition, a new connection", fresh)
	p.Partition(false)
	for name, c := range map[string]net.Conn{"old": c, "new": fresh} {
		// What was sent into the partition arrives after it.
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("%s connection: %v", name, err)
		}
		if _, err := ping(c); err != nil {
			t.Errorf("%s connection after the partition: %v", name, err)
		}
	}
}

func TestResetAndRefuse(t *testing.T) {
	p := proxy(t, echo(t))
	c := dial(t, p.Addr())
	if _, err := ping(c); err != nil {
		t.Fatal(err)
	}
	p.Refuse(true)
	if _, err := ping(c); !isReset(err) {
		t.Errorf("after a reset: %v", err)
	}
	if fresh, err := net.Dial("tcp", p.Addr()); err == nil {
		if _, err := ping(fresh); !isReset(err) {
			t.Errorf("a new connection: %v", err)
		}
		fresh.Close()
	}
	p.Refuse(false)
	if _, err := ping(dial(t, p.Addr())); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if s := p.Stats(); s.Refused == 0 {
		t.Errorf("%+v", s)
	}
}

// A half-open connection tells nobody anything; a new one works.
func TestHalfOpen(t *testing.T) {
	ended := make(chan error, 2)
	p := proxy(t, serve(t, func(c net.Conn) {
		_, err := io.Copy(c, c)
		ended <- err
	}))
	c := dial(t, p.Addr())
	if _, err := ping(c); err != nil {
		t.Fatal(err)
	}
	end := p.Silence()
	unanswered(t, "on a silent connection", c)
	fresh := dial(t, p.Addr())
	if _, err := ping(fresh); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	c.CloseWrite()
	select {
	case err := <-ended:
		t.Errorf("the server was told: %v", err)
	case <-time.After(60 * time.Millisecond): // long enough to catch one that is told at once
	}
	end()
	select {
	case err := <-ended:
		if !isReset(err) {
			t.Errorf("the server was told %v", err)
		}
	case <-time.After(patience):
		t.Error("the server was not told at the end")
	}
	if _, err := ping(fresh); err != nil {
		t.Errorf("the new connection, after the end: %v", err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, at := range []string{"0.0.0.0:0", "[::]:0", "10.0.0.1:80", "localhost:0", "nonsense"} {
		if p, err := Listen("127.0.0.1:1", ProxyOptions{Listen: at}); err == nil {
			p.Close()
			t.Errorf("listens on %s", at)
		}
	}
	if _, err := Listen("nowhere", ProxyOptions{}); err == nil {
		t.Error("a target without a port was accepted")
	}
	// A target that is not there is a reset for the client.
	p := proxy(t, "127.0.0.1:1")
	if c, err := net.Dial("tcp", p.Addr()); err == nil { // or it was reset before Dial looked
		defer c.Close()
		if _, err := ping(c); err == nil {
			t.Error("an answer out of nowhere")
		}
	}
}
