package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// Scripts branch on these numbers.
func TestExitCodesAreStable(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{fault.Internal, 1},
		{usagef("bad flag"), 2},
		{fmt.Errorf("topic: %w", fault.New(fault.NotFound, "describe")), 3},
		{fault.Exists, 4},
		{fault.New(fault.TooLarge, "produce").WithField("value").WithLimit(2, 1), 5},
		{fault.Invalid, 5},
		{fault.LevelUnavailable, 5},
		{fault.ConnectionLost, 6},
		{fault.Timeout, 7},
		{context.DeadlineExceeded, 7},
		{fault.OutOfRange, 8},
		{fault.StorageFailed, 9},
		{fault.StorageFull, 9},
		{fault.Locked, 9},
		{fault.NewerFormat, 9},
		{fault.Corrupted, 10},
		{fault.Full, 11},
		{fault.ShuttingDown, 11},
		{fault.Unauthorized, 12},
		{fault.NotSupported, 12},
		{context.Canceled, 130},
	}
	for _, tt := range tests {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestEveryExitCodeIsExplained(t *testing.T) {
	explained := make(map[int]bool)
	for line := range strings.Lines(exitHelp()) {
		n, err := strconv.Atoi(strings.Fields(line)[0])
		if err != nil {
			t.Fatal(err)
		}
		explained[n] = true
	}
	for _, code := range fault.Codes() {
		if n := exitCode(code); !explained[n] {
			t.Errorf("%v: exit code %d is not in the help", code, n)
		}
	}
}

// A stack is printed when it was asked for, and of a panic.
func TestReportHasTheStack(t *testing.T) {
	var out strings.Builder
	report(&out, fmt.Errorf("topic: %w", fault.New(fault.Full, "x").WithStack()))
	if !strings.Contains(out.String(), "made at:\n  github.com/portask/portask/broker/cmd/portask.TestReportHasTheStack\n") {
		t.Errorf("got %s", out.String())
	}
}

func TestReportHasCauseAndRemedy(t *testing.T) {
	var out strings.Builder
	report(&out, fault.New(fault.TooLarge, "produce orders").WithField("value").WithLimit(2<<20, 1<<20))
	want := "portask: produce orders: value: too-large (value 2097152 > limit 1048576)\n" +
		"  too-large: a size is above its limit; both are named\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}
