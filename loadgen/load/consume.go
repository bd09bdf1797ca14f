package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/verify"
)

// consumer reads and verifies some partitions. run is one goroutine.
type consumer struct {
	r    *Run
	conn *client.Client
	in   *client.Consumer

	partitions []uint32
	next       []atomic.Int64 // offset expected next, by index in partitions; read by drain
	index      map[uint32]int

	e2e     *recorder // intended to delivered
	closing sync.Once
}

func (r *Run) newConsumer(ctx context.Context, i int) (*consumer, error) {
	k := &consumer{r: r, e2e: newRecorder(), index: map[uint32]int{}}
	for p := i; p < r.cfg.Partitions; p += r.cfg.Consumers {
		k.index[uint32(p)] = len(k.partitions)
		k.partitions = append(k.partitions, uint32(p))
	}
	k.next = make([]atomic.Int64, len(k.partitions))
	var err error
	if k.conn, err = r.dial(ctx, fmt.Sprintf("consumer %d", i)); err != nil {
		return nil, err
	}
	if k.in, err = k.conn.Consumer(ctx, r.cfg.Topic, client.From(client.Latest), client.Partitions(k.partitions...)); err != nil {
		k.conn.Close()
		return nil, err
	}
	for _, p := range k.in.Positions() {
		k.next[k.index[p.Partition]].Store(int64(p.Offset))
	}
	return k, nil
}

// run receives until ctx ends.
func (k *consumer) run(ctx context.Context) {
	for {
		b, err := k.in.Poll(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			k.r.note(err)
			if errors.Is(err, fault.Closed) {
				return
			}
			continue // one partition's; what is lost by it is counted as lost
		}
		for m, err := range b.Messages() {
			if err != nil {
				k.r.tracker.Corrupt()
				k.r.note(err)
				continue
			}
			k.message(b.Partition, m)
		}
		b.Release()
	}
}

// message verifies one message.
func (k *consumer) message(partition uint32, m *message.Message) {
	r := k.r
	i, ok := k.index[partition]
	if !ok {
		r.tracker.Misplaced()
		return
	}
	if at := k.next[i].Load(); int64(m.Offset) < at {
		r.offsetsBack.Add(1)
	} else {
		k.next[i].Store(int64(m.Offset) + 1)
	}
	h, err := r.cfg.Source.Check(m.Value)
	switch {
	case errors.Is(err, payload.ErrForeign):
		r.tracker.Foreign()
		return
	case err != nil:
		r.tracker.Corrupt()
		return
	}
	if h.Partition != partition {
		r.tracker.Misplaced()
	}
	lane := r.tracker.Lane(h.Producer, h.Partition)
	if lane == nil {
		r.tracker.Foreign()
		return
	}
	if fate := lane.Delivered(h.Sequence); fate != verify.First && fate != verify.Late {
		return
	}
	now := r.clock.Now()
	r.delivered.Add(1)
	if r.measured(now) {
		r.deliveredIn.Add(1)
		r.bytesIn.Add(uint64(len(m.Value)))
	}
	if r.measured(h.Intended) && !r.outage.took(partition, h.Intended, now) {
		k.e2e.record(now - h.Intended)
	}
}

func (k *consumer) close() {
	k.closing.Do(func() {
		k.in.Close()
		k.conn.Close()
	})
}
