package wire

import "github.com/portask/portask/broker/message"

// StartKind says where a consumer begins.
type StartKind uint8

const (
	StartEarliest StartKind = iota // at the log start
	StartLatest                    // at the high-water mark
	StartOffset                    // at the offset in StartValue
	StartTime                      // at the first batch with a message not older than StartValue, µs since 1970
	numStartKinds
)

// String returns the kind's name.
func (k StartKind) String() string {
	if k < numStartKinds {
		return [...]string{"earliest", "latest", "offset", "time"}[k]
	}
	return "unknown"
}

// start reads kind and value of a start.
func (c *cursor) start() (k StartKind, value int64) {
	k = StartKind(c.u8("start"))
	value = c.i64("start_value")
	switch {
	case c.err != nil:
	case k >= numStartKinds:
		c.fail(c.invalid("start", "not a kind of start").WithLimit(int64(k), int64(numStartKinds-1)))
	case k == StartOffset && value < 0:
		c.fail(c.invalid("start_value", "a negative offset").WithLimit(value, 0))
	}
	return k, value
}

// Subscribe asks for the batches of one partition to be pushed as long as there
// is credit. The handle is in the header of the answer.
//
//	┌─────────┬───────────┬──────────┬─────────────┬────────────┬───────────────────┬─────────┐
//	│ topic   │ partition │ start u8 │ start value │ credit u64 │ max deliver bytes │ options │
//	│ str 249 │ u32       │ 0-3      │ i64         │            │ u32               │         │
//	└─────────┴───────────┴──────────┴─────────────┴────────────┴───────────────────┴─────────┘
type Subscribe struct {
	Topic           string
	Partition       uint32
	Start           StartKind
	StartValue      int64
	Credit          uint64 // bytes; 0 = deliver nothing before a CREDIT
	MaxDeliverBytes uint32 // of batches in one DELIVER unless one batch is larger; 0 = the broker's choice
}

// Append implements Payload.
func (x *Subscribe) Append(dst []byte) []byte {
	dst = appendString(dst, x.Topic)
	dst = le.AppendUint32(dst, x.Partition)
	dst = append(dst, uint8(x.Start))
	dst = le.AppendUint64(dst, uint64(x.StartValue))
	dst = le.AppendUint64(dst, x.Credit)
	dst = le.AppendUint32(dst, x.MaxDeliverBytes)
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *Subscribe) Parse(src []byte) error {
	c := cursor{name: "SUBSCRIBE", b: src}
	x.Topic = c.topic()
	x.Partition = c.u32("partition")
	x.Start, x.StartValue = c.start()
	x.Credit = c.credit("credit")
	x.MaxDeliverBytes = c.u32("max_deliver_bytes")
	return c.finish()
}

// SubscribeOK answers Subscribe.
//
//	┌───────────┬───────────────┬─────────┬─────────────┬─────────┐
//	│ start u64 │ log start u64 │ hwm u64 │ log end u64 │ options │
//	└───────────┴───────────────┴─────────┴─────────────┴─────────┘
type SubscribeOK struct {
	Start    message.Offset // of the first message to be delivered
	LogStart message.Offset
	HWM      message.Offset // exclusive
	LogEnd   message.Offset // exclusive
}

// Append implements Payload.
func (x *SubscribeOK) Append(dst []byte) []byte {
	dst = appendOffset(dst, x.Start)
	dst = appendOffset(dst, x.LogStart)
	dst = appendOffset(dst, x.HWM)
	dst = appendOffset(dst, x.LogEnd)
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *SubscribeOK) Parse(src []byte) error {
	c := cursor{name: "SUBSCRIBE_OK", b: src}
	x.Start = c.offset("start")
	x.LogStart = c.offset("log_start")
	x.HWM = c.offset("hwm")
	x.LogEnd = c.offset("log_end")
	return c.finish()
}

// CreditPayloadBytes is the size of a CREDIT payload.
const CreditPayloadBytes = 9

// Credit adds to what the other side may send on the handle in the header:
// deliveries if a client sends it, produces if the broker does. It has no
// options and no answer.
//
//	0           8           9
//	┌───────────┬───────────┐
//	│ bytes u64 │ reason u8 │
//	└───────────┴───────────┘
type Credit struct {
	Bytes  uint64 // added; 0 only states a reason
	Reason CreditReason
}

// Append implements Payload.
func (x *Credit) Append(dst []byte) []byte {
	dst = le.AppendUint64(dst, x.Bytes)
	return append(dst, uint8(x.Reason))
}

// Parse implements Payload.
func (x *Credit) Parse(src []byte) error {
	c := cursor{name: "CREDIT", b: src}
	x.Bytes = c.credit("bytes")
	x.Reason = CreditReason(c.u8("reason"))
	return c.end()
}

// Fetch asks once for batches from an offset on. The answer has the layout of
// Deliver.
//
//	┌─────────┬───────────┬────────────┬───────────┬───────────┬─────────────┬─────────┐
//	│ topic   │ partition │ offset u64 │ max bytes │ min bytes │ max wait ms │ options │
//	│ str 249 │ u32       │            │ u32       │ u32       │ u32         │         │
//	└─────────┴───────────┴────────────┴───────────┴───────────┴─────────────┴─────────┘
type Fetch struct {
	Topic     string
	Partition uint32
	Offset    message.Offset
	MaxBytes  uint32 // of batches unless the first is larger; 0 = the broker's choice
	MinBytes  uint32 // 0 = answer at once; else wait for batches. The broker may answer with fewer bytes.
	MaxWaitMs uint32 // how long to wait at most; the broker may wait less
}

// Append implements Payload.
func (x *Fetch) Append(dst []byte) []byte {
	dst = appendString(dst, x.Topic)
	dst = le.AppendUint32(dst, x.Partition)
	dst = appendOffset(dst, x.Offset)
	dst = le.AppendUint32(dst, x.MaxBytes)
	dst = le.AppendUint32(dst, x.MinBytes)
	dst = le.AppendUint32(dst, x.MaxWaitMs)
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *Fetch) Parse(src []byte) error {
	c := cursor{name: "FETCH", b: src}
	x.Topic = c.topic()
	x.Partition = c.u32("partition")
	x.Offset = message.Offset(c.i64("offset"))
	if c.err == nil && x.Offset < 0 {
		c.fail(c.invalid("offset", "a negative offset").WithLimit(int64(x.Offset), 0))
	}
	x.MaxBytes = c.u32("max_bytes")
	x.MinBytes = c.u32("min_bytes")
	x.MaxWaitMs = c.u32("max_wait_ms")
	return c.finish()
}

// Unsubscribe closes the subscription in the header. Its payload is empty, and so
// is that of its answer, after which no DELIVER comes on the handle.
type Unsubscribe struct{}

// Append implements Payload.
func (*Unsubscribe) Append(dst []byte) []byte { return appendOptions(dst, nil) }

// Parse implements Payload.
func (*Unsubscribe) Parse(src []byte) error { return parseEmpty("UNSUBSCRIBE", src) }

// ListOffsets asks which offset a start means now.
//
//	┌─────────┬───────────┬──────────┬─────────────┬─────────┐
//	│ topic   │ partition │ start u8 │ start value │ options │
//	│ str 249 │ u32       │ 0-3      │ i64         │         │
//	└─────────┴───────────┴──────────┴─────────────┴─────────┘
type ListOffsets struct {
	Topic      string
	Partition  uint32
	Start      StartKind
	StartValue int64
}

// Append implements Payload.
func (x *ListOffsets) Append(dst []byte) []byte {
	dst = appendString(dst, x.Topic)
	dst = le.AppendUint32(dst, x.Partition)
	dst = append(dst, uint8(x.Start))
	dst = le.AppendUint64(dst, uint64(x.StartValue))
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *ListOffsets) Parse(src []byte) error {
	c := cursor{name: "LIST_OFFSETS", b: src}
	x.Topic = c.topic()
	x.Partition = c.u32("partition")
	x.Start, x.StartValue = c.start()
	return c.finish()
}

// ListOffsetsOK answers ListOffsets.
//
//	┌────────────┬───────────────┬─────────┬─────────────┬──────────────┬─────────┐
//	│ offset u64 │ log start u64 │ hwm u64 │ log end u64 │ timestamp µs │ options │
//	│            │               │         │             │ i64          │         │
//	└────────────┴───────────────┴─────────┴─────────────┴──────────────┴─────────┘
type ListOffsetsOK struct {
	Offset      message.Offset
	LogStart    message.Offset
	HWM         message.Offset // exclusive
	LogEnd      message.Offset // exclusive
	TimestampUs int64          // of the batch at Offset, 0 = there is none yet
}

// Append implements Payload.
func (x *ListOffsetsOK) Append(dst []byte) []byte {
	dst = appendOffset(dst, x.Offset)
	dst = appendOffset(dst, x.LogStart)
	dst = appendOffset(dst, x.HWM)
	dst = appendOffset(dst, x.LogEnd)
	dst = le.AppendUint64(dst, uint64(x.TimestampUs))
	return appendOptions(dst, nil)
}

// Parse implements Payload.
func (x *ListOffsetsOK) Parse(src []byte) error {
	c := cursor{name: "LIST_OFFSETS_OK", b: src}
	x.Offset = c.offset("offset")
	x.LogStart = c.offset("log_start")
	x.HWM = c.offset("hwm")
	x.LogEnd = c.offset("log_end")
	x.TimestampUs = c.i64("timestamp_us")
	return c.finish()
}
