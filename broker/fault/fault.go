// Package fault is the one vocabulary of failures, shared by every component,
// by the wire protocol and by the command line.
//
// A Code names a kind of failure and is the sentinel to compare with; its row in
// the table says whether a retry can help and what the failure leaves standing.
// An Error adds what happened where: the operation, the field, the value beside
// its limit, and the cause. Codes are immutable and may be used concurrently; an
// Error is built by one goroutine and read-only from the moment it is returned.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Error is a failure with its circumstances. Callers branch on Code (through
// errors.Is) and may read the rest; the zero value of each field means that it
// is not stated. An Error must not be changed after it was returned.
type Error struct {
	Code   Code
	Op     string // what was tried, with identifiers: "produce orders-3"
	Field  string // the field or setting at fault: "batch.body_len"
	Detail string // what is wrong with it; empty: the code's name stands for it

	Value, Limit int64 // meaningful if HasLimit
	HasLimit     bool

	Details []Detail // what else there is to know; see With

	RetryAfter time.Duration // how long the failing side asks to wait, 0 = not stated

	Category Category // overrides the code's category unless CategoryNone
	Flags    Bits     // overrides the flags of the code if HasFlags; read them through Bits
	HasFlags bool

	Err error // the cause

	stack []uintptr // where it was made, if asked for
}

// New returns an Error of code c for the operation op. The With methods fill in
// the rest and return their receiver, to be chained while building:
//
//	return fault.New(fault.TooLarge, "parse frame").WithField("length").WithLimit(n, max)
func New(c Code, op string) *Error {
	e := &Error{Code: c, Op: op}
	if stacks.Load() {
		e.stack = callers()
	}
	return e
}

// WithField names the field or setting at fault.
func (e *Error) WithField(name string) *Error {
	e.Field = name
	return e
}

// WithDetail says what is wrong, in the manner of fmt.Sprintf.
func (e *Error) WithDetail(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

// WithLimit states the value found beside the limit it breaks. Both are in the
// unit of the field, bytes unless its name says otherwise.
func (e *Error) WithLimit(value, limit int64) *Error {
	e.Value, e.Limit, e.HasLimit = value, limit, true
	return e
}

// WithCause wraps err: errors.Is and errors.As look into it after e itself.
func (e *Error) WithCause(err error) *Error {
	e.Err = err
	return e
}

// WithRetryAfter asks the other side to wait for d before it tries again.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

// WithCategory replaces the category of the code where the same kind of failure
// happens in another part of the system.
func (e *Error) WithCategory(c Category) *Error {
	e.Category = c
	return e
}

// WithBits replaces the flags of the code: the same failure may leave less
// standing than usual, and a newer peer's code is known by its flags only.
func (e *Error) WithBits(b Bits) *Error {
	e.Flags, e.HasFlags = b, true
	return e
}

// Error formats e as "op: field: detail (value 5 > limit 3) [key=value]: cause",
// leaving out what is not stated.
func (e *Error) Error() string {
	if e == nil {
		return "<nil>"
	}
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	if e.Detail != "" {
		b.WriteString(e.Detail)
	} else {
		b.WriteString(e.Code.Info().Name)
	}
	if e.HasLimit {
		b.WriteString(" (value ")
		b.WriteString(strconv.FormatInt(e.Value, 10))
		switch {
		case e.Value > e.Limit:
			b.WriteString(" > limit ")
		case e.Value < e.Limit:
			b.WriteString(" < limit ")
		default:
			b.WriteString(" = limit ")
		}
		b.WriteString(strconv.FormatInt(e.Limit, 10))
		b.WriteByte(')')
	}
	for i, d := range e.Details {
		b.WriteByte(' ')
		if i == 0 {
			b.WriteByte('[')
		}
		b.WriteString(d.Key)
		b.WriteByte('=')
		b.WriteString(d.text())
	}
	if len(e.Details) > 0 {
		b.WriteByte(']')
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Err
}

// Is reports whether target is e's Code, or an *Error with the same Code.
func (e *Error) Is(target error) bool {
	if e == nil {
		return false
	}
	switch t := target.(type) {
	case Code:
		return e.Code == t
	case *Error:
		return t != nil && e.Code == t.Code
	}
	return false
}

// Info returns the row of e's code with the category and the flags that e
// overrides.
func (e *Error) Info() Info {
	i := e.Code.Info()
	if e.Category != CategoryNone {
		i.Category = e.Category
	}
	if e.HasFlags {
		i = i.with(e.Flags)
	}
	return i
}

// Bits returns the flags that hold for e: its own if it has any, else its code's.
func (e *Error) Bits() Bits { return e.Info().Bits() }

// Find returns the outermost *Error or Code in err's tree (wrapped and joined
// errors are searched depth first, in order), a Code as an Error of its own. It
// returns nil if there is neither.
func Find(err error) *Error {
	c, e := find(err)
	if e == nil && c != None {
		return &Error{Code: c}
	}
	return e
}

// find is errors.As for both types at once, without its reflection: it
// allocates nothing, so CodeOf and Retryable may stand on hot paths.
func find(err error) (Code, *Error) {
	for err != nil {
		switch x := err.(type) {
		case Code:
			return x, nil
		case *Error:
			if x != nil {
				return x.Code, x
			}
			return None, nil
		case *Collection:
			return x.worst()
		case interface{ Unwrap() error }:
			err = x.Unwrap()
		case interface{ Unwrap() []error }:
			for _, each := range x.Unwrap() {
				if c, e := find(each); c != None {
					return c, e
				}
			}
			return None, nil
		default:
			return None, nil
		}
	}
	return None, nil
}

// CodeOf returns the code of the outermost *Error or Code in err's tree; of
// joined errors the first that has one. Errors of other origin give Timeout for
// context.DeadlineExceeded, Canceled for context.Canceled, else Internal; nil
// gives None.
func CodeOf(err error) Code {
	if err == nil {
		return None
	}
	if c, _ := find(err); c != None {
		return c
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// InfoOf returns the row of CodeOf(err), with what the *Error found overrides.
func InfoOf(err error) Info {
	if c, e := find(err); e != nil {
		return e.Info()
	} else if c != None {
		return c.Info()
	}
	return CodeOf(err).Info()
}

// Retryable reports whether the same request may succeed when it is sent again
// later. It is false for nil.
func Retryable(err error) bool { return InfoOf(err).Retryable }

// RetryAfter returns how long the failing side asked to wait, 0 if it did not.
func RetryAfter(err error) time.Duration {
	if _, e := find(err); e != nil {
		return e.RetryAfter
	}
	return 0
}
