package record

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/fault"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/scenario"
)

func TestMain(m *testing.M) { launchtest.Main(m, func() error { return goleak.Find() }) }

func plan(t *testing.T, more ...scenario.Setting) *scenario.Scenario {
	t.Helper()
	s, err := scenario.With(append([]scenario.Setting{
		{Path: "phases.*.duration", Value: "400ms"}, {Path: "phases.*.rate", Value: "2000"}, {Path: "producers.ack", Value: "accepted"},
		{Path: "payload.size", Value: "100..900"}, {Path: "payload.source", Value: "json"}, {Path: "keys.count", Value: "50"}, {Path: "keys.skew", Value: "0.9"},
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A run through the proxy is recorded to the message, compressed or not, and the
// trace replays it: as many messages, of the same sizes and topics, at the same
// times.
func TestRecordAndReplay(t *testing.T) {
	b := launchtest.Start(t)
	for _, compression := range []string{"never", "always:zstd", "always:lz4"} {
		t.Run(compression, func(t *testing.T) {
			dir := t.TempDir()
			var file bytes.Buffer
			r, err := Start(&file, Options{Samples: filepath.Join(dir, "samples")})
			if err != nil {
				t.Fatal(err)
			}
			p, err := Listen("127.0.0.1:0", b.Addr(), r)
			if err != nil {
				t.Fatal(err)
			}
			d, err := portask.Open(t.Context(), p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			s := plan(t, scenario.Setting{Path: "producers.compression", Value: compression})
			s.Topics = append(s.Topics, s.Topics[0])
			s.Topics[1].Name = "second"
			res := run(t, s, load.Config{Driver: d})
			d.Close()
			p.Close()
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if len(res.Violations) > 0 {
				t.Fatal(res.Violations)
			}
			tr, err := pace.ReadTrace(bytes.NewReader(file.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			said, whole := tr.Recorded()
			if !whole || said.Messages != res.Counts.Sent || said.Dropped+said.Approximate+said.Resent != 0 || r.Stats().Unread != 0 || r.Stats().Topics != 2 {
				t.Fatalf("%d messages sent; the trace says %+v, %+v", res.Counts.Sent, said, r.Stats())
			}
			keys, sizes, topics := map[uint64]int{}, 0.0, map[uint32]int{}
			for i := range tr.Len() {
				x := tr.Item(i)
				keys[x.Key]++
				topics[x.Topic]++
				sizes += float64(x.Size)
			}
			// A key's rank carries over: Zipf's first is by far the most frequent.
			most := 0
			for _, n := range keys {
				most = max(most, n)
			}
			if keys[0] > 0 || len(keys) > 50 || len(keys) < 40 || most < tr.Len()/10 || topics[1] != topics[2] || tr.Topics() != 2 {
				t.Errorf("%d keys, the most frequent %d of %d; topics %v", len(keys), most, tr.Len(), topics)
			}
			if mean := sizes / float64(tr.Len()); math.Abs(mean-res.Payload.MeanBytes) > 0.02*mean {
				t.Errorf("mean size %v, sent %v", mean, res.Payload.MeanBytes)
			}
			if span := time.Duration(tr.Span() - tr.Item(0).At); span < 700*time.Millisecond || span > 1500*time.Millisecond {
				t.Errorf("span %v, sent for 800 ms", span)
			}
			if got, err := os.ReadDir(filepath.Join(dir, "samples")); err != nil || len(got) != (tr.Len()+sampleEvery-1)/sampleEvery {
				t.Errorf("%d samples, %v", len(got), err)
			}
			if bytes.Contains(file.Bytes(), []byte("second")) {
				t.Error("the trace names a topic")
			}

			name := filepath.Join(dir, "x.ptrace")
			if err := os.WriteFile(name, file.Bytes(), 0o666); err != nil {
				t.Fatal(err)
			}
			again := plan(t, scenario.Setting{Path: "phases.1.arrival", Value: "trace"}, scenario.Setting{Path: "phases.1.file", Value: name}, scenario.Setting{Path: "phases.1.speed", Value: "2"})
			again.Phases = again.Phases[1:]
			again.Phases[0].Duration = time.Duration(tr.Span())/2 + 50*time.Millisecond
			again.Topics = append(again.Topics, again.Topics[0])
			again.Topics[1].Name = "second"
			replayed := run(t, again, load.Config{Driver: loopback.Open(loopback.Behaviour{})})
			if c := replayed.Counts; c.Delivered != said.Messages || len(replayed.Violations) > 0 || math.Abs(replayed.Payload.MeanBytes-res.Payload.MeanBytes) > 0.02*res.Payload.MeanBytes {
				t.Errorf("replayed %+v, mean size %v of %v", c, replayed.Payload.MeanBytes, res.Payload.MeanBytes)
			}
		})
	}
}

// Connections that break and come back: what was cut off is sent again, and
// every message is in the trace once.
func TestReconnects(t *testing.T) {
	b := launchtest.Start(t)
	r, end := start(t, Options{})
	broken, err := fault.Listen(b.Addr(), fault.ProxyOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer broken.Close()
	p, err := Listen("127.0.0.1:0", broken.Addr(), r)
	if err != nil {
		t.Fatal(err)
	}
	d, err := portask.Open(t.Context(), p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	res := run(t, plan(t), load.Config{Driver: d, Meanwhile: func(ctx context.Context, _ *load.Run) error {
		for range 3 {
			select {
			case <-time.After(150 * time.Millisecond):
				broken.Reset()
			case <-ctx.Done():
			}
		}
		return nil
	}})
	d.Close()
	p.Close()
	tr, err := end()
	if err != nil {
		t.Fatal(err)
	}
	said, _ := tr.Recorded()
	t.Logf("%d retries; %+v", res.Wire.Retries, said)
	if len(res.Violations) > 0 || said.Messages != res.Counts.Sent || said.Dropped > 0 {
		t.Errorf("%d messages sent, violations %v; the trace says %+v", res.Counts.Sent, res.Violations, said)
	}
}

func run(t *testing.T, s *scenario.Scenario, c load.Config) *load.Result {
	t.Helper()
	c.Scenario = s
	r, err := load.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Execute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// stream is what a producer sends for one batch of n messages, and the answer to
// its opening.
func stream(n int, sequence uint32) (client, server []byte) {
	client = wire.AppendPreface(nil, 1, 1)
	client = wire.AppendFrame(client, wire.Header{Opcode: wire.OpOpenProducer, Correlation: 7}, &wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
	server = wire.AppendFrame(nil, wire.Header{Opcode: wire.OpOpenProducer | wire.ResponseBit, Correlation: 7, Handle: 3}, &wire.OpenProducerOK{Partitions: 1})
	return append(client, produce(n, sequence)...), server
}

func produce(n int, sequence uint32) []byte {
	b := message.NewBuilder(message.DefaultLimits())
	for i := range n {
		b.Append(&message.Message{Key: []byte{byte(i)}, Value: make([]byte, 10+i), Timestamp: 1_000_000 + int64(i)*1000})
	}
	batch, err := b.Finish(nil, message.Producer{ID: 5, Sequence: sequence}, nil)
	if err != nil {
		panic(err)
	}
	return append(wire.AppendProduceFrame(nil, wire.Header{Opcode: wire.OpProduce, Correlation: 8, Handle: 3}, 0, len(batch)), batch...)
}

func start(t *testing.T, o Options) (*Recorder, func() (*pace.Trace, error)) {
	t.Helper()
	var b bytes.Buffer
	r, err := Start(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	return r, func() (*pace.Trace, error) {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		return pace.ReadTrace(&b)
	}
}

// Frames are found in pieces of any size, and messages lie a millisecond apart, as
// they were made, not at the time of their batch; a batch that is sent again on another
// connection counts once.
func TestPiecesAndResends(t *testing.T) {
	for _, piece := range []int{1, 7, 1 << 20} {
		r, end := start(t, Options{})
		r.began = r.began.Add(-time.Second)
		for range 2 { // the client comes back and sends it again
			tap := r.Tap()
			client, server := stream(20, 0)
			at := len(client) - len(produce(20, 0))
			for _, part := range [][]byte{client[:at], nil, client[at:]} {
				if part == nil {
					tap.Server(server)
				}
				for len(part) > 0 {
					n := min(piece, len(part))
					tap.Client(part[:n])
					part = part[n:]
				}
			}
			tap.Close()
		}
		tr, err := end()
		if err != nil {
			t.Fatal(err)
		}
		if said, _ := tr.Recorded(); said != (pace.Recorded{Messages: 20, Resent: 20}) || r.waiting.Load() != 0 {
			t.Errorf("pieces of %d: %+v, %d bytes held", piece, said, r.waiting.Load())
		}
		for i := range tr.Len() {
			if x := tr.Item(i); x.Size != uint32(10+i) || x.Topic != 1 || x.Key == 0 || x.At < int64(900*time.Millisecond) || i > 0 && x.At-tr.Item(i-1).At != 1e6 { // as the messages' own times
				t.Errorf("message %d: %+v", i, x)
			}
		}
	}
}

// What there is no room for is left out and counted, to the message: the queue's
// and the file's.
func TestOverload(t *testing.T) {
	r, end := start(t, Options{MaxBytes: 4096})
	tap := r.Tap()
	client, server := stream(1, 0)
	at := len(client) - len(produce(1, 0))
	tap.Client(client[:at])
	tap.Server(server)
	r.waiting.Add(queueBytes)
	tap.Client(produce(17, 0))
	r.waiting.Add(-queueBytes)
	for i := range 100 {
		tap.Client(produce(10, uint32(100+10*i)))
		// The writer takes it before the next one comes, however slow it is.
		for end := time.Now().Add(30 * time.Second); r.waiting.Load() > 0; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%d bytes are still held", r.waiting.Load())
			}
		}
	}
	// A frame that is cut off gives back what it reserved.
	tap.Client(produce(10, 5000)[:100])
	tap.Close()
	tr, err := end()
	if err != nil {
		t.Fatal(err)
	}
	said, _ := tr.Recorded()
	if said.Messages+said.Dropped != 1017 || said.Messages == 0 || said.Dropped <= 17 || r.waiting.Load() != 0 {
		t.Errorf("%+v, %d bytes held", said, r.waiting.Load())
	}
	if said.Messages > 4096/11 {
		t.Errorf("%d messages in 4096 bytes", said.Messages)
	}
}

// Other protocols are passed and not followed.
func TestStrangers(t *testing.T) {
	r, end := start(t, Options{})
	for _, x := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03"} {
		tap := r.Tap()
		tap.Client([]byte(x))
		tap.Server([]byte(x + x))
		tap.Close()
	}
	if _, err := end(); err == nil || r.Stats().Unread != 2 {
		t.Errorf("%v, %+v", err, r.Stats())
	}
}

// Whatever comes, the recorder stays, within its memory, and the trace can be
// read.
func FuzzTap(f *testing.F) {
	client, server := stream(3, 0)
	f.Add(client, server)
	f.Add([]byte("GET / HTTP/1.1"), []byte{})
	f.Add(append(bytes.Clone(client), produce(2, 0)[:50]...), server)
	f.Fuzz(func(t *testing.T, client, server []byte) {
		var b bytes.Buffer
		r, err := Start(&b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		tap := r.Tap()
		tap.Client(client[:len(client)/2])
		tap.Server(server)
		tap.Client(client[len(client)/2:])
		tap.Close()
		if err := r.Close(); err != nil || r.waiting.Load() != 0 {
			t.Fatalf("%v, %d bytes held", err, r.waiting.Load())
		}
		if _, err := pace.ReadTrace(&b); err != nil && r.Stats().Messages > 0 {
			t.Fatal(err)
		}
	})
}
