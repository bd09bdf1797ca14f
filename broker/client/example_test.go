package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage/memlog"
)

// broker starts a broker in memory for the examples.
func broker() (addr string, stop func()) {
	engine, err := memlog.Open(memlog.Options{})
	if err != nil {
		log.Fatal(err)
	}
	s, err := server.New(server.Options{Engine: engine, Listen: "127.0.0.1:0", Loops: 1})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve() }()
	return s.Addr().String(), func() {
		_ = s.Close()
		<-done
		_ = engine.Close()
	}
}

// Send a message, wait until it is stored, and read it back.
func Example() {
	addr, stop := broker() // or the address of yours
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	c, err := client.Dial(ctx, addr)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	// Topics in memory cannot be durable.
	_, err = c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "greetings", Partitions: 1, Visibility: message.AckAccepted})
	if err != nil {
		log.Fatal(err)
	}

	p, err := c.Producer(ctx, "greetings", client.WithAck(message.AckAccepted))
	if err != nil {
		log.Fatal(err)
	}
	r, err := p.Send(ctx, &message.Message{Key: []byte("en"), Value: []byte("hello")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored at offset", r.Offset)

	k, err := c.Consumer(ctx, "greetings", client.From(client.Earliest))
	if err != nil {
		log.Fatal(err)
	}
	b, err := k.Poll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for m, err := range b.Messages() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", m.Key, m.Value)
	}
	b.Release()
	// Output:
	// stored at offset 0
	// en: hello
}

// Send many messages without waiting for each.
func ExampleProducer_SendAsync() {
	addr, stop := broker()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, addr)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Partitions: 4, Visibility: message.AckAccepted})
	if err != nil {
		log.Fatal(err)
	}
	p, err := c.Producer(ctx, "orders", client.WithAck(message.AckAccepted))
	if err != nil {
		log.Fatal(err)
	}

	stored := 0 // callbacks come from one goroutine
	for i := range 10_000 {
		m := &message.Message{Value: fmt.Appendf(nil, "order %d", i)}
		err := p.SendAsync(ctx, m, func(_ client.Receipt, err error) {
			if err != nil {
				log.Print(err)
				return
			}
			stored++
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil { // sends what is left and waits for it
		log.Fatal(err)
	}
	fmt.Println(stored)
	// Output: 10000
}

// Read for ever, getting over what can be got over.
func ExampleConsumer_Poll() {
	addr, stop := broker()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, addr)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Partitions: 4, Visibility: message.AckAccepted})
	if err != nil {
		log.Fatal(err)
	}
	k, err := c.Consumer(ctx, "orders", client.From(client.Since(time.Now().Add(-time.Hour))))
	if err != nil {
		log.Fatal(err)
	}
	ctx, stopReading := context.WithTimeout(ctx, 100*time.Millisecond) // for ever, in an example
	defer stopReading()
	for {
		b, err := k.Poll(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			log.Print(err) // a gap, or a partition that cannot be read any more
			continue
		}
		for m, err := range b.Messages() {
			if err != nil {
				log.Print(err) // damaged messages are named and passed over
				continue
			}
			fmt.Println(b.Partition, m.Offset, string(m.Value))
		}
		b.Release() // now the broker may send more
	}
	fmt.Println("lag", k.Lag())
	// Output: lag 0
}

// Ask what topics there are.
func ExampleAdmin() {
	addr, stop := broker()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, addr)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	a := c.Admin()
	_, err = a.CreateTopic(ctx, client.TopicConfig{
		Name: "orders", Partitions: 2, Retention: 7 * 24 * time.Hour, Visibility: message.AckAccepted,
	})
	if err != nil {
		log.Fatal(err)
	}
	topics, err := a.ListTopics(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range topics {
		fmt.Println(t.Name, len(t.Partitions), t.Retention, t.Engine)
	}
	// Output: orders 2 168h0m0s memlog
}
