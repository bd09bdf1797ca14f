package main

import "errors"

// statusError carries an exit status with a failure.
type statusError struct {
	status int
	error
}

func (e *statusError) Unwrap() error { return e.error }

func exitStatus(err error) int {
	if err == nil {
		return 0
	}
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status
	}
	return 1
}
