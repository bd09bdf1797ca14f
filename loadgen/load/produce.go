package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/verify"
)

// producer is one client that sends. send is for one goroutine; answers come
// on another.
type producer struct {
	r     *Run
	index uint32
	conn  *client.Client
	out   *client.Producer
	lanes []*verify.Lane // by partition

	value []byte
	m     message.Message
	slots sync.Pool     // *slot
	free  chan struct{} // closed mode: one element for each message that may still be sent

	ack     *recorder // intended to acknowledged; closed mode: sent to acknowledged
	service *recorder // sent to acknowledged

	closing sync.Once
}

func (r *Run) newProducer(ctx context.Context, i int) (*producer, error) {
	p := &producer{r: r, index: uint32(i), ack: r.acks[i%recorderShards], service: r.services[i%recorderShards]}
	p.slots.New = func() any {
		s := &slot{p: p}
		s.answer = s.answered
		return s
	}
	for q := range uint32(r.cfg.Partitions) {
		p.lanes = append(p.lanes, r.tracker.Lane(p.index, q))
	}
	if r.cfg.Mode == Closed {
		p.free = make(chan struct{}, r.cfg.InFlight)
		for range r.cfg.InFlight {
			p.free <- struct{}{}
		}
	}
	var err error
	if p.conn, err = r.dial(ctx, fmt.Sprintf("producer %d", i)); err != nil {
		return nil, err
	}
	opts := []client.ProducerOption{client.WithAck(r.cfg.Ack), client.WithBatchBytes(r.cfg.BatchBytes), client.WithCompression(r.cfg.Policy)}
	if r.cfg.Linger >= 0 {
		opts = append(opts, client.WithLinger(r.cfg.Linger))
	}
	if p.out, err = p.conn.Producer(ctx, r.cfg.Topic, opts...); err != nil {
		p.conn.Close()
		return nil, err
	}
	return p, nil
}

// slot is a message on its way. Slots are reused, so that a message costs no
// allocation: answer is bound once.
type slot struct {
	p              *producer
	lane           *verify.Lane
	seq            uint64
	intended, sent int64
	answer         func(client.Receipt, error)
}

// suspectWait is how long a hand-over may last before it is asked whether the
// client's buffer was full.
const suspectWait = time.Millisecond

// send makes and hands over one message. It waits while the client's buffer or
// the verification window is full, and then says that it was held.
func (p *producer) send(ctx context.Context, partition uint32, intended int64) (held bool, err error) {
	r := p.r
	lane := p.lanes[partition]
	seq, ok := lane.Send()
	for !ok {
		held = true
		select {
		case <-ctx.Done():
			return held, ctx.Err()
		case <-time.After(time.Millisecond):
		}
		seq, ok = lane.Send()
	}
	p.value = r.cfg.Source.Append(p.value[:0], payload.Header{Producer: p.index, Partition: partition, Sequence: seq, Intended: intended})
	s := p.slots.Get().(*slot)
	sent := r.clock.Now()
	s.lane, s.seq, s.intended, s.sent = lane, seq, intended, sent
	p.m.Value, p.m.Timestamp = p.value, r.wall+sent/1000
	r.sent.Add(1)
	if r.measured(sent) {
		r.sentIn.Add(1)
	}
	if err := p.out.SendAsyncTo(ctx, partition, &p.m, s.answer); err != nil {
		lane.Failed(seq)
		r.failed.Add(1)
		p.slots.Put(s)
		return held, err
	}
	// A long call may also be this thread's own bad luck; that is dispatch lag.
	if r.clock.Now()-sent > int64(suspectWait) && p.out.Stats().Buffered > client.DefaultMaxBuffered/2 {
		held = true
	}
	return held, nil
}

// answered is called once for each message, by the client.
func (s *slot) answered(_ client.Receipt, err error) {
	p, r := s.p, s.p.r
	if err != nil {
		s.lane.Failed(s.seq)
		if r.failed.Add(1) == 1 {
			r.note(err)
		}
	} else {
		now := r.clock.Now()
		s.lane.Acked(s.seq)
		r.acked.Add(1)
		if r.measured(now) {
			r.ackedIn.Add(1)
		}
		if r.measured(s.intended) {
			p.ack.record(now - s.intended)
			p.service.record(now - s.sent)
		}
	}
	if p.free != nil {
		p.free <- struct{}{}
	}
	p.slots.Put(s)
}

// loop is closed mode: a message for each one answered, over all partitions.
func (p *producer) loop(ctx, work context.Context, first int) error {
	for n := first; p.r.clock.Now() < p.r.till; n++ {
		select {
		case <-p.free:
		case <-ctx.Done():
			return nil
		}
		// Sending outlives ctx: the call does not return before the client has the message.
		if _, err := p.send(work, uint32(n%p.r.cfg.Partitions), p.r.clock.Now()); err != nil {
			return err
		}
	}
	return nil
}

// flush sends what lingers.
func (p *producer) flush(ctx context.Context) {
	if err := p.out.Flush(ctx); err != nil && ctx.Err() == nil {
		p.r.note(err)
	}
}

// close ends the producer; messages without an answer get an error now.
func (p *producer) close(ctx context.Context) {
	p.closing.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		p.out.Close(ctx)
		p.conn.Close()
	})
}
