package server

import (
	"context"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
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
	// grace says until when, in milliseconds of the server's clock, batches are still
	// taken that accept has lost; by bits as there, 0 = never.
	grace [acceptMask + 1]int64
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

// acceptGrace is how long a producer that takes advice may go on sending what is not
// accepted any more: batches are encoded before they wait for credit, and again after
// a lost connection, so some are on their way by what was advised before. It is three
// heartbeats, after which a peer that says nothing is dead.
const acceptGrace = wire.HeartbeatMisses * wire.DefaultHeartbeat

// after gives what old took and v does not its grace.
func (v *live) after(old *live, now int64) {
	for i := range v.grace {
		switch {
		case v.accept>>i&1 != 0:
		case old.accept>>i&1 != 0:
			v.grace[i] = now + acceptGrace.Milliseconds()
		default:
			v.grace[i] = old.grace[i]
		}
	}
}

// acceptsLate reports whether what is not accepted any more is taken at now still,
// from a producer that takes advice on what has changed.
func (v *live) acceptsLate(a message.Attributes, wants wire.AdviceWants, now int64) bool {
	follows := wire.WantEncoding
	if v.algorithms>>a.Algorithm()&1 == 0 {
		follows = wire.WantCompression | wire.WantStrategy | wire.WantLoad
	}
	return wants&follows != 0 && now < v.grace[a&acceptMask]
}

// Reload changes what can change while the server runs, without touching a
// connection: SlowConsumer, ProducerBytes, DeliverBytes, Algorithms, Encodings,
// Compression, CompressionLevel, CompressionStrategy, Artefact, Encoding, RetentionEvery, Topics, and whether the
// Logger takes debug messages. The other fields of o are not looked at; zero means
// the default, as in New.
//
// Producers that follow the broker's advice are told what is new; what they have made
// by the advice before is taken for 30 s more, though Algorithms or Encodings exclude
// it. Limits hold for
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
	v := n.live()
	v.after(s.live.Load(), time.Since(s.began).Milliseconds())
	s.live.Store(v)
	s.cat.SetDefaults(n.Topics)
	s.advise()
	select {
	case s.reloaded <- struct{}{}:
	default: // it has not looked since the last one, and will find this
	}
	return nil
}
