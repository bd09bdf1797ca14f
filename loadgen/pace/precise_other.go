//go:build !linux

package pace

import "time"

func precise() (sleep func(int64), restore func(), exact bool) {
	return func(ns int64) { time.Sleep(time.Duration(ns)) }, func() {}, false
}
