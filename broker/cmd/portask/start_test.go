package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseStart(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 500_000, time.UTC)
	tests := []struct {
		s    string
		want start
	}{
		{"earliest", start{kind: fromEarliest}},
		{"latest", start{kind: fromLatest}},
		{"offset:0", start{kind: fromOffset}},
		{"offset:9223372036854775807", start{kind: fromOffset, offset: 1<<63 - 1}},
		{"time:2026-01-02T12:00:00.0005Z", start{kind: fromTime, time: noon}},
	}
	for _, tt := range tests {
		got, err := parseStart(tt.s)
		if err != nil || got.kind != tt.want.kind || got.offset != tt.want.offset || !got.time.Equal(tt.want.time) {
			t.Errorf("%q: %+v, %v; want %+v", tt.s, got, err, tt.want)
		}
	}
	for _, s := range []string{"", "yesterday", "earliest:", "latest:1", "offset", "offset:-1", "offset:x", "offset:9223372036854775808", "time:", "time:noon", "Earliest"} {
		if got, err := parseStart(s); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "--from") {
			t.Errorf("%q: %+v, %v; want a usage error", s, got, err)
		}
	}
}
