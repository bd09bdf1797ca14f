package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// orders are values of about n bytes that look like business: no two alike, and
// compressible three to one.
func orders(n, count int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	words := []string{"accepted", "delivered", "returned", "Amsterdam", "Rotterdam", "invoice", "customer", "warehouse", "priority", "express", "standard", "article"}
	all := make([][]byte, count)
	for i := range all {
		v := fmt.Appendf(nil, `{"order":%d,"customer":%d,"lines":[`, rng.Uint64(), rng.Uint32N(1e6))
		for len(v) < n {
			v = fmt.Appendf(v, `{"article":%d,"text":"%s %s","price":%.2f,"hash":"%08x"},`, rng.Uint32N(1e5), words[rng.IntN(len(words))], words[rng.IntN(len(words))], rng.Float64()*1000, rng.Uint32())
		}
		all[i] = v[:n]
	}
	return all
}

// BenchmarkPipeline is a producer on a real broker over loopback, with batches
// of 64 KiB, where compression is off or by zstd at its fastest level: with the
// encoders that overlap it with sending, and without. Compare the pairs of one
// run; what there is to gain is bounded by the processors and by what producer,
// socket and broker take of them.
//
//	go test ./client -run xxx -bench Pipeline -benchtime 2s -count 6
func BenchmarkPipeline(b *testing.B) {
	values := orders(1024, 4096)
	for _, policy := range []compression.Policy{{}, {Strategy: compression.Always, Algorithm: message.Zstd}, {Strategy: compression.Always, Algorithm: message.Zstd, Level: compression.LevelBalanced}} {
		for _, encoders := range []int{0, 1, 2} {
			name := "none"
			if policy.Strategy != compression.Never {
				name = fmt.Sprintf("%s-%s", policy.Algorithm, policy.Level)
			}
			b.Run(fmt.Sprintf("compression=%s/batch=64KiB/encoders=%d", name, encoders), func(b *testing.B) {
				addr, stop := serve(b, memory(b), "127.0.0.1:0")
				defer stop()
				c := dial(b, addr, client.WithEncoders(encoders))
				ctx := context.Background()
				if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Partitions: 1, Visibility: message.AckAccepted, SegmentBytes: 1 << 20, RetentionBytes: 16 << 20}); err != nil {
					b.Fatal(err)
				}
				p, err := c.Producer(ctx, "orders", client.WithAck(message.AckAccepted), client.WithCompression(policy), client.WithMaxBuffered(4<<20))
				if err != nil {
					b.Fatal(err)
				}
				var failed atomic.Value
				cb := func(_ client.Receipt, err error) {
					if err != nil {
						failed.CompareAndSwap(nil, err)
					}
				}
				m := &message.Message{}
				b.SetBytes(1024)
				b.ReportAllocs()
				began := time.Now()
				for i := 0; b.Loop(); i++ {
					m.Value = values[i%len(values)]
					if err := p.SendAsync(ctx, m, cb); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Flush(ctx); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "msg/s")
				s := p.Stats()
				b.ReportMetric(float64(s.EncodedAhead)/float64(s.Batches), "ahead/batch")
				b.ReportMetric(float64(s.RawBytes)/float64(s.Bytes), "ratio")
				if err := failed.Load(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
