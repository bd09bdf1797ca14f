package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/wire"
)

// TestStorm: connections break at random, acknowledgements get lost, the
// broker refuses at random, for a while or for good. What is acknowledged is
// stored exactly once, in order; nothing is stored twice; what is stored is
// consumed likewise.
func TestStorm(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			story(t, 3, func(t *testing.T, b *fake) { storm(t, b, seed) })
		})
	}
}

func storm(t *testing.T, b *fake, seed uint64) {
	const messages, partitions = 600, 3
	r := rand.New(rand.NewPCG(seed, 1))
	faults := rand.New(rand.NewPCG(seed, 2)) // used under the broker's lock
	refusals := 6                            // for good; guarded by the broker's lock
	c := b.client(WithConns(2))
	defer c.Close()
	k := consumer(t, c, From(Earliest), WithCredit(3000))
	p := producer(t, c, WithBatchBytes(100), WithMaxBuffered(5000))
	b.set(func() {
		b.hook = func(s *session, h wire.Header, payload []byte) bool {
			switch x := faults.IntN(100); {
			case x < 2:
				_ = s.nc.Close()
				return true
			case x < 4 && h.Opcode == wire.OpProduce:
				_, _ = s.answer(h, payload) // stored, not said
				_ = s.nc.Close()
				return true
			case x < 8 && h.Opcode == wire.OpProduce:
				s.later(refuse(h, fault.New(fault.Full, "produce")))
				return true
			case x < 10 && h.Opcode == wire.OpProduce && refusals > 0:
				refusals--
				s.later(refuse(h, fault.New(fault.Invalid, "produce")))
				return true
			case x < 12 && h.Opcode == wire.OpProduce && refusals > 0:
				refusals--
				_, _ = s.answer(h, payload) // stored, and said to have failed
				s.later(refuse(h, fault.New(fault.Internal, "produce")))
				return true
			case x < 16 && (h.Opcode == wire.OpSubscribe || h.Opcode == wire.OpOpenProducer):
				s.later(refuse(h, fault.New(fault.ResourceExhausted, "open")))
				return true
			}
			return false
		}
	})
	var last [partitions]int
	var acked, refused [partitions]map[string]bool
	for i := range partitions {
		last[i] = -1
		acked[i], refused[i] = make(map[string]bool), make(map[string]bool)
	}
	for i := range messages {
		part := i % partitions
		v := fmt.Sprintf("%d-%d", part, i/partitions)
		err := p.SendAsyncTo(t.Context(), uint32(part), value(v), func(r Receipt, err error) {
			if last[part] != i/partitions-1 {
				t.Errorf("callback of message %s after that of %d", v, last[part])
			}
			last[part] = i / partitions
			switch {
			case err == nil:
				acked[part][v] = true
			case errors.Is(err, fault.Invalid) || errors.Is(err, fault.Internal):
				refused[part][v] = true
			default:
				t.Errorf("message %s: %v", v, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var want [partitions][]string
	total := 0
	for part := range partitions {
		got := b.values("orders", part)
		want[part] = got
		total += len(got)
		at := 0
		for i := range messages / partitions {
			v := fmt.Sprintf("%d-%d", part, i)
			stored := at < len(got) && got[at] == v
			if stored {
				at++
			}
			if !stored && acked[part][v] || acked[part][v] == refused[part][v] {
				t.Fatalf("message %s: acknowledged %v, refused %v, stored in its place %v", v, acked[part][v], refused[part][v], stored)
			}
		}
		if at != len(got) {
			t.Fatalf("partition %d stores %s at offset %d, twice or out of order", part, got[at], at)
		}
	}
	var next [partitions]int
	for n := 0; n < total; {
		batch, err := k.Poll(ctxFor(t, time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range batch.Messages() {
			if err != nil {
				t.Fatal(err)
			}
			if w := want[batch.Partition][next[batch.Partition]]; string(m.Value) != w {
				t.Fatalf("consumed %s, want %s", m.Value, w)
			}
			next[batch.Partition]++
			n++
		}
		if r.IntN(30) == 0 {
			b.cut()
		}
	}
}
