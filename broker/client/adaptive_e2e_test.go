package client_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/wire"
)

// Strategies are switched by configuration, topic and program, all while messages
// flow over connections that stay: none is lost, and every batch can be read.
func TestSwitchStrategyUnderLoad(t *testing.T) {
	s, o := tunable(t, server.Options{Loops: 2, Compression: message.LZ4, Load: func() wire.Load { return wire.Load{CPU: 20, Memory: 30, Disk: 40, Link: 50} }})
	const producers = 3
	alone := []client.ProducerOption{client.WithEncoding(message.CBOR), client.WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: message.Gzip})} // by itself
	cbor := []client.ProducerOption{client.WithEncoding(message.CBOR)}
	f := startFlow(t, s, 300, cbor, cbor, alone)
	ctx, admin := t.Context(), f.c.Admin()
	settled := func(ps []*client.Producer, st compression.Strategy) {
		t.Helper()
		for _, p := range ps {
			until(t, st.String(), func() bool { return p.Stats().Strategy == st })
		}
		f.flows()
	}
	following, own := f.producers[:producers-1], f.producers[producers-1]
	reload := func(st compression.Strategy) {
		t.Helper()
		o.CompressionStrategy = wire.Choose(st)
		if err := s.Reload(o); err != nil {
			t.Fatal(err)
		}
		settled(following, st)
	}
	reload(compression.Threshold)
	reload(compression.Adaptive)
	for _, p := range following {
		until(t, "what was chosen", func() bool { x, ok := p.Explain(); return ok && x.Batches > 0 })
	}
	until(t, "the broker's hints", func() bool {
		x, _ := following[0].Explain()
		return x.Conditions.FanOut.Source == adaptive.Broker && x.Conditions.FanOut.Value == 1+1*2
	})
	// One algorithm less: what is chosen from then on is among the others.
	o.Algorithms = []message.Algorithm{message.None, message.LZ4, message.Gzip, message.Snappy}
	reload(compression.Adaptive)
	strategy := func(st client.Choice[compression.Strategy]) {
		t.Helper()
		if _, err := admin.AlterTopic(ctx, "flow", client.TopicChange{Strategy: &st}); err != nil {
			t.Fatal(err)
		}
	}
	strategy(client.Choose(compression.Never))
	settled(following, compression.Never)
	strategy(0)
	settled(following, compression.Adaptive)
	settled([]*client.Producer{own}, compression.Always)
	for _, st := range []compression.Strategy{compression.Adaptive, compression.Never, compression.Adaptive} {
		if err := own.SetCompression(&compression.Policy{Strategy: st}); err != nil {
			t.Fatal(err)
		}
		settled([]*client.Producer{own}, st)
	}
	until(t, "the broker's hints, of the producer that became adaptive by itself", func() bool {
		x, _ := own.Explain()
		return x.Conditions.FanOut.Source == adaptive.Broker
	})
	reload(compression.Never)
	if err := own.SetCompression(nil); err != nil { // as the broker says, again
		t.Fatal(err)
	}
	settled([]*client.Producer{own}, compression.Never)
	if err := own.SetCompression(&compression.Policy{Level: 9}); err == nil {
		t.Error("a level that is none was taken")
	}

	f.end()
	if n := s.Stats().Opened; n != 3 {
		t.Errorf("%d connections were opened, want 3", n)
	}
}

// Algorithms are taken away under load, while producers use them, by advice and by
// their own choice: no batch is refused, and new ones are made by what is left.
func TestNarrowingUnderLoad(t *testing.T) {
	s, o := tunable(t, server.Options{Loops: 2, Encoding: message.JSON})
	adapt := []client.ProducerOption{client.WithCompression(compression.Policy{Strategy: compression.Adaptive})}
	f := startFlow(t, s, 300, nil, nil, adapt)
	for round := range 2 {
		for _, a := range []message.Algorithm{message.LZ4, message.Zstd, message.Snappy, message.Gzip} {
			o.CompressionStrategy, o.Compression = wire.Choose(compression.Always), a
			o.Algorithms = []message.Algorithm{message.None, a}
			if err := s.Reload(o); err != nil {
				t.Fatal(err)
			}
			if round == 0 { // else the next one comes before this is followed
				for _, p := range f.producers[:2] {
					until(t, a.String(), func() bool { return p.Stats().Algorithm == a })
				}
			}
			f.flows()
		}
		o.CompressionStrategy, o.Algorithms = wire.Choose(compression.Adaptive), nil
		if err := s.Reload(o); err != nil {
			t.Fatal(err)
		}
		f.flows()
	}
	f.end()
}

// What an adaptive producer chose, by what, and at what cost, is told by itself and
// by the broker, and its log makes the same decisions again.
func TestAdaptiveIsExplained(t *testing.T) {
	s, _ := tunable(t, server.Options{Loops: 1})
	ctx := t.Context()
	var log bytes.Buffer
	c := dial(t, s.Addr().String(), client.WithDecisionLog(&log, 0), client.WithPolicyArtefact([]byte("of another age")))
	if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Visibility: message.AckAccepted}); err != nil {
		t.Fatal(err)
	}
	p, err := c.Producer(ctx, "orders", client.WithAck(message.AckAccepted), client.WithCompression(compression.Policy{Strategy: compression.Adaptive}), client.WithLatencyBudget(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Explain(); ok {
		t.Error("something was chosen before anything was sent")
	}
	for i := range 20_000 {
		v := fmt.Appendf(nil, `{"order":%d,"status":"delivered","country":"NL","note":"left with the neighbour at number %d"}`, i, i%80)
		if err := p.SendAsync(ctx, &message.Message{Value: v}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	x, ok := p.Explain()
	if !ok || x.Batches == 0 || x.Note == "" || len(x.Uses) != adaptive.Arms || len(x.Turns) == 0 {
		t.Fatalf("%v %+v", ok, x)
	}
	until(t, "the broker's word of it", func() bool {
		all := s.Choices("orders")
		return len(all) == 1 && len(all[0].Producers) == 1
	})
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	all := s.Choices("orders")
	if len(all) != 1 || len(all[0].Producers) != 0 || all[0].Batches != p.Stats().Batches || len(all[0].Recent) == 0 {
		t.Fatalf("the broker shows %+v", all)
	}
	var in uint64
	for _, a := range all[0].Arms {
		in += a.In
	}
	if in != p.Stats().RawBytes {
		t.Errorf("%d bytes by arm, %d sent", in, p.Stats().RawBytes)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := adaptive.Replay(bytes.NewReader(log.Bytes()), adaptive.Embedded(), nil, false)
	if err != nil || r.Differ != 0 || r.Truncated || r.Decisions != p.Stats().Batches {
		t.Errorf("replayed %+v, %v; %d batches were sent", r, err, p.Stats().Batches)
	}
}

// A broker's artefact decides instead of the embedded one, while producers send; one
// that is none is refused with the reason, and nothing changes.
func TestBrokerHasAPolicy(t *testing.T) {
	own, err := os.ReadFile(filepath.Join("..", "compression", "adaptive", "artefact.json"))
	if err != nil {
		t.Fatal(err)
	}
	other := append(bytes.TrimSpace(own), "\n\n\n"...)
	a, err := adaptive.Parse(other)
	if err != nil || a.Hash() == adaptive.Embedded().Hash() {
		t.Fatalf("%v, hash %016x", err, a.Hash())
	}
	s, o := tunable(t, server.Options{Loops: 1, CompressionStrategy: wire.Choose(compression.Adaptive)})
	ctx := t.Context()
	c := dial(t, s.Addr().String())
	if _, err := c.Admin().CreateTopic(ctx, client.TopicConfig{Name: "orders", Visibility: message.AckAccepted}); err != nil {
		t.Fatal(err)
	}
	p, err := c.Producer(ctx, "orders", client.WithAck(message.AckAccepted))
	if err != nil {
		t.Fatal(err)
	}
	decides := func(hash uint64, note string) {
		t.Helper()
		until(t, fmt.Sprintf("artefact %016x, note %q", hash, note), func() bool {
			if _, err := p.Send(ctx, &message.Message{Value: bytes.Repeat([]byte("delivered "), 200)}); err != nil {
				t.Fatal(err)
			}
			x, ok := p.Explain()
			return ok && x.Artefact == fmt.Sprintf("%016x", hash) && strings.Contains(x.Note, note)
		})
	}
	hand := func(b []byte) {
		t.Helper()
		o.Artefact = b
		if err := s.Reload(o); err != nil {
			t.Fatal(err)
		}
	}
	decides(adaptive.Embedded().Hash(), "")
	hand(other)
	decides(a.Hash(), "")
	hand([]byte("of another age"))
	decides(a.Hash(), "not used")
	hand(nil)
	decides(adaptive.Embedded().Hash(), "")
	x, _ := p.Explain()
	if n := p.Stats().Batches; x.Batches == 0 || x.Batches > n {
		t.Errorf("%d batches explained of %d", x.Batches, n)
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if all := s.Choices("orders"); len(all) != 1 || all[0].Batches == 0 || all[0].Batches > p.Stats().Batches {
		t.Errorf("the broker shows %+v of %d batches", all, p.Stats().Batches)
	}
}
