package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/storage/memlog"
	"github.com/portask/portask/broker/topic"
)

// TestProduceInterrupted: a command that waits for a line that does not come
// ends when it is interrupted.
func TestProduceInterrupted(t *testing.T) {
	engine, err := memlog.Open(memlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Options{Engine: engine, Listen: "127.0.0.1:0", Loops: 1,
		Topics: topic.Config{Visibility: message.AckAccepted}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	g := &globals{server: s.Addr().String(), output: "table", timeout: patience}
	c, err := g.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateTopic(t.Context(), client.TopicConfig{Name: "t", Visibility: message.AckAccepted}); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	stdin, terminal := io.Pipe()
	defer stdin.Close()
	ended := make(chan error, 1)
	go func() {
		o := &produceFlags{partition: -1, ack: "accepted", algorithm: "none", strategy: "never", codec: "raw"}
		ended <- produce(ctx, g, o, "t", nil, stdin, io.Discard, io.Discard)
	}()
	typed := make(chan error, 1)
	go func() {
		_, err := terminal.Write([]byte("typed\n"))
		typed <- err
	}()
	select {
	case err := <-typed: // it reads now
		if err != nil {
			t.Fatal(err)
		}
	case err := <-ended:
		t.Fatalf("it ended before it read: %v", err)
	}
	interrupt()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("an interrupted command: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the command still reads")
	}
}
