package wire

import (
	"strconv"

	"github.com/portask/portask/broker/message"
)

// Range is a half-open range of offsets.
type Range struct {
	First, End message.Offset
}

// Run describes consecutive whole batches that share a seed.
type Run struct {
	Seed       message.Seed // of their header checksums; 0 for engines without segments
	First, End message.Offset
	Bytes      uint32
	Batches    uint32
}

const (
	rangeBytes       = 16
	runBytes         = 32
	deliverHeadBytes = 4 + 8*3 // fixed part before the options
	optDeliverRanges = 2
)

// DeliverHead is what precedes the batches in a DELIVER and in the answer to a
// FETCH. Batches follow as stored, back to back, in the order of the runs.
//
//	0           4         12          20       28
//	┌───────────┬─────────┬───────────┬────────┬─────────┬───────┬──────────┬─────────┐
//	│ partition │ hwm u64 │ log start │ wanted │ options │ u16 n │ n × run  │ batches │
//	│ u32       │         │ u64       │ u64    │         │       │ n ≤ 1024 │         │
//	└───────────┴─────────┴───────────┴────────┴─────────┴───────┴──────────┴─────────┘
//
//	run                                                        option 2
//	┌──────────┬───────────┬─────────┬───────────┬─────────┐   ┌────────────────────────────┐
//	│ seed u64 │ first u64 │ end u64 │ bytes u32 │ batches │   │ n × (first i64, end i64)   │
//	│          │           │         │           │ u32     │   │ n ≤ 4095: deliver only     │
//	└──────────┴───────────┴─────────┴───────────┴─────────┘   └────────────────────────────┘
//
// Runs and ranges ascend and do not overlap. The bytes of the runs sum up to the
// batches present.
type DeliverHead struct {
	Partition uint32
	HWM       message.Offset // exclusive
	LogStart  message.Offset
	Wanted    message.Offset // messages below it, in the first batch, are to be dropped by the consumer
	Ranges    []Range        // if not empty, only messages within are to be delivered
	Runs      []Run
}

// BatchBytes returns the sum of the runs' bytes.
func (x *DeliverHead) BatchBytes() int {
	n := 0
	for i := range x.Runs {
		n += int(x.Runs[i].Bytes)
	}
	return n
}

// HeadBytes returns how many bytes AppendDeliverHead appends for x.
func (x *DeliverHead) HeadBytes() int {
	n := deliverHeadBytes + optionsEmptyBytes + 2 + runBytes*len(x.Runs)
	if len(x.Ranges) > 0 {
		n += optionHeadBytes + rangeBytes*len(x.Ranges)
	}
	return n
}

// AppendDeliverHead appends x. It panics if there are more than MaxRuns runs or
// MaxRanges ranges: leaving some out would lose messages, so the broker has to
// divide the delivery before.
func AppendDeliverHead(dst []byte, x *DeliverHead) []byte {
	if len(x.Runs) > MaxRuns || len(x.Ranges) > MaxRanges {
		panic("wire: a delivery of " + strconv.Itoa(len(x.Runs)) + " runs and " + strconv.Itoa(len(x.Ranges)) + " ranges does not fit")
	}
	dst = le.AppendUint32(dst, x.Partition)
	dst = appendOffset(dst, x.HWM)
	dst = appendOffset(dst, x.LogStart)
	dst = appendOffset(dst, x.Wanted)
	if n := rangeBytes * len(x.Ranges); n == 0 {
		dst = appendOptions(dst, nil)
	} else {
		dst = le.AppendUint16(dst, uint16(optionHeadBytes+n))
		dst = le.AppendUint16(dst, optDeliverRanges)
		dst = le.AppendUint16(dst, uint16(n))
		for i := range x.Ranges {
			dst = appendOffset(dst, x.Ranges[i].First)
			dst = appendOffset(dst, x.Ranges[i].End)
		}
	}
	dst = le.AppendUint16(dst, uint16(len(x.Runs)))
	for i := range x.Runs {
		r := &x.Runs[i]
		dst = le.AppendUint64(dst, uint64(r.Seed))
		dst = appendOffset(dst, r.First)
		dst = appendOffset(dst, r.End)
		dst = le.AppendUint32(dst, r.Bytes)
		dst = le.AppendUint32(dst, r.Batches)
	}
	return dst
}

// AppendDeliverFrame appends frame header and head of a DELIVER, or of the
// answer to a FETCH if h.Opcode says so, whose x.BatchBytes() bytes of batches
// are to follow. h.Length is set here.
func AppendDeliverFrame(dst []byte, h Header, x *DeliverHead) []byte {
	h.Length = uint32(HeaderBytes - lengthBytes + x.HeadBytes() + x.BatchBytes())
	return AppendDeliverHead(AppendHeader(dst, h), x)
}

// ParseDeliver reads the payload of a DELIVER or of the answer to a FETCH into
// x, reusing its slices, and returns the batches, a view of src. It checks that
// head and sizes agree; the batches themselves are for package message.
func ParseDeliver(src []byte, x *DeliverHead) (batches []byte, err error) {
	c := cursor{name: "DELIVER", b: src}
	x.Partition = c.u32("partition")
	x.HWM = c.offset("hwm")
	x.LogStart = c.offset("log_start")
	x.Wanted = c.offset("wanted")
	x.Ranges = c.ranges(c.options(1<<optDeliverRanges), x.Ranges[:0])
	x.Runs = x.Runs[:0]
	var bytes int64
	last := message.Offset(0)
	for range c.count("runs", uint32(c.u16("runs")), MaxRuns, runBytes) {
		b := c.take("runs", runBytes)
		r := Run{
			Seed:    message.Seed(le.Uint64(b)),
			First:   message.Offset(le.Uint64(b[8:])),
			End:     message.Offset(le.Uint64(b[16:])),
			Bytes:   le.Uint32(b[24:]),
			Batches: le.Uint32(b[28:]),
		}
		// A batch has an envelope and at least one offset.
		switch {
		case r.First < last:
			c.fail(violation(c.name, "runs", "a run begins before the end of the one before").WithLimit(int64(r.First), int64(last)))
		case r.End <= r.First:
			c.fail(violation(c.name, "runs", "[%d, %d) is empty", r.First, r.End))
		case r.Batches == 0:
			c.fail(violation(c.name, "runs", "a run without a batch"))
		case int64(r.Batches) > int64(r.End-r.First):
			c.fail(violation(c.name, "runs", "more batches than offsets").WithLimit(int64(r.Batches), int64(r.End-r.First)))
		case int64(r.Bytes) < int64(r.Batches)*message.EnvelopeBytes:
			c.fail(violation(c.name, "runs", "fewer bytes than the envelopes need").WithLimit(int64(r.Bytes), int64(r.Batches)*message.EnvelopeBytes))
		}
		if c.err != nil {
			return nil, c.err
		}
		last = r.End
		bytes += int64(r.Bytes)
		x.Runs = append(x.Runs, r)
	}
	if c.err == nil && bytes != int64(len(c.b)) {
		c.fail(violation(c.name, "batches", "not as many bytes as the runs announce").WithLimit(int64(len(c.b)), bytes))
	}
	return c.b, c.err
}

// ranges reads the ranges among the options into dst.
func (c *cursor) ranges(o Options, dst []Range) []Range {
	v, ok := o.Lookup(optDeliverRanges)
	if !ok {
		return dst
	}
	if len(v) == 0 || len(v)%rangeBytes != 0 {
		c.fail(violation(c.name, "ranges", "%d bytes are not whole ranges of %d", len(v), rangeBytes))
		return dst
	}
	last := message.Offset(0)
	for ; len(v) > 0; v = v[rangeBytes:] {
		r := Range{First: message.Offset(le.Uint64(v)), End: message.Offset(le.Uint64(v[8:]))}
		switch {
		case r.First < last:
			c.fail(violation(c.name, "ranges", "a range begins before the end of the one before").WithLimit(int64(r.First), int64(last)))
			return dst
		case r.End <= r.First:
			c.fail(violation(c.name, "ranges", "[%d, %d) is empty", r.First, r.End))
			return dst
		}
		last = r.End
		dst = append(dst, r)
	}
	return dst
}

// Deliver is a whole DELIVER as a Payload, for tools and tests. Sessions use
// ParseDeliver and AppendDeliverFrame.
type Deliver struct {
	DeliverHead
	Batches []byte // a view of the frame after Parse
}

// Append implements Payload.
func (x *Deliver) Append(dst []byte) []byte {
	return append(AppendDeliverHead(dst, &x.DeliverHead), x.Batches...)
}

// Parse implements Payload.
func (x *Deliver) Parse(src []byte) (err error) {
	x.Batches, err = ParseDeliver(src, &x.DeliverHead)
	return err
}
