package disklog

import (
	"bytes"
	"hash/crc32"
	"io"
	"math"
	"sync"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// scanWindow is how much a scan reads at once; it grows to the largest batch.
const scanWindow = 256 << 10

// wideLimits are what recovery believes of an envelope whose checksum holds
// for the segment's id. They only keep arithmetic sane: a log written under
// higher limits than today's is still a log. Memory is bounded by the file.
var wideLimits = message.Limits{
	BatchBytes: 1 << 30, MessageBytes: 1 << 30, KeyBytes: 1 << 30, Headers: 1 << 30, HeaderBytes: 1 << 30,
	Messages: 1 << 30, DecompressedBytes: math.MaxInt32, DecompressedRatio: 1 << 30,
}

// source reads a file through a window, to be given back with done. Not for
// concurrent use.
type source struct {
	f    io.ReaderAt
	size int64 // nothing behind it is read
	buf  []byte
	lent *[]byte // buf's place in the pool; nil before the first read
	at   int64   // position of buf[0]
	n    int     // valid bytes in buf
}

// bytes returns the n bytes at pos, which must lie below size; they are valid
// until the next call.
func (s *source) bytes(pos int64, n int) ([]byte, error) {
	if pos < s.at || pos+int64(n) > s.at+int64(s.n) {
		if err := s.load(pos, n); err != nil {
			return nil, err
		}
	}
	i := int(pos - s.at)
	return s.buf[i : i+n : i+n], nil
}

// windows lends the memory of sources.
var windows = sync.Pool{New: func() any { b := make([]byte, scanWindow); return &b }}

// done gives the window back; the source can go on.
func (s *source) done() {
	if s.lent != nil {
		if len(s.buf) <= 8<<20 { // not that of an extraordinary batch
			*s.lent = s.buf
			windows.Put(s.lent)
		}
		s.lent, s.buf, s.n = nil, nil, 0
	}
}

func (s *source) load(pos int64, n int) error {
	if s.buf == nil {
		s.lent = windows.Get().(*[]byte)
		s.buf = *s.lent
	}
	keep := 0
	old := s.buf
	if n > len(s.buf) {
		s.buf = make([]byte, int(min(s.size-pos, 2*int64(n))))
	}
	if pos >= s.at && pos < s.at+int64(s.n) {
		keep = copy(s.buf, old[pos-s.at:s.n])
	}
	want := int(min(int64(len(s.buf)), s.size-pos))
	s.at, s.n = pos, keep
	got, err := s.f.ReadAt(s.buf[keep:want], pos+int64(keep))
	if got == want-keep {
		s.n = want
		return nil
	}
	s.n = 0
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF // shorter than it was when it was opened
	}
	return err
}

// scan walks the batches of one segment.
type scan struct {
	source
	seed    message.Seed
	seedCRC uint32 // CRC of the seed's bytes, with which every header CRC begins
	heads   bool   // look at headers alone: bodies are taken to be good
}

func newScan(f io.ReaderAt, size int64, seed message.Seed) *scan {
	var b [8]byte
	le.PutUint64(b[:], uint64(seed))
	return &scan{source: source{f: f, size: size}, seed: seed, seedCRC: crc(b[:])}
}

// headerHolds is message.VerifyHeader without making an error: a search meets
// many that do not hold.
func (s *scan) headerHolds(b []byte) bool {
	sum := crc32.Update(s.seedCRC, castagnoli, b[:32])
	return crc32.Update(sum, castagnoli, b[36:message.EnvelopeBytes]) == le.Uint32(b[32:])
}

// Kinds of a found.
type foundKind uint8

const (
	foundBatch foundKind = iota
	foundBad             // [pos, end) is no valid batch; something of this segment follows at end
	foundEnd             // nothing valid from pos on
)

// found is what stands at a position.
type found struct {
	kind foundKind
	badRange
	env message.Envelope // of a batch
}

// badRange is a range of bytes that is no valid batch, the messages lost with
// it, and what is wrong. Each costs at least one valid batch behind it, so a
// list of them is bounded by the size of the file.
type badRange struct {
	pos, end   int64
	from, next message.Offset
	class      Class
	detail     string
}

func bad(r badRange) found { return found{kind: foundBad, badRange: r} }

// next says what stands at pos, where the batch with offset expect should. A
// bad range reaches to the next header that holds, or to the end of its own
// batch if its header holds; then it may be that nothing follows.
func (s *scan) next(pos int64, expect message.Offset) (found, error) {
	env, ok, err := s.header(pos)
	if err != nil {
		return found{}, err
	}
	switch {
	case !ok || env.BaseOffset < expect:
		return s.resync(pos, expect)
	case env.BaseOffset > expect:
		return bad(badRange{pos: pos, end: pos, from: expect, next: env.BaseOffset, class: BatchMissing}), nil
	}
	whole := int64(env.Bytes())
	if whole > s.size-pos {
		return bad(badRange{pos: pos, end: s.size, from: expect, next: env.EndOffset(), class: BatchCut}), nil
	}
	f := found{kind: foundBatch, badRange: badRange{pos: pos, end: pos + whole}, env: env}
	if s.heads {
		return f, nil
	}
	b, err := s.bytes(pos, int(whole))
	if err != nil {
		return found{}, err
	}
	if err := message.VerifyBody(b); err != nil {
		return bad(badRange{pos: pos, end: pos + whole, from: expect, next: env.EndOffset(), class: BatchBody, detail: err.Error()}), nil
	}
	return f, nil
}

// header reads the envelope at pos; ok if its checksum holds. A header that
// holds but is of a later version is an error: nothing here may be judged by
// this program.
func (s *scan) header(pos int64) (env message.Envelope, ok bool, err error) {
	if s.size-pos < message.EnvelopeBytes {
		return env, false, nil
	}
	b, err := s.bytes(pos, message.EnvelopeBytes)
	if err != nil || !s.headerHolds(b) {
		return env, false, err
	}
	env, err = message.ParseEnvelope(b, &wideLimits)
	if c := fault.CodeOf(err); c == fault.NewerFormat || c == fault.NotSupported {
		return env, false, err
	}
	return env, err == nil, nil
}

var batchMagic = []byte("PTB1")

// resync searches the next batch at or above expect behind the bad one at pos.
func (s *scan) resync(pos int64, expect message.Offset) (found, error) {
	for q := pos; ; q++ {
		var err error
		if q, err = s.findMagic(q); err != nil {
			return found{}, err
		}
		if q < 0 {
			return found{kind: foundEnd, badRange: badRange{pos: pos, end: s.size, from: expect, next: expect}}, nil
		}
		env, ok, err := s.header(q)
		if err != nil {
			return found{}, err
		}
		if ok && env.BaseOffset >= expect {
			return bad(badRange{pos: pos, end: q, from: expect, next: env.BaseOffset, class: BatchHeader}), nil
		}
	}
}

// findMagic returns the position of the next magic at or after pos, -1 if there
// is none that a whole envelope follows.
func (s *scan) findMagic(pos int64) (int64, error) {
	for s.size-pos >= message.EnvelopeBytes {
		n := int(min(s.size-pos, scanWindow))
		if in := s.at + int64(s.n) - pos; pos >= s.at && in >= message.EnvelopeBytes {
			n = int(in) // first what is in the window already
		}
		b, err := s.bytes(pos, n)
		if err != nil {
			return 0, err
		}
		if i := bytes.Index(b, batchMagic); i >= 0 {
			if pos += int64(i); s.size-pos < message.EnvelopeBytes {
				break
			}
			return pos, nil
		}
		pos += int64(n - len(batchMagic) + 1)
	}
	return -1, nil
}

// lastNonZero returns the end of the bytes in [pos, size) that are not zero;
// pos if all are.
func (s *source) lastNonZero(pos int64) (int64, error) {
	end := pos
	for pos < s.size {
		n := int(min(s.size-pos, scanWindow))
		b, err := s.bytes(pos, n)
		if err != nil {
			return 0, err
		}
		if !zeroBytes(b) {
			for b[n-1] == 0 {
				n--
			}
			end = pos + int64(n)
			n = len(b)
		}
		pos += int64(n)
	}
	return end, nil
}

// contents is what a scan found in a segment, up to some position.
type contents struct {
	index
	end         message.Offset // after the last batch
	pos         int64          // behind the last batch
	batches     uint32
	maxTime     int64
	firstAppend int64
	lastAppend  int64
	chain       uint32
	maxEpoch    uint64
	bad         []badRange // with a valid batch behind them
	tail        *badRange  // bad batch behind the last valid one; nil if there is none
}

func newContents(base message.Offset) contents {
	return contents{end: base, pos: headerBytes, maxTime: noTime}
}

// add takes the next batch into account. head is its envelope's bytes.
func (c *contents) add(head []byte, pos, end int64, base, next message.Offset, appendTime, maxTime int64) {
	c.index.add(entry{off: base, pos: uint32(pos), before: c.batches, maxBefore: c.maxTime})
	if c.batches == 0 {
		c.firstAppend = appendTime
	}
	c.lastAppend = appendTime
	c.maxTime = max(c.maxTime, maxTime)
	c.chain = crc32.Update(c.chain, castagnoli, head[32:40])
	c.batches++
	c.pos, c.end = end, next
}

// readThrough scans a segment from its first batch, which must have the offset
// base. each, if not nil, is called for every valid batch.
func (s *scan) readThrough(base message.Offset, each func(f *found) error) (contents, error) {
	c := newContents(base)
	pos, expect := int64(headerBytes), base
	for {
		f, err := s.next(pos, expect)
		if err != nil {
			return c, err
		}
		switch f.kind {
		case foundEnd:
			if n := len(c.bad); n > 0 && c.bad[n-1].pos >= c.pos {
				// What looked like a beginning of something is the tail.
				c.dropTail()
			}
			return c, nil
		case foundBad:
			c.bad = append(c.bad, f.badRange)
			expect = f.next
		case foundBatch:
			head, err := s.bytes(pos, message.EnvelopeBytes)
			if err != nil {
				return c, err
			}
			c.add(head, f.pos, f.end, f.env.BaseOffset, f.env.EndOffset(), f.env.AppendTime, f.env.MaxTimestamp())
			c.maxEpoch = max(c.maxEpoch, f.env.Epoch)
			if each != nil {
				if err := each(&f); err != nil {
					return c, err
				}
			}
			expect = c.end
		}
		pos = f.end
	}
}

// dropTail merges the bad ranges behind the last valid batch into one.
func (c *contents) dropTail() {
	n := len(c.bad)
	t := c.bad[n-1]
	for n--; n > 0 && c.bad[n-1].pos >= c.pos; n-- {
		t = c.bad[n-1]
	}
	last := c.bad[len(c.bad)-1]
	t.end, t.next = last.end, last.next
	c.bad = c.bad[:n]
	c.tail = &t
}

// gapsOf turns bad ranges into gaps.
func gapsOf(bad []badRange) []gap {
	var gaps []gap
	for _, f := range bad {
		gaps = append(gaps, gap{from: f.from, next: f.next, pos: uint32(f.pos), len: uint32(f.end - f.pos)})
	}
	return gaps
}
