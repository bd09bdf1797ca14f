package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestDialErrors: what may answer instead of a broker, and the error each gets.
func TestDialErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(nc net.Conn) // nil: nobody listens
		want   fault.Code
		text   string
	}{
		{"nobody", nil, fault.ConnectionLost, "refused"},
		{"silence", func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }, fault.Timeout, "HELLO_OK"},
		{"hangs up", func(nc net.Conn) { _ = nc.Close() }, fault.ConnectionLost, ""},
		{"web server", func(nc net.Conn) { _, _ = nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, fault.TooLarge, ""},
		{"zeros", func(nc net.Conn) { _, _ = nc.Write(make([]byte, 100)) }, fault.ProtocolViolation, ""},
		{"other version", func(nc net.Conn) {
			_, err := wire.Negotiate(7, 9)
			_, _ = nc.Write(refuse(wire.Header{Opcode: wire.OpHello, Correlation: 1}, err))
		}, fault.VersionUnsupported, "7 to 9"},
		{"another answer", func(nc net.Conn) {
			_, _ = nc.Write(reply(wire.Header{Opcode: wire.OpProduce}, &wire.ProduceOK{}))
		}, fault.ProtocolViolation, "opcode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wg sync.WaitGroup
				dial := func(context.Context, string, string) (net.Conn, error) {
					if c.answer == nil {
						return nil, errors.New("connection refused")
					}
					ours, theirs := net.Pipe()
					wg.Go(func() {
						if c.name == "hangs up" {
							c.answer(ours)
							return
						}
						wg.Go(func() { c.answer(ours) })
						if c.name != "silence" {
							_, _ = io.Copy(io.Discard, ours)
						}
					})
					return theirs, nil
				}
				cl, err := Dial(t.Context(), "fake:1", WithDialer(dial))
				if cl != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %v, want %v with %q", err, c.want, c.text)
				}
				wg.Wait()
			})
		})
	}
	for _, o := range []Option{
		WithName(strings.Repeat("x", 300)), WithLogger(nil), WithTimeouts(0, time.Second), WithTimeouts(time.Second, 0), WithConns(0),
		WithConns(1000), WithBackoff(time.Second, time.Millisecond), WithHeartbeat(-1), WithDialer(nil), WithLimits(message.Limits{}),
	} {
		if _, err := Dial(t.Context(), "fake:1", o); !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.TooLarge) {
			t.Errorf("bad option: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, "127.0.0.1:1"); !errors.Is(err, context.Canceled) || !errors.Is(err, fault.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

// TestHeartbeat: a silent broker is dead after three intervals, one that
// answers PING is not, however idle the client is.
func TestHeartbeat(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client(WithHeartbeat(2 * time.Second))
		defer c.Close()
		time.Sleep(time.Hour)
		b.set(func() {
			if b.dials != 1 {
				t.Errorf("%d connections in an idle hour", b.dials)
			}
			b.hook = func(s *session, h wire.Header, _ []byte) bool { return h.Opcode == wire.OpPing && b.dials == 1 }
		})
		began := time.Now()
		for {
			time.Sleep(100 * time.Millisecond)
			n := 0
			b.set(func() { n = b.dials })
			if n == 2 {
				break
			}
		}
		if took := time.Since(began); took < 4*time.Second || took > 9*time.Second {
			t.Errorf("a silent broker was left after %v, want about 3 intervals of 2 s", took)
		}
	})
}

func TestAnswersPing(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		var got uint64
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode == wire.OpPing.Response() {
					var x wire.Ping
					if err := x.Parse(payload); err != nil || h.Correlation != 5 {
						t.Errorf("PONG %+v: %v", h, err)
					}
					got = x.Nonce
				}
				return false
			}
			for s := range b.sessions {
				s.later(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpPing, Correlation: 5}, &wire.Ping{Nonce: 99}))
			}
		})
		synctest.Wait()
		b.set(func() {
			if got != 99 {
				t.Errorf("nonce %d", got)
			}
		})
		if d, err := c.Admin().Ping(t.Context()); err != nil || d != 0 {
			t.Errorf("ping took %v of virtual time: %v", d, err)
		}
	})
}

// TestGoAway: no new batch goes to a broker that leaves, what is in flight is
// answered, and the rest goes to the next connection.
func TestGoAway(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage)
		k := consumer(t, c, From(Earliest))
		var held []func()
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if b.dials > 1 || h.Opcode != wire.OpProduce {
					return false
				}
				if len(held) == 2 {
					t.Error("a batch was sent after GOAWAY")
				}
				payload = slices.Clone(payload)
				held = append(held, func() {
					out, _ := s.answer(h, payload)
					s.later(out...)
				})
				return true
			}
		})
		var o outcomes
		sendAll(t, p, &o, "a", "b")
		synctest.Wait()
		b.set(func() {
			for s := range b.sessions {
				s.later(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpGoAway}, &wire.GoAway{Reason: wire.GoAwayShuttingDown, DrainMs: 5000}))
			}
		})
		synctest.Wait()
		sendAll(t, p, &o, "c", "d")
		time.Sleep(2 * time.Second)
		b.set(func() {
			if b.dials != 1 {
				t.Error("the connection was left before its answers came")
			}
			for _, f := range held {
				f()
			}
		})
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.want(t, "a @0, b @1, c @2, d @3")
		b.deliver()
		if got := read(t, k, 4); got != "abcd" {
			t.Errorf("consumed %s", got)
		}
		if b.dials != 2 {
			t.Errorf("%d connections", b.dials)
		}
	})
}

// TestGoAwayElsewhere: GOAWAY names a node; the client goes there, and comes
// back when it cannot.
func TestGoAwayElsewhere(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		var dialed []string
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialed = append(dialed, addr)
			if addr == "nowhere:1" {
				return nil, errors.New("no such node")
			}
			return b.dial(ctx, network, addr)
		}
		c := b.client(WithDialer(dial))
		defer c.Close()
		p := producer(t, c)
		for _, node := range []string{"other:1", "nowhere:1"} {
			b.set(func() {
				for s := range b.sessions {
					s.later(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpGoAway}, &wire.GoAway{Reason: wire.GoAwayMoved, DrainMs: 100, Node: node}))
				}
			})
			time.Sleep(5 * time.Second)
			if _, err := p.Send(t.Context(), value("v")); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(dialed, " "); got != "fake:1 other:1 nowhere:1 fake:1" {
			t.Errorf("connected to %s", got)
		}
	})
}

// TestGoAwayDeadline: answers that never come are not waited for beyond the
// broker's time.
func TestGoAwayDeadline(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if b.dials > 1 || h.Opcode != wire.OpProduce {
					return false
				}
				s.later(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpGoAway}, &wire.GoAway{DrainMs: 5000}))
				return true
			}
		})
		began := time.Now()
		if _, err := p.Send(t.Context(), value("a")); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestAdmin goes through all requests.
func TestAdmin(t *testing.T) {
	story(t, 2, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		a := c.Admin()
		ctx := t.Context()
		created, err := a.CreateTopic(ctx, TopicConfig{Name: "bills", Partitions: 3, Retention: Unlimited})
		if err != nil || created.Name != "bills" || len(created.Partitions) != 3 || created.Retention != Unlimited || len(created.Levels) != 3 {
			t.Errorf("created %+v: %v", created, err)
		}
		if _, err := a.CreateTopic(ctx, TopicConfig{Name: "bills"}); !errors.Is(err, fault.Exists) {
			t.Errorf("created twice: %v", err)
		}
		if _, err := a.CreateTopic(ctx, TopicConfig{Name: "x", Partitions: 5000}); !errors.Is(err, fault.Invalid) {
			t.Errorf("5000 partitions: %v", err)
		}
		keep := 90 * time.Second
		if x, err := a.AlterTopic(ctx, "bills", TopicChange{Retention: &keep}); err != nil || x.Retention != keep {
			t.Errorf("altered %+v: %v", x, err)
		}
		if all, err := a.ListTopics(ctx); err != nil || len(all) != 2 || all[0].Name != "bills" || all[1].Name != "orders" {
			t.Errorf("an answer in two frames: %+v, %v", all, err)
		}
		if x, err := a.DescribeTopic(ctx, "orders"); err != nil || len(x.Partitions) != 2 || x.Partitions[1].Health.String() != "ok" {
			t.Errorf("described %+v: %v", x, err)
		}
		if _, err := a.DescribeTopic(ctx, "nowhere"); !errors.Is(err, fault.NotFound) {
			t.Errorf("an unknown topic: %v", err)
		}
		if o, err := a.ListOffsets(ctx, "orders", 0, Earliest); err != nil || o.Offset != 0 || !o.Timestamp.Equal(time.UnixMicro(77)) {
			t.Errorf("offsets %+v: %v", o, err)
		}
		if err := a.DeleteTopic(ctx, "bills"); err != nil {
			t.Error(err)
		}
		if err := a.DeleteTopic(ctx, "bills"); !errors.Is(err, fault.NotFound) {
			t.Errorf("deleted twice: %v", err)
		}
		for _, name := range []string{"", "..", "a b", strings.Repeat("x", 250)} {
			if err := a.DeleteTopic(ctx, name); !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.TooLarge) {
				t.Errorf("name %q: %v", name, err)
			}
		}
	})
}

// TestAdminAcrossLoss: reading is repeated, changing is not.
func TestAdminAcrossLoss(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if b.dials%2 == 1 && h.Opcode != wire.OpHello {
					_ = s.nc.Close()
					return true
				}
				return false
			}
		})
		if _, err := c.Admin().DescribeTopic(t.Context(), "orders"); err != nil {
			t.Errorf("describe: %v", err)
		}
		b.cut()
		synctest.Wait()
		time.Sleep(time.Second)
		if _, err := c.Admin().CreateTopic(t.Context(), TopicConfig{Name: "x"}); !errors.Is(err, fault.ConnectionLost) {
			t.Errorf("create: %v", err)
		}
		b.set(func() { b.down = true })
		b.cut()
		synctest.Wait()
		_, err := c.Admin().ListTopics(ctxFor(t, time.Second))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("no broker: %v", err)
		}
	})
}

// TestCallTimeout: an answer that never comes, one that comes too late, and
// Close while waiting.
func TestCallTimeout(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client(WithTimeouts(time.Second, 3*time.Second))
		var late []func()
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode == wire.OpMetadata {
					payload = slices.Clone(payload)
					late = append(late, func() {
						out, _ := s.answer(h, payload)
						s.later(out...)
					})
				}
				return h.Opcode == wire.OpMetadata
			}
		})
		began := time.Now()
		if _, err := c.Admin().ListTopics(context.Background()); !errors.Is(err, fault.Timeout) || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		b.set(func() { late[0]() })
		synctest.Wait()
		if _, err := c.Admin().Ping(t.Context()); err != nil {
			t.Errorf("a late answer harmed the connection: %v", err)
		}
		done := make(chan error)
		go func() { _, err := c.Admin().ListTopics(context.Background()); done <- err }()
		synctest.Wait()
		_ = c.Close()
		if err := <-done; !errors.Is(err, fault.Closed) {
			t.Errorf("closed while waiting: %v", err)
		}
	})
}

func TestPool(t *testing.T) {
	story(t, 4, func(t *testing.T, b *fake) {
		c := b.client(WithConns(3))
		defer c.Close()
		for i := range uint32(6) {
			p := producer(t, c)
			if _, err := p.SendTo(t.Context(), i%4, value("v")); err != nil {
				t.Fatal(err)
			}
		}
		b.set(func() {
			if len(b.sessions) != 3 {
				t.Errorf("%d connections", len(b.sessions))
			}
			for s := range b.sessions {
				if len(s.producers) != 2 {
					t.Errorf("%d producers on a connection, want 2", len(s.producers))
				}
			}
		})
	})
}

func TestBackoff(t *testing.T) {
	b := backoff{least: 20 * time.Millisecond, most: 2 * time.Second}
	for i := range 100 {
		most := min(20*time.Millisecond<<min(i, 20), 2*time.Second)
		if d := b.next(); d < most/2 || d > most {
			t.Errorf("wait %d is %v, want between %v and %v", i, d, most/2, most)
		}
	}
	b.reset()
	if d := b.next(); d > 20*time.Millisecond {
		t.Errorf("after reset: %v", d)
	}
}

func TestOutbox(t *testing.T) {
	var o outbox
	var want bytes.Buffer
	for round := range 5 {
		want.Reset()
		for i := range 1000 {
			if i%3 == 0 {
				b := fmt.Appendf(nil, "<large %d>", i)
				o.add(b)
				want.Write(b)
				continue
			}
			o.end(fmt.Appendf(o.begin(frameRoom), "(small %d)", i))
			fmt.Fprintf(&want, "(small %d)", i)
		}
		x := o.take()
		if got := bytes.Join(x.bufs, nil); !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("round %d: order or bytes differ", round)
		}
		if len(x.bufs) > 700 {
			t.Errorf("%d slices for 333 large and 667 small frames in 333 groups", len(x.bufs))
		}
		if !o.empty() {
			t.Error("not empty after take")
		}
		o.recycle(x)
	}
}

// FuzzFrameReader: whatever comes, in whatever portions, the reader sees the
// frames one after another and never more than there is.
func FuzzFrameReader(f *testing.F) {
	f.Add(wire.AppendFrame(wire.AppendFrame(nil, wire.Header{Opcode: 4}, &wire.Ping{Nonce: 1}), wire.Header{Opcode: 4}, &wire.Ping{}), uint8(3))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint8(1))
	f.Add(wire.AppendHeader(nil, wire.Header{Length: 40000, Opcode: 49}), uint8(200))
	f.Fuzz(func(t *testing.T, src []byte, portion uint8) {
		in := newFrameReader(&portions{src, int(portion) + 1})
		read := 0
		for {
			h, n, err := in.header(1 << 20)
			if err != nil {
				return
			}
			if h.FrameBytes() != n || n < wire.HeaderBytes || n > 1<<20 {
				t.Fatalf("frame of %d bytes", n)
			}
			var b []byte
			if n%2 == 0 {
				b, err = in.view(n)
			}
			if b == nil && err == nil {
				b = make([]byte, n)
				err = in.read(b)
			}
			if err != nil {
				return
			}
			if !bytes.Equal(b, src[read:read+n]) {
				t.Fatal("other bytes")
			}
			read += n
		}
	})
}

type portions struct {
	b []byte
	n int
}

func (p *portions) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.b)
	p.b = p.b[n:]
	return n, nil
}
