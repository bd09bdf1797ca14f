//go:build !linux

package pace

import (
	"errors"
	"time"
)

func precise() (sleep func(int64), restore func(), exact bool, priority string) {
	return func(ns int64) { time.Sleep(time.Duration(ns)) }, func() {}, false, Ordinary
}

// RaiseProcess is for Linux.
func RaiseProcess() (lower func(), err error) {
	return nil, errors.New("real-time priority is set on Linux only")
}
