package client_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage/disklog"
)

// tunable serves on a disk log with options.
func tunable(t *testing.T, o server.Options) (*server.Server, server.Options) {
	t.Helper()
	engine, err := disklog.Open(vfs.OS(), t.TempDir(), disklog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Engine, o.Listen = engine, "127.0.0.1:0"
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, o
}

// item is what the producers of a flow send.
type item struct {
	Producer int
	Sequence int
	Status   string
	Customer map[string]string
}

// flow is a topic under load: producers that send numbered items, and a consumer
// that checks each, all the time.
type flow struct {
	t         *testing.T
	c, reader *client.Client // of the producers, over two connections, and of the consumer
	producers []*client.Producer
	window    []chan struct{} // of each producer: sent and not yet read
	stop      func()          // ends sending
	stopped   chan struct{}
	sending   sync.WaitGroup
	reading   sync.WaitGroup
	stopRead  context.CancelFunc
	sent      []atomic.Int64
	read      []atomic.Int64
	all       atomic.Int64 // read
}

// startFlow makes a topic "flow" of two partitions on s and puts it under load: by a
// producer for each of own, with these options beside the flow's, of each of whose
// items window at most are on their way. It ends with the test, if not by end.
func startFlow(t *testing.T, s *server.Server, window int, own ...[]client.ProducerOption) *flow {
	t.Helper()
	ctx := t.Context()
	f := &flow{t: t, c: dial(t, s.Addr().String(), client.WithConns(2)), reader: dial(t, s.Addr().String()),
		stopped: make(chan struct{}), sent: make([]atomic.Int64, len(own)), read: make([]atomic.Int64, len(own))}
	if _, err := f.c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "flow", Partitions: 2, Visibility: message.AckAccepted}); err != nil {
		t.Fatal(err)
	}
	for _, more := range own {
		opts := append([]client.ProducerOption{client.WithAck(message.AckAccepted), client.WithBatchBytes(24 << 10), client.WithLinger(5 * time.Millisecond)}, more...)
		p, err := f.c.Producer(ctx, "flow", opts...)
		if err != nil {
			t.Fatal(err)
		}
		f.producers, f.window = append(f.producers, p), append(f.window, make(chan struct{}, window))
	}
	k, err := f.reader.Consumer(ctx, "flow", client.From(client.Earliest))
	if err != nil {
		t.Fatal(err)
	}
	reading, stopRead := context.WithCancel(ctx)
	f.stop, f.stopRead = sync.OnceFunc(func() { close(f.stopped) }), stopRead
	f.reading.Go(func() { f.consume(reading, k) })
	for i := range f.producers {
		f.sending.Go(func() { f.produce(i) })
	}
	t.Cleanup(func() {
		f.stop()
		f.sending.Wait()
		f.stopRead()
		f.reading.Wait()
	})
	return f
}

// end stops sending and waits until every item was answered and read.
func (f *flow) end() {
	f.t.Helper()
	f.stop()
	f.sending.Wait()
	for i, p := range f.producers {
		if err := p.Close(within(f.t, time.Minute)); err != nil {
			f.t.Error(err)
		}
		if n := p.Stats().Failed; n != 0 {
			f.t.Errorf("producer %d: %d messages failed", i, n)
		}
	}
	until(f.t, "the rest", func() bool {
		for i := range f.sent {
			if f.read[i].Load() != f.sent[i].Load() {
				return false
			}
		}
		return true
	})
	f.stopRead()
	f.reading.Wait()
}

func (f *flow) produce(i int) {
	p := f.producers[i]
	for n := 0; ; n++ {
		select {
		case <-f.stopped:
			return
		case f.window[i] <- struct{}{}:
		}
		m := &message.Message{Key: fmt.Appendf(nil, "producer-%d", i)}
		err := p.Encode(m, item{Producer: i, Sequence: n, Status: strings.Repeat("delivered ", 20), Customer: map[string]string{"country": "NL", "id": fmt.Sprint(n * 7919 % 1000)}})
		if err == nil {
			err = p.SendAsync(f.t.Context(), m, func(_ client.Receipt, err error) {
				if err != nil {
					f.t.Errorf("producer %d, item %d: %v", i, n, err)
				}
			})
		}
		if err != nil {
			f.t.Errorf("producer %d, item %d: %v", i, n, err)
			return
		}
		f.sent[i].Add(1)
	}
}

func (f *flow) consume(ctx context.Context, k *client.Consumer) {
	for {
		b, err := k.Poll(ctx)
		if err != nil {
			if ctx.Err() == nil {
				f.t.Errorf("poll: %v", err)
			}
			return
		}
		for m, err := range b.Messages() {
			var x item
			if err == nil {
				err = k.Decode(m, &x)
			}
			if err != nil {
				f.t.Errorf("partition %d: %v", b.Partition, err)
				return
			}
			if next := f.read[x.Producer].Load(); int64(x.Sequence) != next || string(m.Key) != fmt.Sprintf("producer-%d", x.Producer) || x.Customer["country"] != "NL" {
				f.t.Errorf("%s: item %+v came instead of %d", m.Key, x, next)
				return
			}
			f.read[x.Producer].Add(1)
			f.all.Add(1)
			<-f.window[x.Producer]
		}
		b.Release()
	}
}

// until polls for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) || t.Failed() {
			t.Fatalf("waited for %s", what)
		}
	}
}

// flows waits until every producer's items have gone round some more.
func (f *flow) flows() {
	f.t.Helper()
	for i := range f.producers {
		goal := f.read[i].Load() + 300
		until(f.t, fmt.Sprintf("items of producer %d", i), func() bool { return f.read[i].Load() >= goal })
	}
}
