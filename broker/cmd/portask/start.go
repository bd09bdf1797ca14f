package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/message"
)

// startKind says how --from names the first message.
type startKind uint8

const (
	fromEarliest startKind = iota
	fromLatest
	fromOffset
	fromTime
)

// start is a parsed --from.
type start struct {
	kind   startKind
	offset message.Offset // of fromOffset
	time   time.Time      // of fromTime
}

// parseStart reads earliest, latest, offset:N or time:RFC3339.
func parseStart(s string) (start, error) {
	kind, value, _ := strings.Cut(s, ":")
	switch kind {
	case "earliest", "latest":
		if kind != s {
			break
		}
		if kind == "latest" {
			return start{kind: fromLatest}, nil
		}
		return start{kind: fromEarliest}, nil
	case "offset":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return start{}, usagef("--from %q: want offset:N with a number from 0", s)
		}
		return start{kind: fromOffset, offset: message.Offset(n)}, nil
	case "time":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return start{}, usagef("--from %q: want a time like time:2006-01-02T15:04:05Z", s)
		}
		return start{kind: fromTime, time: t}, nil
	}
	return start{}, usagef("--from %q: want earliest, latest, offset:N or time:RFC3339", s)
}
