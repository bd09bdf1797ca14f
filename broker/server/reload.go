package server

import (
	"context"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// live are the settings that Reload changes. It is immutable; event loops reach
// it through one atomic pointer, so a reload costs them nothing.
type live struct {
	slowConsumer   time.Duration
	producerBytes  int64
	deliverBytes   int
	retentionEvery time.Duration
	debug          bool // the logger takes debug messages
	// accept has bit i set if batches are taken whose attributes end in the five
	// bits i: algorithm and encoding.
	accept uint32
	// What producers are advised where their topic says nothing.
	algorithm message.Algorithm
	level     compression.Level
	encoding  message.Encoding
	strategy  compression.Strategy
	// algorithms has bit i set if batches of algorithm i are taken.
	algorithms uint16
	artefact   []byte
	policy     uint64 // names artefact; 0 without one
}

func (o *Options) live() *live {
	v := &live{slowConsumer: o.SlowConsumer, producerBytes: o.ProducerBytes, deliverBytes: o.DeliverBytes, retentionEvery: o.RetentionEvery,
		debug:     o.Logger.Enabled(context.Background(), slog.LevelDebug),
		algorithm: o.Compression, level: o.CompressionLevel, encoding: o.Encoding,
		strategy: o.CompressionStrategy.Or(compression.Threshold)}
	if len(o.Artefact) > 0 {
		h := fnv.New64a()
		_, _ = h.Write(o.Artefact) // never fails
		v.artefact, v.policy = o.Artefact, h.Sum64()
	}
	for _, alg := range o.Algorithms {
		v.algorithms |= 1 << alg
		for _, enc := range o.Encodings {
			v.accept |= 1 << (message.Attributes(0).WithAlgorithm(alg).WithEncoding(enc) & acceptMask)
		}
	}
	return v
}

const acceptMask = 31

func (v *live) accepts(a message.Attributes) bool { return v.accept>>(a&acceptMask)&1 != 0 }

// Reload changes what can change while the server runs, without touching a
// connection: SlowConsumer, ProducerBytes, DeliverBytes, Algorithms, Encodings,
// Compression, CompressionLevel, CompressionStrategy, Artefact, Encoding, RetentionEvery, Topics, and whether the
// Logger takes debug messages. The other fields of o are not looked at; zero means
// the default, as in New.
//
// Producers that follow the broker's advice are told what is new. Limits hold for
// what is opened from now on: producers, subscriptions, topics; the others at
// once. After an error, which reports all violations, nothing has
// changed. It may be called concurrently.
func (s *Server) Reload(o Options) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	n := s.opts
	n.SlowConsumer, n.ProducerBytes, n.DeliverBytes = o.SlowConsumer, o.ProducerBytes, o.DeliverBytes
	n.Algorithms, n.Encodings = o.Algorithms, o.Encodings
	n.Compression, n.CompressionLevel, n.Encoding = o.Compression, o.CompressionLevel, o.Encoding
	n.CompressionStrategy, n.Artefact = o.CompressionStrategy, o.Artefact
	n.RetentionEvery, n.Topics = o.RetentionEvery, o.Topics
	if err := n.complete(); err != nil {
		return err
	}
	s.live.Store(n.live())
	s.cat.SetDefaults(n.Topics)
	s.advise()
	select {
	case s.reloaded <- struct{}{}:
	default: // it has not looked since the last one, and will find this
	}
	return nil
}
