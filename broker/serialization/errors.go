package serialization

import (
	"github.com/portask/portask/broker/fault"
)

// corrupt: the bytes are not of the encoding.
func corrupt(op string, position int, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupted, op).WithDetail(format, args...).With("position", position).
		WithCategory(fault.CategorySerialization)
}

// tooLarge: a limit is passed.
func tooLarge(op, field string, value, limit int) *fault.Error {
	return fault.New(fault.TooLarge, op).WithField(field).WithLimit(int64(value), int64(limit)).
		WithCategory(fault.CategorySerialization)
}

// invalid: the encoding, or the Go value, has no place for it.
func invalid(op, field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, op).WithField(field).WithDetail(format, args...).
		WithCategory(fault.CategorySerialization)
}

// misfit wraps what a library says of well-formed data that does not fit the Go
// value, or of a Go value that the encoding has no form for.
func misfit(op string, err error) *fault.Error {
	return fault.New(fault.Invalid, op).WithDetail("the value does not fit").WithCause(err).
		WithCategory(fault.CategorySerialization)
}

// cutOff: src ends within an item.
func cutOff(op string, n int) *fault.Error { return corrupt(op, n, "the data ends too early") }

// follows: more data after the one item that was expected.
func follows(op string, at, n int) *fault.Error {
	return corrupt(op, at, "%d bytes follow the value", n-at)
}
