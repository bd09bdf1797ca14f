package client_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/wire"
)

// A broker whose artefact goes back and forth faster than producers fetch it: in the
// end all decide by the one that stays, and none says that it could not be used.
func TestArtefactThatFlaps(t *testing.T) {
	own, err := os.ReadFile(filepath.Join("..", "compression", "adaptive", "artefact.json"))
	if err != nil {
		t.Fatal(err)
	}
	// White space makes another artefact of the same content.
	a, b := append(bytes.TrimSpace(bytes.Clone(own)), "\n\n\n"...), append(bytes.TrimSpace(bytes.Clone(own)), "\n\n\n\n"...)
	last, err := adaptive.Parse(a)
	if err != nil {
		t.Fatal(err)
	}
	s, o := tunable(t, server.Options{Loops: 1, CompressionStrategy: wire.Choose(compression.Adaptive)})
	ctx := t.Context()
	c := dial(t, s.Addr().String())
	if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Visibility: message.AckAccepted}); err != nil {
		t.Fatal(err)
	}
	var producers []*client.Producer
	for range 30 {
		p, err := c.Producer(ctx, "orders", client.WithAck(message.AckAccepted))
		if err != nil {
			t.Fatal(err)
		}
		producers = append(producers, p)
	}
	send := func() {
		for _, p := range producers {
			if _, err := p.Send(ctx, &message.Message{Value: bytes.Repeat([]byte("delivered "), 200)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send()
	for range 20 {
		for _, artefact := range [][]byte{b, a} {
			o.Artefact = artefact
			if err := s.Reload(o); err != nil {
				t.Fatal(err)
			}
			producers[0].Explain() // something else meanwhile
		}
	}
	want := fmt.Sprintf("%016x ", last.Hash())
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		send()
		left := map[string]int{}
		for _, p := range producers {
			if x, ok := p.Explain(); !ok || x.Artefact+" "+x.Note != want {
				left[x.Artefact+" "+x.Note]++
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("want %s, have %v", want, left)
		}
	}
}
