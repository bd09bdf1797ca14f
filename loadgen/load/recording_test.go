package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// recording notes what is sent, without the start of the run's clock.
type recording struct {
	driver.Driver
	mu    sync.Mutex
	sent  []string // guarded by mu
	first int64    // intended time of the first message; guarded by mu
}

func (d *recording) Connect(ctx context.Context, name string) (driver.Conn, error) {
	c, err := d.Driver.Connect(ctx, name)
	return &recordingConn{c, d, name}, err
}

type recordingConn struct {
	driver.Conn
	d    *recording
	name string
}

func (c *recordingConn) Producer(ctx context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	p, err := c.Conn.Producer(ctx, o)
	return &recordingProducer{p, c}, err
}

type recordingProducer struct {
	driver.Producer
	c *recordingConn
}

func (p *recordingProducer) Slot(answered func(error)) driver.Slot {
	return &recordingSlot{p.Producer.Slot(answered), p}
}

type recordingSlot struct {
	driver.Slot
	p *recordingProducer
}

func (s *recordingSlot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	d := s.p.c.d
	d.mu.Lock()
	intended := int64(binary.LittleEndian.Uint64(m.Value[32:]))
	if len(d.sent) == 0 {
		d.first = intended
	}
	// All but the checksum, which covers the intended time.
	d.sent = append(d.sent, fmt.Sprintf("%s %d %s %d %x %x", s.p.c.name, partition, m.Key, intended-d.first, m.Value[8:32], m.Value[40:]))
	d.mu.Unlock()
	return s.Slot.Send(ctx, partition, m)
}
