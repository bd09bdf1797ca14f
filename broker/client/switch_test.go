package client_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
)

// A running broker changes what it advises, a topic gets a dictionary and another,
// all under load and over open connections: no message is lost, each can be
// decoded, the log holds what was advised at the time, and who chose by himself
// is not concerned.
func TestSwitchUnderLoad(t *testing.T) {
	s, o := tunable(t, server.Options{Loops: 2, Encoding: message.JSON})
	const following = 3
	own := make([][]client.ProducerOption, following+1)
	own[following] = []client.ProducerOption{client.WithEncoding(message.MessagePack), client.WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: message.Gzip})} // by himself
	f := startFlow(t, s, 500, own...)
	ctx, admin := t.Context(), f.c.Admin()

	settled := func(a message.Algorithm, e message.Encoding, dictionary uint32) {
		t.Helper()
		for _, p := range f.producers[:following] {
			until(t, fmt.Sprintf("%v, %v, dictionary %08x", a, e, dictionary), func() bool {
				s := p.Stats()
				return s.Algorithm == a && s.Encoding == e && s.Dictionary == dictionary
			})
		}
		f.flows()
	}
	reload := func(a message.Algorithm, l compression.Level, e message.Encoding) {
		t.Helper()
		o.Compression, o.CompressionLevel, o.Encoding = a, l, e
		if err := s.Reload(o); err != nil {
			t.Fatal(err)
		}
	}
	dictionary := func(from int) uint32 {
		t.Helper()
		var samples [][]byte
		for i := range 400 {
			samples = append(samples, fmt.Appendf(nil, `{"Producer":%d,"Sequence":%d,"Status":%q,"Customer":{"country":"NL","id":"%d"}}`, i%4, from+i, strings.Repeat("delivered ", 20), i*7919%1000))
		}
		b, err := compression.TrainDictionary(samples, compression.TrainOptions{MaxBytes: 2 << 10})
		if err != nil {
			t.Fatal(err)
		}
		all, err := admin.AddDictionary(ctx, "flow", b)
		if err != nil {
			t.Fatal(err)
		}
		return all.Active
	}
	settled(message.None, message.JSON, 0)
	reload(message.LZ4, compression.LevelFastest, message.CBOR)
	settled(message.LZ4, message.CBOR, 0)
	reload(message.Zstd, compression.LevelFastest, message.JSON)
	settled(message.Zstd, message.JSON, 0)
	first := dictionary(0)
	settled(message.Zstd, message.JSON, first)
	second := dictionary(5000)
	settled(message.Zstd, message.JSON, second)
	if _, err := admin.UseDictionary(ctx, "flow", first); err != nil {
		t.Fatal(err)
	}
	settled(message.Zstd, message.JSON, first)
	brotli, cbor := client.Choose(message.Brotli), client.Choose(message.CBOR)
	if _, err := admin.AlterTopic(ctx, "flow", client.TopicChange{Compression: &brotli, Encoding: &cbor}); err != nil {
		t.Fatal(err)
	}
	settled(message.Brotli, message.CBOR, 0)
	auto, anyEncoding := client.Choice[message.Algorithm](0), client.Choice[message.Encoding](0)
	if _, err := admin.AlterTopic(ctx, "flow", client.TopicChange{Compression: &auto, Encoding: &anyEncoding}); err != nil {
		t.Fatal(err)
	}
	settled(message.Zstd, message.JSON, first)
	reload(message.None, compression.LevelFastest, message.JSON)
	settled(message.None, message.JSON, 0)

	f.end()
	t.Logf("%d items", f.all.Load())

	// What the log holds of each producer, in order, told by the batches.
	made := history(t, f.reader, "flow")
	want := []string{"none/json", "lz4/cbor", "zstd/json", "zstd/json+" + fmt.Sprintf("%08x", first), "zstd/json+" + fmt.Sprintf("%08x", second),
		"zstd/json+" + fmt.Sprintf("%08x", first), "brotli/cbor", "zstd/json+" + fmt.Sprintf("%08x", first), "none/json"}
	for i := range following {
		got := made[fmt.Sprintf("producer-%d", i)]
		if !subsequence(want, got) {
			t.Errorf("producer %d: its batches were made as %v, want all of %v in this order", i, got, want)
		}
	}
	if got := made[fmt.Sprintf("producer-%d", following)]; !slices.Equal(got, []string{"gzip/msgpack"}) {
		t.Errorf("the producer that chose by himself: %v", got)
	}
}

// subsequence reports whether all of want are in got in order.
func subsequence(want, got []string) bool {
	for _, g := range got {
		if len(want) > 0 && g == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0
}

// history reads the batches of a topic as they are stored, and returns how those
// of each key were made, in order, repetitions left out. All messages of a batch
// have one key.
func history(t *testing.T, c *client.Client, topic string) map[string][]string {
	t.Helper()
	ctx := within(t, time.Minute)
	info, err := c.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	made := map[string][]string{}
	for _, p := range info.Partitions {
		k, err := c.Consumer(ctx, topic, client.From(client.Earliest), client.Partitions(p.Index))
		if err != nil {
			t.Fatal(err)
		}
		for next := p.LogStart; next < p.HWM; {
			raw, err := k.PollRaw(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for rest := raw.Batches; len(rest) > 0; {
				e, err := message.ParseEnvelope(rest, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, body, err := message.Split(rest[:e.Bytes()], &e)
				if err != nil {
					t.Fatal(err)
				}
				how := e.Attributes.Algorithm().String() + "/" + e.Attributes.Encoding().String()
				d := (*compression.Dictionary)(nil)
				if id, _ := compression.FrameDictionary(body); id != 0 && e.Attributes.Algorithm() == message.Zstd {
					how += fmt.Sprintf("+%08x", id)
					b, err := c.Admin().Dictionary(ctx, topic, id)
					if err == nil {
						d, err = compression.ParseDictionary(b)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				var plain []byte
				if d != nil {
					plain, err = d.AppendDecompress(nil, body, int(e.UncompressedLen), compression.Limits{})
				} else {
					plain, err = compression.AppendDecompress(nil, body, e.Attributes.Algorithm(), int(e.UncompressedLen), compression.Limits{})
				}
				var r message.Reader
				r.Reset(&e, plain, nil)
				var m message.Message
				if err != nil || !r.Next(&m) {
					t.Fatal(err, r.Err())
				}
				key := string(m.Key)
				if all := made[key]; len(all) == 0 || all[len(all)-1] != how {
					made[key] = append(all, how)
				}
				next = e.EndOffset()
				rest = rest[e.Bytes():]
			}
			raw.Release()
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return made
}
