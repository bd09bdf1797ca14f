package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/verify"
)

// consumer is one client that receives, by a reader for each topic of which it
// has partitions.
type consumer struct {
	conn    driver.Conn
	readers []*reader
	closing sync.Once
}

// reader receives and verifies some partitions of a topic. run is one
// goroutine.
type reader struct {
	r     *Run
	in    driver.Consumer
	of    int              // index of its consumer
	first int              // place of the topic's partition 0
	own   bool             // the topic was made for the run: nobody else sends to it
	next  []message.Offset // by partition; -1 if it is not the reader's. Owned by run
	enc   *payload.Encoder // owned by run
	key   [16]byte

	due, now  int                                // phases found last; owned by run
	partition uint32                             // of the batch in hand; owned by run
	yield     func(*message.Message, error) bool // each, bound once

	delivered []atomic.Uint64 // by phase of the delivery, and behind the last
	bytes     []atomic.Uint64
	recorder  *recorder
}

// addConsumer opens consumer i, which has every nth place of this process's.
func (r *Run) addConsumer(ctx context.Context, i int) error {
	k := &consumer{}
	var err error
	if k.conn, err = r.cfg.Driver.Connect(ctx, fmt.Sprintf("consumer %d", i)); err != nil {
		return err
	}
	r.consumers = append(r.consumers, k)
	recorder := newRecorder(&r.pool, r.parts())
	r.recorders = append(r.recorders, recorder)
	for t := range r.topics {
		x := &reader{
			r: r, of: i, first: r.topics[t].first, own: r.topics[t].own, recorder: recorder,
			delivered: make([]atomic.Uint64, len(r.s.Phases)+1), bytes: make([]atomic.Uint64, len(r.s.Phases)+1),
		}
		var partitions []uint32
		for p := range r.topics[t].Partitions {
			next := message.Offset(-1)
			if at := x.first + p; r.mine(at) && at/r.share.Of%r.s.Consumers.Count == i {
				partitions = append(partitions, uint32(p))
				next = 0
			}
			x.next = append(x.next, next)
		}
		if len(partitions) == 0 {
			continue
		}
		x.yield = x.each
		if x.enc, err = r.source.Encoder(r.s.Producers.Encoding()); err != nil {
			return err
		}
		x.in, err = k.conn.Consumer(ctx, driver.ConsumerOptions{Topic: r.topics[t].Name, Partitions: partitions, Mode: driver.Mode(r.s.Consumers.Delivery)})
		if err != nil {
			return err
		}
		k.readers = append(k.readers, x)
		r.readers = append(r.readers, x)
	}
	return nil
}

// run receives until ctx ends.
func (x *reader) run(ctx context.Context) {
	for {
		x.r.gate.wait(ctx, x.of)
		b, err := x.in.Poll(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			x.r.note(err)
			if errors.Is(err, driver.ErrClosed) {
				return
			}
			continue // one partition's; what is lost by it is counted as lost
		}
		x.partition = b.Partition()
		b.Messages()(x.yield) // a loop's body would be allocated for each batch
		b.Release()
	}
}

// each takes one message of a batch.
func (x *reader) each(m *message.Message, err error) bool {
	if err != nil {
		x.r.tracker.Corrupt()
		x.r.note(err)
		return true
	}
	x.message(x.partition, m)
	return true
}

// message verifies one message.
func (x *reader) message(partition uint32, m *message.Message) {
	r := x.r
	if int(partition) >= len(x.next) || x.next[partition] < 0 {
		r.tracker.Misplaced()
		return
	}
	if m.Offset != message.NoOffset {
		if m.Offset < x.next[partition] {
			r.offsetsBack.Add(1)
		} else {
			x.next[partition] = m.Offset + 1
		}
	}
	h, err := x.enc.Check(m.Value)
	switch {
	case errors.Is(err, payload.ErrForeign) && x.own:
		r.tracker.Phantom()
		return
	case errors.Is(err, payload.ErrForeign):
		r.tracker.Foreign()
		return
	case err != nil:
		r.tracker.Corrupt()
		return
	}
	at := x.first + int(partition)
	if h.Partition != uint32(at) {
		r.tracker.Misplaced()
	}
	if !x.sameKey(h.Key, m.Key) {
		r.tracker.Corrupt()
		return
	}
	producer := h.Producer - uint32(r.share.Producer) // an id below is a large number then
	lane := r.tracker.Lane(producer, h.Partition)
	if lane == nil {
		r.tracker.Phantom()
		return
	}
	if fate := lane.Delivered(h.Sequence); fate != verify.First && fate != verify.Late {
		return
	}
	now, intended := r.clock.Now(), h.Intended+r.timeline[0]
	x.now = r.phaseAt(now, x.now)
	x.delivered[x.now].Add(1)
	x.bytes[x.now].Add(uint64(len(m.Value)))
	x.due = r.phaseAt(intended, x.due)
	phase := min(x.due, len(r.s.Phases)-1)
	if i := r.faults.delivered(r.lane(producer, at), intended, now); i >= 0 {
		phase = len(r.s.Phases) + i
	}
	x.recorder.record(phase, e2e, now-intended)
}

// sameKey reports whether a message's key is the one its value names.
func (x *reader) sameKey(key uint32, got []byte) bool {
	if key == 0 {
		return len(got) == 0
	}
	return bytes.Equal(got, appendKey(x.key[:0], key))
}

// caughtUp reports whether it has seen all that is stored.
func (x *reader) caughtUp(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ok, err := x.in.CaughtUp(ctx)
	return err == nil && ok
}

func (k *consumer) close() {
	k.closing.Do(func() {
		for _, x := range k.readers {
			x.in.Close()
		}
		k.conn.Close()
	})
}
