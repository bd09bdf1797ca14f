package command

import "errors"

// StatusError carries an exit status with a failure.
type StatusError struct {
	Status int
	Err    error
}

func (e *StatusError) Error() string { return e.Err.Error() }

func (e *StatusError) Unwrap() error { return e.Err }

// ExitStatus is what the program ends with after err: 0 for nil, 1 for an
// ordinary error.
func ExitStatus(err error) int {
	if err == nil {
		return 0
	}
	if s, ok := errors.AsType[*StatusError](err); ok {
		return s.Status
	}
	return 1
}
