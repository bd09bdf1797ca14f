package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/storage/memlog"
)

// serve runs a broker on engine and returns its address and what stops it.
func serve(t testing.TB, engine storage.Engine, listen string) (addr string, stop func()) {
	t.Helper()
	s, err := server.New(server.Options{Engine: engine, Listen: listen, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	return s.Addr().String(), func() {
		if err := s.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
		<-done // the error of a listener that was closed
	}
}

func memory(t testing.TB) storage.Engine {
	t.Helper()
	e, err := memlog.Open(memlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	return e
}

func dial(t testing.TB, addr string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestBroker sends through a real broker and reads back, with every ack level
// and algorithm the engine gives.
func TestBroker(t *testing.T) {
	addr, stop := serve(t, memory(t), "127.0.0.1:0")
	defer stop()
	c := dial(t, addr)
	ctx := t.Context()
	for _, ack := range []message.AckLevel{message.AckNone, message.AckAccepted} {
		for _, a := range []message.Algorithm{message.None, message.Zstd, message.LZ4, message.Snappy, message.Gzip, message.Brotli} {
			t.Run(fmt.Sprintf("%s/%s", ack, a), func(t *testing.T) {
				topic := fmt.Sprintf("t-%s-%s", ack, a)
				if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: topic, Partitions: 4, Visibility: message.AckAccepted}); err != nil {
					t.Fatal(err)
				}
				k, err := c.Consumer(ctx, topic, client.From(client.Earliest))
				if err != nil {
					t.Fatal(err)
				}
				p, err := c.Producer(ctx, topic, client.WithAck(ack), client.WithBatchBytes(4<<10),
					client.WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: a}))
				if err != nil {
					t.Fatal(err)
				}
				const n = 2000
				sent := make(map[string]bool, n)
				for i := range n {
					v := fmt.Sprintf("message %d of a compressible kind, message %d", i, i)
					sent[v] = true
					m := &message.Message{Value: []byte(v), Key: fmt.Appendf(nil, "k%d", i%100), Headers: []message.Header{{Key: "i", Value: fmt.Append(nil, i)}}}
					if err := p.SendAsync(ctx, m, func(_ client.Receipt, err error) {
						if err != nil {
							t.Error(err)
						}
					}); err != nil {
						t.Fatal(err)
					}
				}
				if err := p.Close(ctx); err != nil {
					t.Fatal(err)
				}
				for len(sent) > 0 {
					b, err := k.Poll(within(t, 30*time.Second))
					if err != nil {
						t.Fatalf("%d messages missing: %v", len(sent), err)
					}
					for m, err := range b.Messages() {
						if err != nil {
							t.Fatal(err)
						}
						if !sent[string(m.Value)] || int(b.Partition) != message.PartitionFor(m.Key, 4) || len(m.Headers) != 1 {
							t.Fatalf("message %q in partition %d was not sent, or came twice", m.Value, b.Partition)
						}
						delete(sent, string(m.Value))
					}
				}
				if lag := k.Lag(); lag != 0 {
					t.Errorf("lag %d", lag)
				}
				if err := k.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if _, err := c.Producer(ctx, "t-accepted-zstd", client.WithAck(message.AckDurable)); !errors.Is(err, fault.LevelUnavailable) {
		t.Errorf("durable on memlog: %v", err)
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestBrokerRestarts: the broker stops and starts again on its directory, on
// the same port, while messages flow; nothing is lost, repeated or reordered.
func TestBrokerRestarts(t *testing.T) {
	dir := t.TempDir()
	open := func(listen string) (string, func()) {
		e, err := disklog.Open(vfs.OS(), dir, disklog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		addr, stop := serve(t, e, listen)
		return addr, func() {
			stop()
			if err := e.Close(); err != nil {
				t.Errorf("close engine: %v", err)
			}
		}
	}
	addr, stop := open("127.0.0.1:0")
	c := dial(t, addr)
	ctx := t.Context()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	// Little is buffered, so that the producer is still at it at each restart.
	p, err := c.Producer(ctx, "orders", client.WithBatchBytes(2000), client.WithMaxBuffered(20000))
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.Consumer(ctx, "orders", client.From(client.Earliest))
	if err != nil {
		t.Fatal(err)
	}
	const n, restarts = 40000, 4
	var running sync.WaitGroup
	restart := make(chan struct{}, restarts)
	running.Go(func() {
		for range restart {
			stop()
			_, stop = open(addr)
		}
	})
	running.Go(func() {
		defer close(restart)
		var next [2]int
		for got := 0; got < n; {
			b, err := k.Poll(within(t, time.Minute))
			if err != nil {
				t.Errorf("after %d messages: %v", got, err)
				return
			}
			for m, err := range b.Messages() {
				if err != nil {
					t.Error(err)
					return
				}
				if want := fmt.Sprintf("%d-%d", b.Partition, next[b.Partition]); string(m.Value) != want {
					t.Errorf("consumed %s, want %s", m.Value, want)
					return
				}
				next[b.Partition]++
				if got++; got%(n/(restarts+1)) == 0 && got < n {
					restart <- struct{}{}
				}
			}
		}
	})
	running.Go(func() {
		for i := range n {
			part := uint32(i % 2)
			err := p.SendAsyncTo(ctx, part, &message.Message{Value: fmt.Appendf(nil, "%d-%d", part, i/2)}, func(r client.Receipt, err error) {
				if err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
		if err := p.Flush(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
	})
	running.Wait()
	s := p.Stats()
	t.Logf("%d batches, %d sent again, %d of them stored before", s.Batches, s.Retries, s.Duplicates)
	if s.Retries == 0 {
		t.Error("no restart met a batch in flight")
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	stop()
}
