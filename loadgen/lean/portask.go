//go:build linux

package lean

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// portaskTarget speaks the wire protocol of a broker: HELLO, then one
// idempotent producer or one subscription from the end of the log, on
// partition 0. It takes from the protocol only what a client must do: credit,
// answers, pings.
type portaskTarget struct {
	topic string
	level message.AckLevel
	// corr numbers requests; owned by the one connection that is opened.
	corr uint32
}

const (
	partition = 0
	// subscriptionCredit is granted at first and kept topped up: eight
	// deliveries of the largest size, so that the server never waits for credit
	// while the consumer works.
	subscriptionCredit = 8 << 20
	// creditStep is how much is used up before a CREDIT frame gives it back.
	creditStep = subscriptionCredit / 4
	// deliverBytes asks for the broker's own default.
	deliverBytes = 1 << 20
)

// request sends one request and parses its answer into ok; handle is the one in
// the answer's header.
func (t *portaskTarget) request(c *conn, op wire.Opcode, req wire.Payload, ok wire.Payload) (handle uint32, err error) {
	t.corr++
	var out []byte
	if op == wire.OpHello {
		out = wire.AppendPreface(out, wire.Version, wire.Version)
	}
	if err := c.write(wire.AppendFrame(out, wire.Header{Opcode: op, Correlation: t.corr}, req)); err != nil {
		return 0, err
	}
	return readAnswer(c, op, t.corr, ok)
}

// readAnswer reads one whole frame, which must answer the request op of that
// correlation, and parses its payload into ok.
func readAnswer(c *conn, op wire.Opcode, corr uint32, ok wire.Payload) (handle uint32, err error) {
	frame := make([]byte, wire.HeaderBytes)
	if err := c.readFull(frame); err != nil {
		return 0, fmt.Errorf("%v: %w", op, errClosed(err))
	}
	h, err := wire.ParseHeader(frame, wire.DefaultMaxFrame)
	if err != nil {
		return 0, fmt.Errorf("%v: %w", op, err)
	}
	payload := make([]byte, h.FrameBytes()-wire.HeaderBytes)
	if err := c.readFull(payload); err != nil {
		return 0, fmt.Errorf("%v: %w", op, errClosed(err))
	}
	if h.Opcode == wire.OpError.Response() {
		return 0, fmt.Errorf("%v: %w", op, parseError(payload))
	}
	if h.Opcode != op.Response() || h.Correlation != corr {
		return 0, fmt.Errorf("%v: answered by %v of request %d", op, h.Opcode, h.Correlation)
	}
	return h.Handle, ok.Parse(payload)
}

func parseError(payload []byte) error {
	var e wire.Error
	if err := e.Parse(payload); err != nil {
		return err
	}
	return e.Err()
}

func (c *conn) readFull(p []byte) error {
	for len(p) > 0 {
		n, err := c.read(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (t *portaskTarget) hello(c *conn) (wire.HelloOK, error) {
	var ok wire.HelloOK
	_, err := t.request(c, wire.OpHello, &wire.Hello{
		MaxFrame: wire.DefaultMaxFrame, HeartbeatMs: uint32(wire.MaxHeartbeat.Milliseconds()),
		ClientName: "portask-loadgen-lean",
	}, &ok)
	return ok, err
}

func (t *portaskTarget) openProducer(c *conn) (producerEnd, error) {
	if t.level == message.AckNone {
		return nil, fmt.Errorf("ack level none: the lean producer counts answers")
	}
	if _, err := t.hello(c); err != nil {
		return nil, err
	}
	var ok wire.OpenProducerOK
	handle, err := t.request(c, wire.OpOpenProducer, &wire.OpenProducer{Topic: t.topic, Ack: t.level, Idempotent: true}, &ok)
	if err != nil {
		return nil, err
	}
	return &portaskProducer{c: c, handle: handle, open: ok, credit: int64(ok.Credit)}, nil
}

type portaskProducer struct {
	c      *conn
	handle uint32
	open   wire.OpenProducerOK
	credit int64 // bytes of PRODUCE frames that may still be sent
}

func (p *portaskProducer) id() message.Producer {
	return message.Producer{ID: p.open.ProducerID, Epoch: p.open.ProducerEpoch}
}

func (p *portaskProducer) room() int64 { return p.credit }

func (p *portaskProducer) appendHead(dst []byte, n int) []byte {
	return wire.AppendProduceFrame(dst, wire.Header{Handle: p.handle}, partition, n)
}

func (p *portaskProducer) stamp(frame []byte, n uint32) {
	binary.LittleEndian.PutUint32(frame[8:], n+1) // correlation: 0 means not asked
	p.credit -= int64(len(frame))
}

func (p *portaskProducer) answers(b []byte) (used, batches int, err error) {
	for {
		h, payload, err := splitFrame(b[used:])
		if payload == nil || err != nil {
			return used, batches, err
		}
		used += h.FrameBytes()
		switch h.Opcode {
		case wire.OpProduce.Response():
			var ok wire.ProduceOK
			if err := ok.Parse(payload); err != nil {
				return used, batches, err
			}
			p.credit += int64(ok.Credit)
			batches++
		case wire.OpCredit:
			var cr wire.Credit
			if err := cr.Parse(payload); err != nil {
				return used, batches, err
			}
			p.credit += int64(cr.Bytes)
		default:
			if err := other(p.c, h, payload); err != nil {
				return used, batches, err
			}
		}
	}
}

// splitFrame returns the frame at the front of b; payload is nil while it is
// incomplete.
func splitFrame(b []byte) (wire.Header, []byte, error) {
	if len(b) < wire.HeaderBytes {
		return wire.Header{}, nil, nil
	}
	h, err := wire.ParseHeader(b, wire.DefaultMaxFrame)
	if err != nil || len(b) < h.FrameBytes() {
		return h, nil, err
	}
	return h, b[wire.HeaderBytes:h.FrameBytes():h.FrameBytes()], nil
}

// other handles what a server may send at any time.
func other(c *conn, h wire.Header, payload []byte) error {
	switch h.Opcode {
	case wire.OpPing:
		out, mark := wire.BeginFrame(nil, wire.Header{Opcode: wire.OpPing.Response(), Correlation: h.Correlation})
		return c.write(wire.EndFrame(append(out, payload...), mark))
	case wire.OpError.Response():
		return parseError(payload)
	case wire.OpGoAway:
		return fmt.Errorf("the server is going away: %w", io.EOF)
	}
	return fmt.Errorf("unexpected %v", h.Opcode)
}

func (t *portaskTarget) openConsumer(c *conn) (consumerEnd, error) {
	if _, err := t.hello(c); err != nil {
		return nil, err
	}
	var ok wire.SubscribeOK
	handle, err := t.request(c, wire.OpSubscribe, &wire.Subscribe{
		Topic: t.topic, Partition: partition, Start: wire.StartLatest,
		Credit: subscriptionCredit, MaxDeliverBytes: deliverBytes,
	}, &ok)
	if err != nil {
		return nil, err
	}
	return &portaskConsumer{c: c, handle: handle}, nil
}

type portaskConsumer struct {
	c      *conn
	handle uint32
	head   wire.DeliverHead
	used   int // of the credit, not yet given back
}

func (k *portaskConsumer) next(b []byte) ([]byte, int, error) {
	h, payload, err := splitFrame(b)
	if err != nil || payload == nil {
		size := 0
		if len(b) >= wire.HeaderBytes {
			size = h.FrameBytes()
		}
		return nil, size, err
	}
	if h.Opcode != wire.OpDeliver {
		return nil, h.FrameBytes(), other(k.c, h, payload)
	}
	batches, err := wire.ParseDeliver(payload, &k.head)
	if err != nil {
		return nil, h.FrameBytes(), err
	}
	return batches, h.FrameBytes(), nil
}

func (k *portaskConsumer) consumed(c *conn, n int) error {
	if k.used += n; k.used < creditStep {
		return nil
	}
	out := wire.AppendFrame(nil, wire.Header{Opcode: wire.OpCredit, Handle: k.handle}, &wire.Credit{Bytes: uint64(k.used)})
	k.used = 0
	return c.write(out)
}
