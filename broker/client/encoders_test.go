package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Batches that are compressed beside their sender come in order, whole, and once;
// afterwards nothing of it is left running.
func TestEncodersKeepTheOrder(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	addr, stop := serve(t, memory(t), "127.0.0.1:0")
	defer stop()
	values := orders(2000, 512)
	for _, encoders := range []int{0, 1, 4} {
		for _, a := range []message.Algorithm{message.None, message.Zstd, message.Snappy} {
			t.Run(fmt.Sprintf("encoders=%d/%s", encoders, a), func(t *testing.T) {
				c := dial(t, addr, client.WithEncoders(encoders))
				defer c.Close()
				ctx := within(t, time.Minute)
				topic := fmt.Sprintf("order-%d-%s", encoders, a)
				const partitions, n = 3, 6000
				if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: topic, Partitions: partitions, Visibility: message.AckAccepted}); err != nil {
					t.Fatal(err)
				}
				// Batches of different sizes: some wait behind others, some are too small to
				// be handed over.
				p, err := c.Producer(ctx, topic, client.WithAck(message.AckAccepted), client.WithBatchBytes(48<<10), client.WithMaxBuffered(1<<20),
					client.WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: a}))
				if err != nil {
					t.Fatal(err)
				}
				var next [partitions]atomic.Int64
				for i := range n {
					part := uint32(i % 7 % partitions)
					want := int64(-1)
					if err := p.SendAsyncTo(ctx, part, &message.Message{Value: values[i%len(values)], Key: fmt.Append(nil, i)}, func(r client.Receipt, err error) {
						if err != nil {
							t.Error(err)
						}
						if want = next[part].Add(1) - 1; int64(r.Offset) != want {
							t.Errorf("partition %d: offset %d, want %d", part, r.Offset, want)
						}
					}); err != nil {
						t.Fatal(err)
					}
					if i%1500 == 0 {
						if err := p.Flush(ctx); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := p.Close(ctx); err != nil {
					t.Fatal(err)
				}
				if s := p.Stats(); (s.EncodedAhead > 0) != (encoders > 0 && a != message.None) {
					t.Errorf("%d of %d batches were encoded ahead", s.EncodedAhead, s.Batches)
				} else {
					t.Logf("%d of %d batches were encoded ahead", s.EncodedAhead, s.Batches)
				}
				k, err := c.Consumer(ctx, topic, client.From(client.Earliest))
				if err != nil {
					t.Fatal(err)
				}
				last := [partitions]int{-1, -1, -1}
				for got := 0; got < n; {
					b, err := k.Poll(ctx)
					if err != nil {
						t.Fatalf("after %d: %v", got, err)
					}
					for m, err := range b.Messages() {
						var i int
						if err == nil {
							_, err = fmt.Sscan(string(m.Key), &i)
						}
						if err != nil || i <= last[b.Partition] || uint32(i%7%partitions) != b.Partition || !bytes.Equal(m.Value, values[i%len(values)]) {
							t.Fatalf("partition %d: %q after %d: %v", b.Partition, m.Key, last[b.Partition], err)
						}
						last[b.Partition] = i
						got++
					}
				}
			})
		}
	}
}

// A producer that is aborted while encoders have its batches tells every callback
// once and leaves nothing behind.
func TestAbortWhileEncoding(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	addr, stop := serve(t, memory(t), "127.0.0.1:0")
	defer stop()
	values := orders(8000, 64)
	c := dial(t, addr, client.WithEncoders(2))
	defer c.Close()
	ctx := t.Context()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Partitions: 2, Visibility: message.AckAccepted, RetentionBytes: 1 << 20, SegmentBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		p, err := c.Producer(ctx, "orders", client.WithAck(message.AckAccepted), client.WithDeliveryTimeout(time.Duration(1+round%5*20)*time.Millisecond),
			client.WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: message.Zstd, Level: compression.LevelSmallest}))
		if err != nil {
			t.Fatal(err)
		}
		var sent, told atomic.Int64
		for i := range 300 {
			err := p.SendAsync(ctx, &message.Message{Value: values[i%len(values)]}, func(_ client.Receipt, err error) {
				if err != nil && !errors.Is(err, fault.Closed) && !errors.Is(err, fault.Timeout) {
					t.Error(err)
				}
				told.Add(1)
			})
			if err != nil {
				t.Fatal(err)
			}
			sent.Add(1)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_ = p.Close(gone) // the context's error
		if sent.Load() != told.Load() {
			t.Fatalf("round %d: %d sent, %d told", round, sent.Load(), told.Load())
		}
	}
}
