//go:build linux

package lean

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/portask/portask/broker/message"
)

// ProducerOptions describe the load. The zero value of a field is its default.
type ProducerOptions struct {
	BatchMessages int // messages a batch, 64
	MessageBytes  int // bytes of a message's value, 1024
	// Distinct is how many different batches are sent in turn, 16: enough not
	// to be one cache line's game, few enough to stay out of the way.
	Distinct    int
	WindowBytes int // sent and not yet acknowledged, 4 MiB
	WriteBytes  int // most bytes of one write, 256 KiB; at least one batch
	// BacklogBytes is how much may be sent and not yet verified by the consumer,
	// 8 MiB, if Progress is set.
	BacklogBytes int
	Progress     *Progress
}

func (o *ProducerOptions) setDefaults() error {
	for _, f := range []struct {
		name  string
		v     *int
		def   int
		limit int
	}{
		{"batch messages", &o.BatchMessages, 64, 65_536},
		{"message bytes", &o.MessageBytes, 1024, 1 << 20},
		{"distinct batches", &o.Distinct, 16, 1024},
		{"window bytes", &o.WindowBytes, 4 << 20, 1 << 30},
		{"write bytes", &o.WriteBytes, 256 << 10, 64 << 20},
		{"backlog bytes", &o.BacklogBytes, 8 << 20, 1 << 30},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < 1 || *f.v > f.limit {
			return fmt.Errorf("%s %d: want 1 to %d", f.name, *f.v, f.limit)
		}
	}
	return nil
}

// Producer sends phases on one connection. Not safe for concurrent use.
type Producer struct {
	c   *conn
	end producerEnd
	o   ProducerOptions

	// frames stand one behind another in buf, so that one write takes several.
	// All have the same length: the head's and the batch's lengths do not vary.
	buf        []byte
	envelopes  []message.Envelope
	frameBytes int
	headBytes  int
	last       []byte // frame of the batch that ends a phase
	lastEnv    message.Envelope

	sequence uint32 // of the next message
	sent     uint32 // batches, all phases
	batches  int64  // as sent, without wrapping
	unacked  int    // batches
	answers  []byte // bytes of answers, the tail of an incomplete one in front
	held     int
}

// DialProducer connects and prepares the batches.
func DialProducer(addr netip.AddrPort, t Target, o ProducerOptions) (*Producer, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	c, err := dial(addr)
	if err != nil {
		return nil, err
	}
	p := &Producer{c: c, o: o, answers: make([]byte, 64<<10)}
	if p.end, err = t.openProducer(c); err == nil {
		err = p.prepare()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return p, nil
}

// Close closes the connection.
func (p *Producer) Close() { p.c.close() }

func (p *Producer) prepare() error {
	random := rand.NewChaCha8([32]byte{'l', 'e', 'a', 'n'})
	b := message.NewBuilder(message.DefaultLimits())
	now := time.Now().UnixMicro()
	value := make([]byte, p.o.MessageBytes)
	for i := range p.o.Distinct + 1 {
		m := message.Message{Value: value, Timestamp: now}
		if i == p.o.Distinct {
			m.Priority = endPriority
		}
		b.Reset()
		for range p.o.BatchMessages {
			random.Read(value)
			if err := b.Append(&m); err != nil {
				return fmt.Errorf("encode a batch: %w", err)
			}
		}
		batch, err := b.Finish(nil, p.end.id(), nil)
		if err != nil {
			return fmt.Errorf("encode a batch: %w", err)
		}
		lim := message.DefaultLimits()
		env, err := message.ParseEnvelope(batch, &lim)
		if err != nil {
			return fmt.Errorf("encode a batch: %w", err)
		}
		if i == p.o.Distinct {
			p.last, p.lastEnv = append(p.end.appendHead(nil, len(batch)), batch...), env
			continue
		}
		start := len(p.buf)
		p.buf = p.end.appendHead(p.buf, len(batch))
		p.headBytes = len(p.buf) - start
		p.buf = append(p.buf, batch...)
		p.frameBytes = len(p.buf) - start
		p.envelopes = append(p.envelopes, env)
	}
	p.buf = slices.Clip(p.buf)
	if len(p.buf) != p.frameBytes*p.o.Distinct {
		return fmt.Errorf("frames of %d bytes do not fill %d", p.frameBytes, len(p.buf))
	}
	return nil
}

// Run sends for d, or exactly the given number of batches if that is not 0,
// then the end batch, and returns when all are acknowledged.
func (p *Producer) Run(d time.Duration, batches int64) (Phase, error) {
	var ph Phase
	calls, cpu := p.c.syscalls, usage()
	ph.StartNs = monotonic()
	deadline := ph.StartNs + int64(d)
	perWrite := max(1, p.o.WriteBytes/p.frameBytes)
	window := max(1, p.o.WindowBytes/p.frameBytes)
	backlog := max(perWrite, p.o.BacklogBytes/p.frameBytes)
	next := 0
	for {
		if batches > 0 && ph.Batches >= batches || batches == 0 && monotonic() >= deadline {
			break
		}
		n := min(perWrite, window-p.unacked, p.o.Distinct-next)
		if batches > 0 {
			n = min(n, int(min(batches-ph.Batches, 1<<20)))
		}
		n = int(min(int64(n), p.end.room()/int64(p.frameBytes)))
		if n <= 0 {
			if err := p.take(); err != nil {
				return ph, err
			}
			continue
		}
		p.o.Progress.wait(uint64(p.batches), backlog)
		p.batches += int64(n)
		for i := next; i < next+n; i++ {
			p.stamp(p.buf[i*p.frameBytes:(i+1)*p.frameBytes], &p.envelopes[i])
		}
		if err := p.c.write(p.buf[next*p.frameBytes : (next+n)*p.frameBytes]); err != nil {
			return ph, err
		}
		next = (next + n) % p.o.Distinct
		p.unacked += n
		ph.Batches += int64(n)
		if err := p.collect(window - perWrite); err != nil {
			return ph, err
		}
	}
	p.stamp(p.last, &p.lastEnv)
	if err := p.c.write(p.last); err != nil {
		return ph, err
	}
	ph.Batches++
	p.batches++
	p.unacked++
	if err := p.collect(0); err != nil {
		return ph, err
	}
	ph.EndNs = monotonic()
	ph.Messages = ph.Batches * int64(p.o.BatchMessages)
	ph.Bytes = ph.Batches * int64(p.frameBytes-p.headBytes)
	ph.CPUSeconds, ph.Syscalls = usage()-cpu, p.c.syscalls-calls
	return ph, nil
}

// stamp gives a frame the next sequence: the one thing that differs each time
// a batch is sent.
func (p *Producer) stamp(frame []byte, e *message.Envelope) {
	e.BaseSequence = p.sequence
	message.AppendEnvelope(frame[p.headBytes:p.headBytes], e, 0)
	p.end.stamp(frame, p.sent)
	p.sequence += uint32(p.o.BatchMessages)
	p.sent++
}

// collect reads answers until at most that many batches are unacknowledged.
// Until then it does not look: answers that wait in the socket cost nothing.
func (p *Producer) collect(most int) error {
	for p.unacked > max(most, 0) {
		if err := p.take(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Producer) take() error {
	n, err := p.c.read(p.answers[p.held:])
	if err != nil {
		return errClosed(err)
	}
	p.held += n
	used, batches, err := p.end.answers(p.answers[:p.held])
	if err != nil {
		return err
	}
	p.held = copy(p.answers, p.answers[used:p.held])
	if p.unacked -= batches; p.unacked < 0 {
		return fmt.Errorf("%d more batches acknowledged than sent", -p.unacked)
	}
	if p.held == len(p.answers) {
		return fmt.Errorf("an answer of more than %d bytes, beginning % x", p.held, binary.LittleEndian.Uint64(p.answers))
	}
	return nil
}
