package load

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

// producer is one client that sends to all topics. send is for one goroutine;
// answers come on others.
type producer struct {
	r     *Run
	index uint32 // in this process
	id    uint32 // in messages
	conn  driver.Conn
	outs  []*out
	keys  *keys // nil: messages have none

	// Owned by the goroutine that sends.
	n     int // messages sent
	last  *out
	phase int // of the last send
	value []byte
	key   [16]byte
	enc   *payload.Encoder
	meter *payload.Meter
	m     message.Message

	sent     []atomic.Uint64 // by phase of the time of sending, and behind the last
	acked    []atomic.Uint64 // likewise, of the acknowledgement; by the goroutines that answer
	failed   atomic.Uint64
	free     chan struct{} // closed loop: one element for each message that may still be sent
	recorder *recorder

	closing sync.Once
}

// out is a producer's way to one topic.
type out struct {
	p     *producer
	d     driver.Producer
	first uint32         // place of the topic's partition 0
	lanes []*verify.Lane // by partition
	mine  []uint32       // partitions that are sent to
	next  int            // of mine: the next message's without key

	slots []*slot // free; owned by the goroutine that sends

	mu   sync.Mutex
	back []*slot // answered, to become free; guarded by mu
}

func (r *Run) addProducer(ctx context.Context, i int) error {
	p := &producer{
		r: r, index: uint32(i), id: uint32(r.share.Producer + i), recorder: r.recorders[i%recorderShards], meter: payload.NewMeter(i, r.s.Producers.Count, r.s.Producers.Batch),
		sent: make([]atomic.Uint64, len(r.s.Phases)+1), acked: make([]atomic.Uint64, len(r.s.Phases)+1),
	}
	x := &r.s.Producers
	if r.s.Keys.Count > 0 {
		p.keys = newKeys(r.s.Keys, r.s.Seed, int(p.id))
	}
	if r.s.Loop == scenario.ClosedLoop {
		p.free = make(chan struct{}, x.InFlight)
		for range x.InFlight {
			p.free <- struct{}{}
		}
	}
	var err error
	if p.enc, err = r.source.Encoder(x.Encoding()); err != nil {
		return err
	}
	if p.conn, err = r.cfg.Driver.Connect(ctx, fmt.Sprintf("producer %d", i)); err != nil {
		return err
	}
	r.producers = append(r.producers, p)
	for k := range r.topics {
		t := &r.topics[k]
		o := &out{p: p, first: uint32(t.first)}
		for q := range t.Partitions {
			o.lanes = append(o.lanes, r.tracker.Lane(p.index, uint32(t.first+q)))
			if r.mine(t.first + q) {
				o.mine = append(o.mine, uint32(q))
			}
		}
		o.next = i % len(o.mine)
		o.d, err = p.conn.Producer(ctx, driver.ProducerOptions{
			Topic: t.Name, Ack: x.AckLevel(), BatchBytes: x.Batch, Linger: x.Linger, Compression: x.CompressionPolicy(),
			Encoding: x.Encoding(), BufferBytes: x.Buffer,
		})
		if err != nil {
			return err
		}
		p.outs = append(p.outs, o)
	}
	return nil
}

// slot is a message on its way. Slots are reused, so that a message costs no
// allocation.
type slot struct {
	o              *out
	send           driver.Slot
	lane           *verify.Lane
	seq            uint64
	phase          int
	place          int
	intended, sent int64
}

// slotsAtOnce are taken from those answered last, which are in the cache still.
const slotsAtOnce = 64

func (o *out) slot() *slot {
	if len(o.slots) == 0 {
		o.mu.Lock()
		at := max(0, len(o.back)-slotsAtOnce)
		o.slots = append(o.slots, o.back[at:]...)
		o.back = o.back[:at]
		o.mu.Unlock()
	}
	if n := len(o.slots); n > 0 {
		s := o.slots[n-1]
		o.slots = o.slots[:n-1]
		return s
	}
	s := &slot{o: o}
	s.send = o.d.Slot(s.answered)
	return s
}

// errWindowFull ends sending: a target that delivers nothing more must not hold
// up the run for ever.
var errWindowFull = errors.New("the verification window is full (limits.window), and did not move for limits.drain")

// send makes and hands over one message. It waits while the client's buffer or
// the verification window is full; of the latter it says that it was held. A
// window that does not move for Limits.Drain is an error.
func (p *producer) send(ctx context.Context, intended int64, phase int, item pace.Item) (held bool, err error) {
	r := p.r
	o := p.outs[0]
	switch {
	case item.Topic > 0:
		o = p.outs[int(item.Topic-1)%len(p.outs)]
	case len(p.outs) > 1:
		o = p.outs[r.cycle[p.n%len(r.cycle)]]
	}
	p.n++
	partition, key := o.choose(item)
	lane := o.lanes[partition]
	seq, ok := lane.Send()
	for full := time.Now(); !ok; {
		held = true
		if time.Since(full) > r.s.Limits.Drain {
			return held, fmt.Errorf("%w: nothing of producer %d arrives in topic %s, partition %d any more", errWindowFull, p.index, r.topics[r.places[o.first+partition].topic].Name, partition)
		}
		select {
		case <-ctx.Done():
			return held, ctx.Err()
		case <-time.After(time.Millisecond):
		}
		seq, ok = lane.Send()
	}
	s := o.slot()
	p.value, err = p.enc.Append(p.value[:0], payload.Header{
		Producer: p.id, Partition: o.first + partition, Sequence: seq, Intended: intended - r.timeline[0], Size: item.Size, Key: key,
	})
	if err != nil {
		lane.Failed(seq)
		p.failed.Add(1)
		o.slots = append(o.slots, s)
		return held, err
	}
	sent := intended // closed loop
	if p.free == nil {
		sent = r.clock.Now()
	}
	s.lane, s.seq, s.phase, s.place, s.intended, s.sent = lane, seq, phase, int(o.first+partition), intended, sent
	p.m.Value, p.m.Timestamp = p.value, r.wall+sent/1000
	p.phase = r.phaseAt(sent, p.phase)
	p.sent[p.phase].Add(1)
	if err := s.send.Send(ctx, partition, &p.m); err != nil {
		lane.Failed(seq)
		p.failed.Add(1)
		o.slots = append(o.slots, s)
		return held, err
	}
	p.meter.Sent(o.first+partition, p.value)
	p.last = o
	return held, nil
}

// congested is asked when a hand-over was long: a full buffer of the client's,
// or this thread's own bad luck? The latter is dispatch lag.
func (p *producer) congested() bool { return p.last != nil && p.last.d.Congested() }

// choose picks a partition, and a key if messages have them: 0 stands for none.
// The key's bytes are in p.m.
func (o *out) choose(item pace.Item) (partition, key uint32) {
	p := o.p
	switch {
	case item.Key != 0:
		key = max(1, uint32(item.Key)^uint32(item.Key>>32))
	case p.keys != nil && item.Size == 0:
		key = p.keys.next()
	default:
		p.m.Key = nil
		partition = o.mine[o.next]
		if o.next++; o.next == len(o.mine) {
			o.next = 0
		}
		return partition, 0
	}
	p.m.Key = appendKey(p.key[:0], key)
	return o.mine[message.PartitionFor(p.m.Key, len(o.mine))], key
}

// appendKey writes a key's bytes: "k" and eight hexadecimal digits.
func appendKey(dst []byte, key uint32) []byte {
	return hex.AppendEncode(append(dst, 'k'), binary.BigEndian.AppendUint32(make([]byte, 0, 4), key))
}

// answered is called once for each message, by the client.
func (s *slot) answered(err error) {
	o := s.o
	p := o.p
	r := p.r
	if err != nil {
		s.lane.Failed(s.seq)
		if p.failed.Add(1) == 1 {
			r.note(err)
		}
	} else {
		now := r.clock.Now()
		s.lane.Acked(s.seq)
		p.acked[r.phaseAt(now, s.phase)].Add(1)
		part := s.phase
		if i := r.faults.touched(r.lane(p.index, s.place), s.intended); i >= 0 {
			part = len(r.s.Phases) + i
		}
		p.recorder.answer(part, now-s.intended, now-s.sent)
	}
	o.mu.Lock()
	o.back = append(o.back, s)
	o.mu.Unlock()
	if p.free != nil {
		p.free <- struct{}{}
	}
}

// loop is closed mode: a message for each one answered.
func (p *producer) loop(ctx, work context.Context) error {
	end := p.r.timeline[len(p.r.timeline)-1]
	for {
		select {
		case <-p.free:
		case <-ctx.Done():
			return nil
		}
		now := max(p.r.clock.Now(), p.r.timeline[0])
		if now >= end {
			return nil
		}
		phase := min(p.r.phaseAt(now, p.phase), len(p.r.s.Phases)-1)
		// Sending outlives ctx: the call does not return before the client has the message.
		if _, err := p.send(work, now, phase, pace.Item{}); err != nil {
			return err
		}
	}
}

// flush sends what lingers.
func (p *producer) flush(ctx context.Context) {
	for _, o := range p.outs {
		if err := o.d.Flush(ctx); err != nil && ctx.Err() == nil {
			p.r.note(err)
		}
	}
}

// close ends the producer; messages without an answer get an error now.
func (p *producer) close(ctx context.Context) {
	p.closing.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		for _, o := range p.outs {
			o.d.Close(ctx)
		}
		p.conn.Close()
	})
}
