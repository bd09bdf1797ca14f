package load

import (
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
)

// BenchmarkVerify is what a consumer spends on a message beyond receiving it:
// decode, compare every byte, account for it, record its latency. Value 1 KiB
// before encoding.
func BenchmarkVerify(b *testing.B) {
	for _, codec := range []string{"raw", "cbor", "json", "msgpack"} {
		b.Run("codec="+codec+"/value=1KiB", func(b *testing.B) {
			s := scenario.Default()
			s.Producers.Codec, s.Producers.Count, s.Consumers.Count = codec, 1, 1
			r, err := New(b.Context(), Config{Scenario: s, Driver: loopback.Open(loopback.Behaviour{})})
			if err != nil {
				b.Fatal(err)
			}
			defer r.close(b.Context())
			if err := r.plan(r.clock.Now()); err != nil {
				b.Fatal(err)
			}
			// Some are verified again and again, by sequences that are new each time.
			x, p := r.readers[0], r.producers[0]
			lane := r.tracker.Lane(0, 0)
			const batch = 512
			var messages [batch]message.Message
			n := batch
			b.SetBytes(1024)
			b.ReportAllocs()
			for b.Loop() {
				if n == batch {
					b.StopTimer()
					for i := range messages {
						seq, _ := lane.Send()
						m := &messages[i]
						if m.Value, err = p.enc.Append(m.Value[:0], payload.Header{Sequence: seq, Intended: r.clock.Now()}); err != nil {
							b.Fatal(err)
						}
						lane.Acked(seq)
						m.Offset = message.NoOffset
					}
					n = 0
					b.StartTimer()
				}
				x.message(0, &messages[n])
				n++
			}
			if c := r.tracker.Counts(); c.Violations() > batch { // the last lot is not all delivered
				b.Fatalf("%+v", c)
			}
		})
	}
}
