package id

import "time"

// Clock reads the time of day in half of what time.Now takes, by asking for the
// time passed since it last did. The zero value is ready. It belongs to one
// goroutine at a time.
//
// Between two looks at the time of day it goes on evenly, whatever is done to
// that: a step shows after clockTrust at the latest.
type Clock struct {
	at time.Time // of the last look
	us int64     // the same, since the Unix epoch
}

// clockTrust is how long the time passed is trusted. The kernel corrects the
// time of day by at most 0.5 ms a second unless it is set anew.
const clockTrust = time.Second

// Micros is the time in µs since the Unix epoch.
func (c *Clock) Micros() int64 {
	passed := time.Since(c.at)
	if uint64(passed) >= uint64(clockTrust) { // or it was never asked
		c.at = time.Now()
		c.us = c.at.UnixMicro()
		return c.us
	}
	return c.us + int64(passed)/1000
}
