// Package record watches the producers of a Portask broker from a proxy before
// it and writes what they send as a trace (pace.TraceWriter) that a run can
// replay: when, how large, of which topic, and a hash of the key.
//
// The proxy never changes the bytes it passes on and never waits for the
// recorder. It follows frames by their headers and copies PRODUCE frames into a
// bounded queue; another goroutine decompresses and reads them. Where that one
// does not keep up, messages are left out of the trace and counted in its
// trailer. Connections that are not Portask's, or whose frames cannot be
// followed, pass all the same.
//
// A trace is anonymous: no payload, no topic's name, and keys only as hashes
// under a secret that is thrown away with the recorder. Options.Samples keeps
// values, and only if it is asked for.
package record

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
	"github.com/portask/portask/loadgen/pace"
)

const (
	// queueFrames and queueBytes wait for the reader at most: some ten
	// milliseconds of work at full rate, and what the proxy's memory is bounded by.
	queueFrames = 4096
	queueBytes  = 32 << 20
	// horizon is how far back the messages of a batch may lie: they are put in
	// order within it.
	horizon = time.Second
	// heldMax messages are held for that at most.
	heldMax = 1 << 16
	// producersMax are remembered, to tell a batch that is sent again.
	producersMax = 1 << 14
	// trailerMax is room for the last message and the trailer.
	trailerMax  = 128
	samplesMax  = 1000
	sampleEvery = 16 // messages
)

// Options of Start.
type Options struct {
	// MaxBytes of the trace, default 256 MiB; what does not fit is counted as
	// dropped. A trace has at most pace.TraceItemsMax messages, too.
	MaxBytes int64
	// Samples is a new directory for values, one file each, every 16th up to 1,000;
	// empty: no payload is kept.
	Samples string
}

// Recorder writes one trace. Its methods are safe for concurrent use.
type Recorder struct {
	o     Options
	out   *pace.TraceWriter // owned by run
	began time.Time
	queue chan job
	quit  chan struct{}
	ended chan struct{}
	err   error // of run; read after ended

	waiting     atomic.Int64 // bytes in queue
	dropped     atomic.Uint64
	unread      atomic.Uint64 // connections that could not be followed
	messages    atomic.Uint64
	approximate atomic.Uint64
	resent      atomic.Uint64

	mu     sync.Mutex
	topics map[string]uint32 // numbers from 1; guarded by mu
}

// job is a PRODUCE payload, a copy.
type job struct {
	at      int64 // ns since began
	topic   uint32
	payload []byte
}

// Stats of a Recorder.
type Stats struct {
	pace.Recorded
	Topics int
	// Unread connections were not Portask's, or of a version that is not known.
	Unread uint64
}

// Start begins a trace on w.
func Start(w io.Writer, o Options) (*Recorder, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	if o.MaxBytes < 4096 {
		return nil, fmt.Errorf("trace of %d bytes: want at least 4096", o.MaxBytes)
	}
	if o.Samples != "" {
		if err := os.Mkdir(o.Samples, 0o777); err != nil {
			return nil, err
		}
	}
	out, err := pace.NewTraceWriter(w)
	if err != nil {
		return nil, err
	}
	r := &Recorder{
		o: o, out: out, began: time.Now(), queue: make(chan job, queueFrames), quit: make(chan struct{}), ended: make(chan struct{}), topics: map[string]uint32{},
	}
	go r.run()
	return r, nil
}

// Stats of now.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	n := len(r.topics)
	r.mu.Unlock()
	return Stats{pace.Recorded{Messages: r.messages.Load(), Dropped: r.dropped.Load(), Approximate: r.approximate.Load(), Resent: r.resent.Load()}, n, r.unread.Load()}
}

// Close reads what was seen until now and writes the trailer. It is called once,
// when no Tap is in use any more.
func (r *Recorder) Close() error {
	close(r.quit)
	<-r.ended
	return r.err
}

// topic numbers a name; beyond the limit all have the last number.
func (r *Recorder) topic(name string) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.topics[name]
	if n == 0 {
		if len(r.topics) == pace.TraceTopicsMax {
			return pace.TraceTopicsMax
		}
		n = uint32(len(r.topics) + 1)
		r.topics[name] = n
	}
	return n
}

// reserve takes room for n bytes; false if there is none. It never waits.
func (r *Recorder) reserve(n int) bool {
	if r.waiting.Add(int64(n)) <= queueBytes {
		return true
	}
	r.waiting.Add(-int64(n))
	return false
}

// offer queues a PRODUCE for which room was reserved, or counts its messages as
// dropped. It never waits.
func (r *Recorder) offer(j job) {
	select {
	case r.queue <- j:
	default:
		r.waiting.Add(-int64(len(j.payload)))
		r.drop(j.payload)
	}
}

// drop counts the messages of a PRODUCE of which head is the beginning at least.
func (r *Recorder) drop(head []byte) {
	if _, _, batch, err := wire.ParseProduce(head); err == nil {
		if e, err := message.ParseEnvelope(batch, nil); err == nil {
			r.dropped.Add(uint64(e.Count))
			return
		}
	}
	r.dropped.Add(1)
}

// run reads the queue.
func (r *Recorder) run() {
	defer close(r.ended)
	x := &reader{r: r, seed: maphash.MakeSeed(), next: map[lane]uint32{}, sortAt: 1024}
	for {
		select {
		case j := <-r.queue:
			r.waiting.Add(-int64(len(j.payload)))
			x.read(j)
			continue
		default:
		}
		select {
		case j := <-r.queue:
			r.waiting.Add(-int64(len(j.payload)))
			x.read(j)
		case <-r.quit:
			if len(r.queue) > 0 {
				continue
			}
			x.sort()
			x.write(len(x.held))
			r.err = errors.Join(x.err, r.out.Close(pace.Recorded{Dropped: r.dropped.Load(), Approximate: r.approximate.Load(), Resent: r.resent.Load()}))
			return
		}
	}
}

// lane is what a producer numbers its batches in.
type lane struct {
	producer  uint64
	epoch     uint16
	topic     uint32
	partition uint32
}

// reader turns batches into items. Owned by run.
type reader struct {
	r       *Recorder
	seed    maphash.Seed // the secret
	next    map[lane]uint32
	body    []byte
	reader  message.Reader
	held    []pace.Item // not in order yet
	sortAt  int         // length of held
	seen    int         // messages
	samples int
	err     error // of writing
}

func (x *reader) read(j job) {
	partition, _, bytes, err := wire.ParseProduce(j.payload)
	if err != nil {
		x.r.dropped.Add(1)
		return
	}
	b, _, err := message.ParseBatch(bytes, nil)
	if err != nil { // the broker refuses it too
		x.r.dropped.Add(1)
		return
	}
	e := b.Envelope()
	if x.again(e, lane{e.ProducerID, e.ProducerEpoch, j.topic, partition}) {
		x.r.resent.Add(uint64(e.Count))
		return
	}
	from := len(x.held)
	if !x.messages(&b, j) {
		x.held = x.held[:from]
		size := uint32(max(1, b.RawSize()/int(e.Count)))
		for range e.Count {
			x.held = append(x.held, pace.Item{At: j.at, Size: size, Topic: j.topic})
		}
		x.r.approximate.Add(uint64(e.Count))
	}
	x.order(j.at)
}

// again reports whether the batch was seen before. Sequences wrap.
func (x *reader) again(e *message.Envelope, l lane) bool {
	if e.ProducerID == 0 {
		return false
	}
	end := e.BaseSequence + e.Count
	if next, ok := x.next[l]; ok && int32(end-next) <= 0 {
		return true
	}
	if len(x.next) == producersMax {
		clear(x.next)
	}
	x.next[l] = end
	return false
}

// messages reads those of b. Of their own timestamps only the differences count:
// the newest was sent when the batch passed.
func (x *reader) messages(b *message.Batch, j job) bool {
	s, body, err := b.Body()
	if err != nil || b.Envelope().Attributes.Encrypted() {
		return false
	}
	if a := b.Envelope().Attributes.Algorithm(); a != message.None {
		if cap(x.body) > 4<<20 { // of an unusual batch
			x.body = nil
		}
		if x.body, err = compression.AppendDecompress(x.body[:0], body, a, b.RawSize(), compression.Limits{}); err != nil {
			return false
		}
		body = x.body
	}
	from, newest := len(x.held), int64(0)
	b.Messages(&x.reader, &s, body, nil)
	var m message.Message
	for x.reader.Next(&m) {
		i := pace.Item{At: m.Timestamp, Size: uint32(max(1, len(m.Value))), Topic: j.topic}
		if len(m.Key) > 0 {
			i.Key = max(1, maphash.Bytes(x.seed, m.Key))
		}
		newest = max(newest, m.Timestamp)
		x.held = append(x.held, i)
		x.sample(m.Value)
	}
	if x.reader.Err() != nil || len(x.held)-from != b.Count() {
		return false
	}
	for i := range x.held[from:] {
		h := &x.held[from+i]
		back := min(max(0, newest-h.At), horizon.Microseconds()) * 1000
		h.At = max(0, j.at-back)
	}
	return true
}

// sample keeps a value now and then.
func (x *reader) sample(value []byte) {
	x.seen++
	if x.r.o.Samples == "" || x.samples == samplesMax || x.seen%sampleEvery != 1 {
		return
	}
	x.samples++
	name := filepath.Join(x.r.o.Samples, fmt.Sprintf("%04d", x.samples))
	x.err = errors.Join(x.err, os.WriteFile(name, bytes.Clone(value), 0o666))
}

// order writes what lies behind the horizon: nothing earlier comes any more. It
// sorts when so much has come that it pays.
func (x *reader) order(now int64) {
	if len(x.held) < x.sortAt {
		return
	}
	x.sort()
	n, _ := slices.BinarySearchFunc(x.held, now-int64(horizon), func(a pace.Item, t int64) int { return cmp.Compare(a.At, t) })
	x.write(max(n, len(x.held)-heldMax))
	x.sortAt = max(1024, 2*len(x.held))
}

func (x *reader) sort() {
	slices.SortStableFunc(x.held, func(a, b pace.Item) int { return cmp.Compare(a.At, b.At) })
}

// write writes the first n messages held, which are in order.
func (x *reader) write(n int) {
	for _, i := range x.held[:n] {
		if x.err != nil || x.r.out.Bytes() > x.r.o.MaxBytes-trailerMax || x.r.out.Messages() == pace.TraceItemsMax {
			x.r.dropped.Add(1)
			continue
		}
		x.err = x.r.out.Add(i)
		x.r.messages.Add(1)
	}
	x.held = append(x.held[:0], x.held[n:]...)
}
