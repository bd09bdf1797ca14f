package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/wire"
)

// The counter budgets of configs/slo.yaml: heap allocations of a whole broker,
// server and engine, per batch of 64 x 1 KiB. The peer in this file allocates
// nothing once it is warm, so what the process allocates is the broker's.

const (
	budgetMessages = 64
	budgetValue    = 1 << 10
	budgetWindow   = 16 // batches in flight
)

// peer is a client that reuses all its memory. Not safe for concurrent use.
type peer struct {
	conn net.Conn
	out  []byte
	in   []byte
	head wire.DeliverHead
}

func (p *peer) write(b []byte) {
	if _, err := p.conn.Write(b); err != nil {
		panic(fmt.Errorf("write: %w", err))
	}
}

// read returns the next frame, valid until the next call.
func (p *peer) read() (wire.Header, []byte) {
	var err error
	if _, err = io.ReadFull(p.conn, p.in[:4]); err == nil {
		n := int(binary.LittleEndian.Uint32(p.in)) + 4
		if n > cap(p.in) {
			p.in = append(make([]byte, 0, 2*n), p.in[:4]...)
		}
		p.in = p.in[:n]
		_, err = io.ReadFull(p.conn, p.in[4:])
	}
	if err != nil {
		panic(fmt.Errorf("read: %w", err))
	}
	h, err := wire.ParseHeader(p.in, wire.DefaultMaxFrame)
	if err != nil {
		panic(err)
	}
	return h, p.in[wire.HeaderBytes:]
}

// ask sends one request and returns the answer, skipping what the broker sends
// by itself.
func (p *peer) ask(op wire.Opcode, handle uint32, req wire.Payload) (wire.Header, []byte) {
	p.out = wire.AppendFrame(p.out[:0], wire.Header{Opcode: op, Correlation: 1, Handle: handle}, req)
	p.write(p.out)
	for {
		h, payload := p.read()
		if h.Opcode == op|wire.ResponseBit {
			return h, payload
		}
		if h.Opcode == wire.OpError|wire.ResponseBit {
			var e wire.Error
			if err := e.Parse(payload); err != nil {
				panic(err)
			}
			panic(e.Err())
		}
	}
}

func dialPeer(b *testing.B, addr string) *peer {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	p := &peer{conn: conn, in: make([]byte, 4<<20)}
	p.write(wire.AppendPreface(nil, wire.Version, wire.Version))
	p.ask(wire.OpHello, 0, &wire.Hello{ClientName: "budget"})
	return p
}

// budgetBroker starts a broker with one topic of one partition.
func budgetBroker(b *testing.B, visibility message.AckLevel, tailBytes int) (addr string) {
	b.Helper()
	engine, err := disklog.Open(vfs.OS(), b.TempDir(), disklog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := server.New(server.Options{Listen: "127.0.0.1:0", Engine: engine, TailBytes: tailBytes})
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	b.Cleanup(func() {
		s.Close()
		<-ended
		if err := engine.Close(); err != nil {
			b.Error(err)
		}
	})
	p := dialPeer(b, s.Addr().String())
	p.ask(wire.OpTopicCreate, 0, &wire.TopicCreate{Name: "budget", Partitions: 1, Visibility: visibility})
	return s.Addr().String()
}

// budgetProducer keeps a window of batches in flight.
type budgetProducer struct {
	*peer
	frame    []byte // one PRODUCE frame; its batch's sequence is rewritten
	handle   uint32
	inFlight int
	credit   int64
}

func newBudgetProducer(b *testing.B, addr string, level message.AckLevel) *budgetProducer {
	b.Helper()
	p := &budgetProducer{peer: dialPeer(b, addr)}
	h, payload := p.ask(wire.OpOpenProducer, 0, &wire.OpenProducer{Topic: "budget", Ack: level, CreditWanted: 4 << 20})
	var ok wire.OpenProducerOK
	if err := ok.Parse(payload); err != nil {
		b.Fatal(err)
	}
	p.handle, p.credit = h.Handle, int64(ok.Credit)
	builder := message.NewBuilder(message.DefaultLimits())
	value := make([]byte, budgetValue)
	for i := range budgetMessages {
		value[0] = byte(i)
		if err := builder.Append(&message.Message{Value: value, Timestamp: 1}); err != nil {
			b.Fatal(err)
		}
	}
	batch, err := builder.Finish(nil, message.Producer{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	header := wire.Header{Opcode: wire.OpProduce, Correlation: 7, Handle: p.handle}
	p.frame = append(wire.AppendProduceFrame(nil, header, 0, len(batch)), batch...)
	return p
}

// send sends one batch, waiting for answers while the window or the credit is
// used up.
func (p *budgetProducer) send() {
	for p.inFlight == budgetWindow || p.credit < int64(len(p.frame)) {
		p.answer()
	}
	p.write(p.frame)
	p.inFlight++
	p.credit -= int64(len(p.frame))
}

// answer takes one frame from the broker.
func (p *budgetProducer) answer() {
	h, payload := p.read()
	switch h.Opcode {
	case wire.OpProduce | wire.ResponseBit:
		var ok wire.ProduceOK
		if err := ok.Parse(payload); err != nil {
			panic(err)
		}
		p.credit += int64(ok.Credit)
		p.inFlight--
	case wire.OpCredit:
		var c wire.Credit
		if err := c.Parse(payload); err != nil {
			panic(err)
		}
		p.credit += int64(c.Bytes)
	case wire.OpPing:
	default:
		panic(fmt.Sprintf("unexpected frame %v", h.Opcode))
	}
}

func (p *budgetProducer) drain() {
	for p.inFlight > 0 {
		p.answer()
	}
}

// countAllocs runs work for b.N batches after as many to warm up and reports
// the heap allocations of the second half.
func countAllocs(b *testing.B, work func(batches int)) {
	b.Helper()
	work(max(b.N/2, 200))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	work(b.N)
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "allocs/batch")
	b.SetBytes(budgetMessages * budgetValue)
}

func BenchmarkBudgetProduce(b *testing.B) {
	for _, level := range []message.AckLevel{message.AckAccepted, message.AckDurable} {
		b.Run("ack="+level.String(), func(b *testing.B) {
			p := newBudgetProducer(b, budgetBroker(b, level, 0), level)
			countAllocs(b, func(batches int) {
				for range batches {
					p.send()
				}
				p.drain()
			})
		})
	}
}

// budgetConsumer subscribes to the partition from its beginning.
type budgetConsumer struct {
	*peer
	handle uint32
	ahead  int // batches received beyond what was asked for
}

func newBudgetConsumer(b *testing.B, addr string, start wire.StartKind, credit uint64) *budgetConsumer {
	b.Helper()
	c := &budgetConsumer{peer: dialPeer(b, addr)}
	h, _ := c.ask(wire.OpSubscribe, 0, &wire.Subscribe{Topic: "budget", Start: start, Credit: credit})
	c.handle = h.Handle
	return c
}

// receive takes deliveries until they held that many batches more, giving back
// the credit of each.
func (c *budgetConsumer) receive(batches int) {
	c.ahead -= batches
	for c.ahead < 0 {
		h, payload := c.read()
		if h.Opcode != wire.OpDeliver {
			continue
		}
		if _, err := wire.ParseDeliver(payload, &c.head); err != nil {
			panic(err)
		}
		for _, r := range c.head.Runs {
			c.ahead += int(r.Batches)
		}
		credit := wire.Credit{Bytes: uint64(h.FrameBytes())}
		var mark int
		c.out, mark = wire.BeginFrame(c.out[:0], wire.Header{Opcode: wire.OpCredit, Handle: c.handle})
		c.out = wire.EndFrame(credit.Append(c.out), mark)
		c.write(c.out)
	}
}

// BenchmarkBudgetDeliver counts produce and deliver together at the tail, and
// deliver alone from history.
func BenchmarkBudgetDeliver(b *testing.B) {
	b.Run("from=tail", func(b *testing.B) {
		addr := budgetBroker(b, message.AckAccepted, 0)
		p := newBudgetProducer(b, addr, message.AckAccepted)
		c := newBudgetConsumer(b, addr, wire.StartLatest, 1<<20)
		countAllocs(b, func(batches int) {
			received := make(chan struct{})
			go func() {
				c.receive(batches)
				close(received)
			}()
			for range batches {
				p.send()
			}
			p.drain()
			<-received
		})
	})
	b.Run("from=history", func(b *testing.B) {
		addr := budgetBroker(b, message.AckAccepted, 64<<10)
		p := newBudgetProducer(b, addr, message.AckAccepted)
		for range b.N + max(b.N/2, 200) {
			p.send()
		}
		p.drain()
		c := newBudgetConsumer(b, addr, wire.StartEarliest, 1<<20)
		countAllocs(b, c.receive)
	})
}
