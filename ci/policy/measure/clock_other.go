//go:build !linux

package measure

import "time"

var begin = time.Now()

// threadTime is elapsed time where threads have no clock: rows are the least of
// more counts then.
func threadTime() time.Duration { return time.Since(begin) }
