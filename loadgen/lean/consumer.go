//go:build linux

package lean

import (
	"fmt"
	"net/netip"

	"github.com/portask/portask/broker/message"
)

// ConsumerOptions describe the receiving side. Zero fields take their defaults.
type ConsumerOptions struct {
	ReadBytes int       // receive buffer, 1 MiB; it grows to the largest unit
	Progress  *Progress // if set, told of every verified batch
}

// Consumer receives phases on one connection. Not safe for concurrent use.
type Consumer struct {
	c    *conn
	end  consumerEnd
	prog *Progress
	lim  message.Limits
	buf  []byte
	held int

	sequence uint32 // expected of the next batch
}

// DialConsumer connects and subscribes to what comes from now on.
func DialConsumer(addr netip.AddrPort, t Target, o ConsumerOptions) (*Consumer, error) {
	if o.ReadBytes == 0 {
		o.ReadBytes = 1 << 20
	}
	if o.ReadBytes < 4<<10 || o.ReadBytes > 64<<20 {
		return nil, fmt.Errorf("receive buffer of %d bytes: want 4 KiB to 64 MiB", o.ReadBytes)
	}
	c, err := dial(addr)
	if err != nil {
		return nil, err
	}
	k := &Consumer{c: c, prog: o.Progress, lim: message.DefaultLimits(), buf: make([]byte, o.ReadBytes)}
	if k.end, err = t.openConsumer(c); err != nil {
		c.close()
		return nil, err
	}
	return k, nil
}

// Close closes the connection.
func (k *Consumer) Close() { k.c.close() }

// Run receives until the batch that ends a phase, and checks every batch on
// the way: envelope, CRC32C of the body, and that no sequence is missing or
// repeated. The phase starts with its first byte, not with the call.
func (k *Consumer) Run() (Phase, error) {
	var ph Phase
	calls := k.c.syscalls
	var cpu float64
	for {
		n, err := k.c.read(k.buf[k.held:])
		if err != nil {
			return ph, errClosed(err)
		}
		if ph.StartNs == 0 {
			ph.StartNs, cpu = monotonic(), usage()
		}
		k.held += n
		at, done, before := 0, false, ph.Batches
		for {
			batches, size, err := k.end.next(k.buf[at:k.held])
			if err != nil {
				return ph, err
			}
			if size > len(k.buf)-at && at == 0 {
				grown := make([]byte, size)
				copy(grown, k.buf[:k.held])
				k.buf = grown
			}
			if size == 0 || size > k.held-at {
				break
			}
			at += size
			last, err := k.verify(&ph, batches)
			if err != nil {
				return ph, err
			}
			done = done || last
		}
		k.prog.add(ph.Batches - before)
		k.held = copy(k.buf, k.buf[at:k.held])
		if err := k.end.consumed(k.c, at); err != nil {
			return ph, err
		}
		if done {
			ph.EndNs = monotonic()
			ph.CPUSeconds, ph.Syscalls = usage()-cpu, k.c.syscalls-calls
			return ph, nil
		}
	}
}

// verify checks the batches of one unit and counts them. last: one of them
// ends the phase.
func (k *Consumer) verify(ph *Phase, b []byte) (last bool, err error) {
	for len(b) > 0 {
		e, err := message.ParseEnvelope(b, &k.lim)
		if err != nil {
			return false, fmt.Errorf("batch %d: %w", ph.Batches, err)
		}
		if e.Bytes() > len(b) {
			return false, fmt.Errorf("batch %d: %d of its %d bytes", ph.Batches, len(b), e.Bytes())
		}
		if err := message.VerifyBody(b[:e.Bytes()]); err != nil {
			return false, fmt.Errorf("batch %d: %w", ph.Batches, err)
		}
		if e.BaseSequence != k.sequence {
			return false, fmt.Errorf("batch %d: sequence %d, want %d", ph.Batches, e.BaseSequence, k.sequence)
		}
		k.sequence += e.Count
		ph.Batches++
		ph.Messages += int64(e.Count)
		ph.Bytes += int64(e.Bytes())
		last = last || e.Attributes.Priority() == endPriority
		b = b[e.Bytes():]
	}
	return last, nil
}
