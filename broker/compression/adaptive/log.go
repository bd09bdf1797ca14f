package adaptive

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/portask/portask/broker/fault"
)

// The event log holds every input of deciders and every decision, so that Replay
// can make the decisions again. All deciders of a process may write one log.
//
//	┌───────────────┬────────────┬──────────────────┬─────────────
//	│ magic  "PADL" │ version u8 │ artefact hash u64│ events ...
//	└───────────────┴────────────┴──────────────────┴─────────────
//
// An event is its kind (u8), the decider's number in the log (uvarint), and:
//
//	1 opened      topic, producer (uvarint length, bytes), host scale f64,
//	              arms uvarint, least saving f64
//	2 conditions  7 readings: value f64, source u8, age varint
//	3 dictionary  u8: 1 present
//	4 decided     size uvarint, features u8 (1: six uvarints follow: pairs, lanes,
//	              plain, near, far, probes), then what was decided: arm u8,
//	              reason u8, keep most varint, measure u8
//	5 observed    token: regime uvarint, arm u8, class u8, out, encode, weight,
//	              price f64; in, out, encode ns, decode ns varints
//
// Numbers are little-endian; f64 are the bits of IEEE 754, so a NaN that was
// given is replayed as one. There is no clock in it. A log that ends within an
// event ends before it: the process may have been killed.
const (
	logMagic   = "PADL"
	logVersion = 1

	logHeadBytes = len(logMagic) + 1 + 8
)

const (
	eventOpened = 1 + iota
	eventConditions
	eventDictionary
	eventDecided
	eventObserved
	eventKinds
)

// eventBytesMax bounds one event: names are cut to nameMax.
const (
	nameMax       = 255
	eventBytesMax = 1 + 5 + 2*(2+nameMax) + 8 + 3 + 8
)

// A Recorder writes the event log of any number of deciders. It is safe for
// concurrent use. A nil Recorder records nothing.
type Recorder struct {
	mu      sync.Mutex
	w       io.Writer // guarded by mu, like the rest
	left    int64
	err     error
	streams uint32
	buf     []byte
	events  uint64
}

// recordBuffer is what a Recorder gathers before it writes.
const recordBuffer = 32 << 10

// NewRecorder begins a log of at most maxBytes on w, of deciders that use a. What
// does not fit any more is not recorded: the log is then a prefix, and replays as
// one.
func NewRecorder(w io.Writer, a *Artefact, maxBytes int64) *Recorder {
	r := &Recorder{w: w, left: maxBytes, buf: make([]byte, 0, recordBuffer+eventBytesMax)}
	r.buf = append(r.buf, logMagic...)
	r.buf = append(r.buf, logVersion)
	r.buf = binary.LittleEndian.AppendUint64(r.buf, a.hash)
	r.left -= int64(len(r.buf))
	return r
}

// ErrRecordFull says that a log has reached its most bytes.
var ErrRecordFull = errors.New("the log of decisions is full")

// Err returns why the log ended early: ErrRecordFull, or what writing returned.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Events returns how many were recorded.
func (r *Recorder) Events() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events
}

// Flush writes what was gathered. The error is that of Err, but for a full log.
func (r *Recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write()
	if errors.Is(r.err, ErrRecordFull) {
		return nil
	}
	return r.err
}

func (r *Recorder) write() {
	if len(r.buf) > 0 && (r.err == nil || errors.Is(r.err, ErrRecordFull)) {
		if _, err := r.w.Write(r.buf); err != nil {
			r.err = err
		}
	}
	r.buf = r.buf[:0]
}

// end completes the event that was appended to buf from at on. mu is held.
func (r *Recorder) end(at int) {
	if n := int64(len(r.buf) - at); n > r.left {
		r.buf, r.err = r.buf[:at], ErrRecordFull
	} else {
		r.left -= n
		r.events++
	}
	if len(r.buf) >= recordBuffer {
		r.write()
	}
}

// begin starts an event; false if the log takes no more. mu is held after true.
func (r *Recorder) begin(kind byte, stream uint32) (at int, ok bool) {
	if r == nil {
		return 0, false
	}
	r.mu.Lock()
	if r.err != nil {
		r.mu.Unlock()
		return 0, false
	}
	at = len(r.buf)
	r.buf = binary.AppendUvarint(append(r.buf, kind), uint64(stream))
	return at, true
}

func (r *Recorder) float(v float64) {
	r.buf = binary.LittleEndian.AppendUint64(r.buf, math.Float64bits(v))
}

func (r *Recorder) name(s string) {
	s = s[:min(len(s), nameMax)]
	r.buf = append(binary.AppendUvarint(r.buf, uint64(len(s))), s...)
}

// opened numbers a decider and records it in one step: a replay knows deciders in
// the order of their numbers.
func (r *Recorder) opened(o *Options) (stream uint32) {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stream = r.streams
	r.streams++
	if r.err != nil {
		return stream
	}
	at := len(r.buf)
	r.buf = binary.AppendUvarint(append(r.buf, eventOpened), uint64(stream))
	r.name(o.Topic)
	r.name(o.Producer)
	r.float(o.HostScale)
	r.buf = binary.AppendUvarint(r.buf, uint64(o.Arms))
	r.float(o.MinSaving)
	r.end(at)
	return stream
}

func (r *Recorder) conditions(stream uint32, c *Conditions) {
	if at, ok := r.begin(eventConditions, stream); ok {
		for i := range readings {
			x := c.at(i)
			r.float(x.Value)
			r.buf = binary.AppendVarint(append(r.buf, byte(x.Source)), x.Age)
		}
		r.end(at)
		r.mu.Unlock()
	}
}

func (r *Recorder) dictionary(stream uint32, present bool) {
	if at, ok := r.begin(eventDictionary, stream); ok {
		r.buf = append(r.buf, bit(present))
		r.end(at)
		r.mu.Unlock()
	}
}

func (r *Recorder) decided(stream uint32, size int, f *Features, d *Decision) {
	if r == nil {
		return
	}
	if at, ok := r.begin(eventDecided, stream); ok {
		r.buf = append(binary.AppendUvarint(r.buf, uint64(size)), bit(f.Valid))
		if f.Valid {
			for _, v := range [...]uint16{f.Pairs, f.Lanes, f.Plain, f.Near, f.Far, f.Probes} {
				r.buf = binary.AppendUvarint(r.buf, uint64(v))
			}
		}
		r.buf = append(r.buf, byte(d.Arm), byte(d.Reason))
		r.buf = append(binary.AppendVarint(r.buf, int64(d.KeepMost)), bit(d.Measure))
		r.end(at)
		r.mu.Unlock()
	}
}

func (r *Recorder) observed(stream uint32, t Token, in, out int, encodeNs, decodeNs int64) {
	if r == nil {
		return
	}
	if at, ok := r.begin(eventObserved, stream); ok {
		r.buf = append(binary.AppendUvarint(r.buf, uint64(t.regime)), byte(t.arm), t.class)
		r.float(t.out)
		r.float(t.encode)
		r.float(t.weight)
		r.float(t.price)
		for _, v := range [...]int64{int64(in), int64(out), encodeNs, decodeNs} {
			r.buf = binary.AppendVarint(r.buf, v)
		}
		r.end(at)
		r.mu.Unlock()
	}
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// Record begins to record d on r, or ends it for nil. What d has learnt is
// forgotten with the beginning, and its counts are: a replay begins with nothing
// too. The recorder must have been made for the artefact of d.
func (d *Decider) Record(r *Recorder) {
	if r == nil {
		d.rec = nil
		return
	}
	c, dictionary := d.conditions, d.dictionary
	*d = *New(d.a, d.o)
	d.rec, d.stream = r, r.opened(&d.o)
	d.SetConditions(c)
	d.SetDictionary(dictionary)
}

// badLog is the error of an event log that does not hold what it must.
func badLog(c fault.Code, field string) *fault.Error {
	return fault.New(c, "replay decisions").WithField(field).WithCategory(fault.CategoryCompression)
}
