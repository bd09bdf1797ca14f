package wire

import "github.com/portask/portask/broker/message"

// CreditReason says why credit is what it is: always stated when none is given.
type CreditReason uint8

const (
	CreditNormal       CreditReason = iota // as asked for, or as spent
	CreditMemory                           // the broker's memory bound
	CreditDiskLow                          // the disk is low on space
	CreditEngineSlow                       // the storage engine is behind
	CreditQuota                            // the client's own quota
	CreditShuttingDown                     // the broker is stopping
)

// String returns the reason's name.
func (r CreditReason) String() string {
	switch r {
	case CreditNormal:
		return "normal"
	case CreditMemory:
		return "memory"
	case CreditDiskLow:
		return "disk low"
	case CreditEngineSlow:
		return "engine slow"
	case CreditQuota:
		return "quota"
	case CreditShuttingDown:
		return "shutting down"
	}
	return "unknown"
}

// OpenProducer opens a producer on a topic. The handle is in the header of the
// answer.
//
//	┌─────────┬────────┬───────────────┬─────────────┬───────────┬───────────────┬─────────┐
//	│ topic   │ ack u8 │ idempotent u8 │ producer id │ epoch u16 │ credit wanted │ options │
//	│ str 249 │ 0-2    │ 0-1           │ u64         │           │ u32           │         │
//	└─────────┴────────┴───────────────┴─────────────┴───────────┴───────────────┴─────────┘
//
//	option 2: what it takes advice on, u16: 1 compression and dictionary · 2 encoding ·
//	          4 strategy · 8 load
type OpenProducer struct {
	Topic         string
	Ack           message.AckLevel
	Idempotent    bool
	ProducerID    uint64 // of an idempotent producer that comes back; 0 = assign one
	ProducerEpoch uint16 // the one it had
	CreditWanted  uint32 // bytes; 0 = the broker's default
	Wants         AdviceWants
}

const optOpenWants = 2

// Append implements Payload.
func (x *OpenProducer) Append(dst []byte) []byte {
	dst = appendString(dst, x.Topic)
	dst = append(dst, uint8(x.Ack))
	dst = appendBool(dst, x.Idempotent)
	dst = le.AppendUint64(dst, x.ProducerID)
	dst = le.AppendUint16(dst, x.ProducerEpoch)
	dst = le.AppendUint32(dst, x.CreditWanted)
	if x.Wants == 0 {
		return appendOptions(dst, nil)
	}
	return appendOptions(dst, AppendOption(nil, optOpenWants, le.AppendUint16(nil, uint16(x.Wants))))
}

// Parse implements Payload.
func (x *OpenProducer) Parse(src []byte) error {
	c := cursor{name: "OPEN_PRODUCER", b: src}
	x.Topic = c.topic()
	x.Ack = c.level("ack")
	x.Idempotent = c.bool("idempotent")
	x.ProducerID = c.u64("producer_id")
	x.ProducerEpoch = c.u16("producer_epoch")
	x.CreditWanted = c.u32("credit_wanted")
	x.Wants = 0
	if v, ok := c.options(1 << optOpenWants).Lookup(optOpenWants); ok && c.sized("wants", v, 2) {
		x.Wants = AdviceWants(le.Uint16(v))
	}
	return c.end()
}

// OpenProducerOK answers OpenProducer.
//
//	┌─────────────┬───────────┬────────────┬────────────┬───────────┬───────────┬──────────┬─────────┐
//	│ producer id │ epoch u16 │ partitions │ credit u64 │ reason u8 │ max batch │ topic id │ options │
//	│ u64         │           │ u32        │            │           │ u32       │ 16 B     │         │
//	└─────────────┴───────────┴────────────┴────────────┴───────────┴───────────┴──────────┴─────────┘
type OpenProducerOK struct {
	ProducerID    uint64 // 0 = the producer is not idempotent
	ProducerEpoch uint16
	Partitions    uint32
	Credit        uint64 // bytes granted; 0 with a reason: more comes by CREDIT
	CreditReason  CreditReason
	MaxBatch      uint32 // bytes of the largest batch the topic takes
	TopicID       [16]byte
	Advice        Advice // on what the producer wants advice; the options
}

// Append implements Payload.
func (x *OpenProducerOK) Append(dst []byte) []byte {
	dst = le.AppendUint64(dst, x.ProducerID)
	dst = le.AppendUint16(dst, x.ProducerEpoch)
	dst = le.AppendUint32(dst, x.Partitions)
	dst = le.AppendUint64(dst, x.Credit)
	dst = append(dst, uint8(x.CreditReason))
	dst = le.AppendUint32(dst, x.MaxBatch)
	dst = append(dst, x.TopicID[:]...)
	return x.Advice.appendSection(dst)
}

// Parse implements Payload.
func (x *OpenProducerOK) Parse(src []byte) error {
	c := cursor{name: "OPEN_PRODUCER_OK", b: src}
	x.ProducerID = c.u64("producer_id")
	x.ProducerEpoch = c.u16("producer_epoch")
	x.Partitions = c.u32("partitions")
	x.Credit = c.credit("credit")
	x.CreditReason = CreditReason(c.u8("credit_reason"))
	x.MaxBatch = c.u32("max_batch")
	x.TopicID = c.id("topic_id")
	x.Advice.parse(&c, c.options(adviceKnown))
	return c.end()
}

// Produce carries one batch on a producer's handle.
//
//	0           4         6+n
//	┌───────────┬─────────┬─────────────────────────────┐
//	│ partition │ options │ one batch, to the end       │
//	│ u32       │         │ (message/FORMAT.md, seed 0) │
//	└───────────┴─────────┴─────────────────────────────┘
//
// Sessions use ParseProduce and AppendProduceFrame instead, which copy nothing.
type Produce struct {
	Partition uint32
	Batch     []byte // a view of the frame after Parse
}

// ProduceHeadBytes is what AppendProduceHead appends.
const ProduceHeadBytes = 4 + optionsEmptyBytes

// AppendProduceHead appends what precedes the batch in the payload, for a
// vectored write of head and batch.
func AppendProduceHead(dst []byte, partition uint32) []byte {
	dst = le.AppendUint32(dst, partition)
	return appendOptions(dst, nil)
}

// AppendProduceFrame appends frame header and payload of a PRODUCE whose batch
// of batchBytes bytes is to follow: HeaderBytes + ProduceHeadBytes bytes.
// h.Opcode and h.Length are set here.
func AppendProduceFrame(dst []byte, h Header, partition uint32, batchBytes int) []byte {
	h.Opcode = OpProduce
	h.Length = uint32(HeaderBytes - lengthBytes + ProduceHeadBytes + batchBytes)
	return AppendProduceHead(AppendHeader(dst, h), partition)
}

// ParseProduce reads the payload of a PRODUCE. opts and batch are views of src.
// Of the batch only that it is at least an envelope is known; that it is one
// whole batch is for message.ParseEnvelope to find out.
func ParseProduce(src []byte) (partition uint32, opts Options, batch []byte, err error) {
	c := cursor{name: "PRODUCE", b: src}
	partition = c.u32("partition")
	opts = c.options(0)
	if c.err == nil && len(c.b) < message.EnvelopeBytes {
		c.fail(violation(c.name, "batch", "shorter than an envelope").WithLimit(int64(len(c.b)), message.EnvelopeBytes))
	}
	return partition, opts, c.b, c.err
}

// Append implements Payload.
func (x *Produce) Append(dst []byte) []byte {
	return append(AppendProduceHead(dst, x.Partition), x.Batch...)
}

// Parse implements Payload.
func (x *Produce) Parse(src []byte) (err error) {
	x.Partition, _, x.Batch, err = ParseProduce(src)
	return err
}

// ProduceDuplicate in ProduceOK.Flags: the batch was stored before, by a produce
// whose answer was lost; offset and time are those of then.
const ProduceDuplicate uint8 = 1

// ProduceOKBytes is the size of a PRODUCE_OK payload.
const ProduceOKBytes = 28

// ProduceOK answers Produce at the ack levels accepted and durable. It has no
// options, being as frequent as batches.
//
//	0           4       5          6    8             16               24       28
//	┌───────────┬───────┬──────────┬────┬─────────────┬────────────────┬────────┐
//	│ partition │ flags │ pressure │ 0  │ base offset │ append time µs │ credit │
//	│ u32       │ u8    │ u8       │u16 │ u64         │ i64            │ u32    │
//	└───────────┴───────┴──────────┴────┴─────────────┴────────────────┴────────┘
type ProduceOK struct {
	Partition  uint32
	Flags      uint8 // ProduceDuplicate
	Pressure   uint8 // a CreditReason: why less credit comes back than was spent, or CreditNormal
	BaseOffset message.Offset
	AppendTime int64  // µs since 1970, the broker's clock
	Credit     uint32 // bytes returned
}

// Append implements Payload.
func (x *ProduceOK) Append(dst []byte) []byte {
	dst = le.AppendUint32(dst, x.Partition)
	dst = append(dst, x.Flags, x.Pressure, 0, 0)
	dst = appendOffset(dst, x.BaseOffset)
	dst = le.AppendUint64(dst, uint64(x.AppendTime))
	return le.AppendUint32(dst, x.Credit)
}

// Parse implements Payload.
func (x *ProduceOK) Parse(src []byte) error {
	c := cursor{name: "PRODUCE_OK", b: src}
	b := c.take("payload", ProduceOKBytes)
	if b == nil {
		return c.err
	}
	x.Partition = le.Uint32(b)
	x.Flags = b[4]
	x.Pressure = b[5]
	x.BaseOffset = message.Offset(le.Uint64(b[8:]))
	x.AppendTime = int64(le.Uint64(b[16:]))
	x.Credit = le.Uint32(b[24:])
	switch {
	case x.Flags&^ProduceDuplicate != 0:
		c.fail(violation(c.name, "flags", "reserved bits %#x are set", x.Flags&^ProduceDuplicate))
	case b[6] != 0 || b[7] != 0:
		c.fail(violation(c.name, "reserved", "not zero"))
	case x.BaseOffset < 0:
		c.fail(violation(c.name, "base_offset", "a negative offset").WithLimit(int64(x.BaseOffset), 0))
	}
	return c.end()
}

// CloseProducer closes the handle in the header. Produces in flight are stored
// but no longer answered. Its payload is empty, and so is that of its answer.
type CloseProducer struct{}

// Append implements Payload.
func (*CloseProducer) Append(dst []byte) []byte { return appendOptions(dst, nil) }

// Parse implements Payload.
func (*CloseProducer) Parse(src []byte) error { return parseEmpty("CLOSE_PRODUCER", src) }
