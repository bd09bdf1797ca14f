//go:build !linux

package client

import "time"

// threadClock measures elapsed time: the policy clips what pauses add to it.
type threadClock time.Time

func beginThread() threadClock { return threadClock(time.Now()) }

// end returns the nanoseconds since beginThread.
func (b threadClock) end() int64 { return max(int64(time.Since(time.Time(b))), 1) }
