package disklog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sort"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

var testID = storage.PartitionID{Topic: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, Index: 7}

// written is a batch as the script appended it.
type written struct {
	base, end message.Offset
	time      int64
	bytes     []byte
}

// same compares what is stored with what was appended, but for the header
// checksum, which depends on the segment.
func (w *written) same(b []byte) bool {
	return len(b) == len(w.bytes) && bytes.Equal(b[:32], w.bytes[:32]) && bytes.Equal(b[36:], w.bytes[36:])
}

// oracle knows what a log must hold, from what was asked of it and answered.
type oracle struct {
	batches  []written      // all ever appended or being appended, from offset 0
	accepted int            // how many of them were accepted
	durable  message.Offset // acknowledged
	start    message.Offset // acknowledged
	maybe    message.Offset // start that a Retain may have set
	epoch    uint64
	half     bool // a durable record was written by half
	clock    int64
	rng      *rand.Rand
	build    *message.Builder
}

func newOracle(seed uint64) *oracle {
	return &oracle{
		rng: rand.New(rand.NewPCG(seed, 77)), build: message.NewBuilder(message.DefaultLimits()),
		clock: 1_700_000_000_000_000,
	}
}

func (o *oracle) end() message.Offset {
	if o.accepted == 0 {
		return 0
	}
	return o.batches[o.accepted-1].end
}

// value returns n bytes that are neither zeros nor alike.
func (o *oracle) value(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(o.rng.Uint32())
	}
	return b
}

// make builds n batches with values of up to valueBytes.
func (o *oracle) make(n, valueBytes int, epoch uint64) []storage.Batch {
	base := o.end()
	o.batches = o.batches[:o.accepted]
	out := make([]storage.Batch, n)
	for i := range out {
		o.build.Reset()
		count := 1 + o.rng.IntN(3)
		for range count {
			m := message.Message{Value: o.value(1 + o.rng.IntN(valueBytes)), Timestamp: o.clock - o.rng.Int64N(5000)}
			if err := o.build.Append(&m); err != nil {
				panic(err)
			}
		}
		b, err := o.build.Finish(nil, message.Producer{ID: 1, Sequence: uint32(base)}, nil)
		if err != nil {
			panic(err)
		}
		e, err := message.ParseEnvelope(b, nil)
		if err != nil {
			panic(err)
		}
		out[i] = storage.Batch{Bytes: b, Base: base, End: base + message.Offset(count), Time: o.clock, Epoch: epoch, MaxTime: e.MaxTimestamp()}
		w := written{base: base, end: out[i].End, time: o.clock, bytes: bytes.Clone(b)}
		message.Stamp(w.bytes, base, o.clock, epoch, 0)
		o.batches = append(o.batches, w)
		base = out[i].End
		o.clock += 1000
	}
	return out
}

// append makes batches and appends them.
func (o *oracle) append(l storage.Log, n, valueBytes int) error {
	err := l.Append(o.make(n, valueBytes, l.Epoch()))
	if err == nil {
		o.accepted = len(o.batches)
	}
	return err
}

func (o *oracle) sync(l storage.Log) error {
	end, err := l.Sync()
	if err == nil {
		o.durable = max(o.durable, end)
	}
	return err
}

// fold is the producers' state in miniature: a checksum over all batches below
// an offset, in order.
func (o *oracle) fold(below message.Offset) (sum uint32) {
	for i := range o.batches {
		if w := &o.batches[i]; w.end <= below {
			sum = crc32.Update(sum, castagnoli, w.bytes[36:message.EnvelopeBytes])
		}
	}
	return sum
}

func (o *oracle) snapshot(dst []byte, below message.Offset) []byte {
	return binary.LittleEndian.AppendUint32(dst, o.fold(below))
}

// refold is the oracle's storage.Replay.
type refold struct {
	sum  uint32
	next message.Offset
}

func (r *refold) Snapshot(b []byte) error {
	if len(b) != 4 {
		return fmt.Errorf("snapshot of %d bytes", len(b))
	}
	r.sum = binary.LittleEndian.Uint32(b)
	return nil
}

func (r *refold) Batch(e *message.Envelope) error {
	b := message.AppendEnvelope(nil, e, 0)
	r.sum = crc32.Update(r.sum, castagnoli, b[36:])
	r.next = e.EndOffset()
	return nil
}

// options of the script's log.
func (o *oracle) options(r storage.Replay) storage.LogOptions {
	return storage.LogOptions{SegmentBytes: 8 << 10, Snapshot: o.snapshot, Replay: r}
}

// readAll returns every batch that can be read from start on, and the gaps.
func readAll(l storage.Log) (got []written, gaps []storage.GapError, err error) {
	from := l.Start()
	for from < l.End() {
		runs, err := l.Read(from, l.End(), 4<<10, nil)
		var g *storage.GapError
		if errors.As(err, &g) {
			gaps = append(gaps, *g)
			from = g.Next
			continue
		}
		if err != nil {
			return got, gaps, err
		}
		if len(runs) == 0 {
			return got, gaps, fmt.Errorf("nothing to read at %d, end is %d", from, l.End())
		}
		for i := range runs {
			r := &runs[i]
			list, err := unpack(r)
			if err != nil {
				return got, gaps, err
			}
			got = append(got, list...)
			from = r.End
			r.Release()
		}
	}
	return got, gaps, nil
}

// unpack checks a run and takes it apart.
func unpack(r *storage.Run) (list []written, err error) {
	b := make([]byte, r.Len)
	if err := readAt(r, b, 0); err != nil {
		return nil, err
	}
	next := r.First
	for len(b) > 0 {
		e, err := message.ParseEnvelope(b, nil)
		if err == nil && e.Bytes() > len(b) {
			err = errors.New("cut short")
		}
		if err == nil {
			err = message.VerifyHeader(b, r.Seed)
		}
		if err == nil {
			err = message.VerifyBody(b[:e.Bytes()])
		}
		if err == nil && e.BaseOffset != next {
			err = errors.New("out of order")
		}
		if err != nil {
			return list, fmt.Errorf("batch at %d of run [%d, %d): %w", next, r.First, r.End, err)
		}
		list = append(list, written{base: e.BaseOffset, end: e.EndOffset(), time: e.AppendTime, bytes: b[:e.Bytes()]})
		b, next = b[e.Bytes():], e.EndOffset()
	}
	if next != r.End || len(list) != r.Batches {
		return list, fmt.Errorf("run [%d, %d) of %d batches ends at %d after %d", r.First, r.End, r.Batches, next, len(list))
	}
	return list, nil
}

// check compares a recovered log with the oracle: what it holds is a prefix of
// what was appended that includes all that was durable, the producers' state
// is that prefix's, and nothing counts as damage.
func (o *oracle) check(l storage.Log, state *refold) error {
	end := l.End()
	i := sort.Search(len(o.batches), func(i int) bool { return o.batches[i].end >= end })
	switch {
	case end < o.durable:
		return fmt.Errorf("ends at %d, durable was %d", end, o.durable)
	case end > 0 && (i == len(o.batches) || o.batches[i].end != end):
		return fmt.Errorf("ends at %d, which no batch does", end)
	case l.Start() < o.start || l.Start() > max(o.start, o.maybe):
		return fmt.Errorf("starts at %d, want %d or %d", l.Start(), o.start, o.maybe)
	case l.Durable() != end:
		return fmt.Errorf("durable to %d of %d after open", l.Durable(), end)
	case l.Epoch() <= o.epoch:
		return fmt.Errorf("epoch %d after %d", l.Epoch(), o.epoch)
	case l.Stats().Corruptions != 0:
		return fmt.Errorf("a crash is taken for damage")
	}
	for _, p := range l.(*Log).Problems() {
		if p.Class.Damage() && !(o.half && p.Class == DurableRecord) {
			return fmt.Errorf("a crash is taken for damage: %v", p)
		}
	}
	got, gaps, err := readAll(l)
	if err != nil {
		return err
	}
	if len(gaps) > 0 {
		return fmt.Errorf("gaps %v", gaps)
	}
	if err := o.prefix(got, l.Start(), end); err != nil {
		return err
	}
	if state != nil && state.sum != o.fold(end) {
		return fmt.Errorf("producers' state is not that of the batches below %d", end)
	}
	return nil
}

// prefix compares batches with those of the oracle in [start, end).
func (o *oracle) prefix(got []written, start, end message.Offset) error {
	for i := range o.batches {
		w := &o.batches[i]
		if w.base < start || w.end > end {
			continue
		}
		if len(got) == 0 {
			return fmt.Errorf("batch at %d is missing", w.base)
		}
		if !w.same(got[0].bytes) {
			return fmt.Errorf("batch at %d is [%d, %d), and not as it was appended", w.base, got[0].base, got[0].end)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		return fmt.Errorf("batch at %d was never appended", got[0].base)
	}
	return nil
}

// script is a deterministic history of one log and some metadata.
type script struct {
	fs   vfs.FS
	e    *Engine
	l    storage.Log
	o    *oracle
	opts Options
	lazy bool   // syncs seldom
	meta []byte // acknowledged; nil if there is none
	next []byte // being stored, or nil
	gone bool   // being removed
}

func newScript(fs vfs.FS, seed uint64) *script {
	opts := fixed(small())
	opts.FirstBytes = 4 << 10
	return &script{fs: fs, o: newOracle(seed), opts: opts}
}

func (s *script) open() (err error) {
	if s.e, err = Open(s.fs, "data", s.opts); err != nil {
		return err
	}
	return s.openLog()
}

func (s *script) openLog() error {
	l, err := s.e.OpenLog(testID, s.o.options(nil))
	if err == nil {
		s.l, s.o.epoch, s.o.durable = l, l.Epoch(), l.Durable()
	}
	return err
}

// step does one operation chosen by the oracle's random numbers.
func (s *script) step() error {
	o := s.o
	switch n := o.rng.IntN(100); {
	case n < 50:
		return o.append(s.l, 1+o.rng.IntN(4), []int{30, 400, 1500}[o.rng.IntN(3)])
	case n < 75:
		if s.lazy && n > 50 {
			return o.append(s.l, 1+o.rng.IntN(3), 400)
		}
		return o.sync(s.l)
	case n < 83:
		o.maybe = o.end()
		_, err := s.l.Retain(storage.Retention{MaxBytes: []int64{1, 10_000, 25_000}[o.rng.IntN(3)]}, o.clock, o.end())
		if err == nil {
			o.start, o.durable = s.l.Start(), max(o.durable, s.l.Durable())
			o.maybe = o.start
		}
		return err
	case n < 85:
		s.gone = s.meta != nil
		err := s.e.RemoveMeta("catalogue")
		if err == nil || fault.CodeOf(err) == fault.NotFound && s.meta == nil {
			s.meta, s.gone, err = nil, false, nil
		}
		return err
	case n < 90:
		s.next = o.value(1 + o.rng.IntN(3000))
		err := s.e.StoreMeta("catalogue", s.next)
		if err == nil {
			s.meta, s.next = s.next, nil
		}
		return err
	case n < 95:
		if err := s.l.Close(); err != nil {
			return err
		}
		o.durable = o.end()
		return s.openLog()
	default:
		// A reader that goes through the kernel's file would keep it from
		// being recycled; this one only reads.
		_, _, err := readAll(s.l)
		return err
	}
}

func (s *script) checkMeta(e *Engine) error {
	b, err := e.LoadMeta("catalogue")
	if fault.CodeOf(err) == fault.NotFound && (s.meta == nil || s.gone) {
		return nil
	}
	if err != nil {
		return err
	}
	if (s.meta == nil || !bytes.Equal(b, s.meta)) && (s.next == nil || !bytes.Equal(b, s.next)) {
		return errors.New("metadata is neither the old nor the new")
	}
	return nil
}
