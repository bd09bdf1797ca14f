package client

import (
	"context"
	"fmt"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// GapError reports offsets that the broker skipped: what was stored there is
// quarantined after damage, or was removed by retention while the consumer was
// away. The consumer goes on at Next. It wraps fault.Corrupted.
type GapError struct {
	Topic     string
	Partition uint32
	From      message.Offset // the next offset the consumer expected
	Next      message.Offset // the first offset that came
}

// Error implements error.
func (e *GapError) Error() string {
	return fmt.Sprintf("consume %s-%d: offsets [%d, %d) are missing", e.Topic, e.Partition, e.From, e.Next)
}

// Unwrap returns fault.Corrupted.
func (e *GapError) Unwrap() error { return fault.Corrupted }

// ctxErr returns the typed error of a wait that ended because ctx did: a
// fault.Timeout or fault.Canceled that wraps the context's cause.
func ctxErr(ctx context.Context, op, detail string) error {
	cause := context.Cause(ctx)
	e := fault.New(fault.CodeOf(ctx.Err()), op).WithCause(cause)
	e.Detail = detail
	return e
}

func closedErr(op string) error { return fault.New(fault.Closed, op) }

func lostErr(addr string, cause error) error {
	if c := fault.CodeOf(cause); c == fault.ConnectionLost || c == fault.Closed {
		return cause
	}
	return fault.New(fault.ConnectionLost, "connection to "+addr).WithCause(cause)
}

// placeError says at which offset of a partition err was met.
type placeError struct {
	op     string
	offset message.Offset
	err    error
}

func (e *placeError) Error() string { return fmt.Sprintf("%s: offset %d: %v", e.op, e.offset, e.err) }
func (e *placeError) Unwrap() error { return e.err }
