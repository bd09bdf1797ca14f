package message

import (
	"errors"
	"fmt"

	"github.com/portask/portask/broker/fault"
)

var (
	// ErrBatchFull: the message fits no more into the Builder's batch. Finish
	// the batch, Reset, and append the message again: a message that fits into
	// no batch at all gets a fault.TooLarge instead.
	ErrBatchFull = errors.New("message: batch is full")

	// ErrMixed: the message's priority, encoding, due time or expiry differs
	// from the batch's. The remedy is ErrBatchFull's; a producer that alternates should
	// keep a Builder for each combination.
	ErrMixed = errors.New("message: batch would be mixed")

	errMixedPriority = fmt.Errorf("%w: priority differs", ErrMixed)
	errMixedEncoding = fmt.Errorf("%w: encoding differs", ErrMixed)
	errMixedDue      = fmt.Errorf("%w: due time differs", ErrMixed)
	errMixedExpiry   = fmt.Errorf("%w: expiry differs", ErrMixed)
)

// Made once, since a recovery that searches for a batch may meet it at every
// position. Never changed.
var errMagic = fault.New(fault.Corrupted, opEnvelope).WithField("magic").
	WithDetail("not a batch")

const (
	opEnvelope = "parse envelope"
	opSection  = "parse section"
	opRead     = "read batch"
	opVerify   = "verify batch"
	opAppend   = "append message"
	opFinish   = "finish batch"
)

func tooLarge(op, field string, value, limit int64) *fault.Error {
	return fault.New(fault.TooLarge, op).WithField(field).WithLimit(value, limit)
}

func invalid(op, field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, op).WithField(field).WithDetail(format, args...)
}

func corrupted(op, field, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupted, op).WithField(field).WithDetail(format, args...)
}

func notSupported(op, field, format string, args ...any) *fault.Error {
	return fault.New(fault.NotSupported, op).WithField(field).WithDetail(format, args...)
}

// placeError is the cause of a Reader's errors: where in the body it is.
type placeError struct {
	message  uint32 // from 0
	position int    // of the message's first byte in the decompressed body
}

func (e *placeError) Error() string {
	return fmt.Sprintf("message %d at position %d of the body", e.message, e.position)
}
