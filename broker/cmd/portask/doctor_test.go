package main

import (
	"errors"
	"testing"
	"time"

	"github.com/portask/portask/broker/internal/vfs"
)

func TestDoctorVerdicts(t *testing.T) {
	times := func(d time.Duration) []time.Duration { return []time.Duration{d, d, d} }
	tests := []struct {
		name string
		got  finding
		want verdict
	}{
		{"many descriptors", judgeDescriptors(1024, 65536), good},
		{"few descriptors", judgeDescriptors(1024, 20000), warn},
		{"hardly any descriptors", judgeDescriptors(1024, 1024), bad},
		{"ssd", judgeSyncs(times(200*time.Microsecond), "ext4", false), good},
		{"slow ssd", judgeSyncs(times(5*time.Millisecond), "ext4", false), warn},
		{"very slow disk", judgeSyncs(times(30*time.Millisecond), "ext4", false), bad},
		{"cache that lies", judgeSyncs(times(2*time.Microsecond), "xfs", false), warn},
		{"memory", judgeSyncs(times(time.Microsecond), "tmpfs", true), warn},
		{"room", judgeSpace(50, 100), good},
		{"nearly full", judgeSpace(9, 100), warn},
		{"fast clock", judgeClockSource("tsc", 40*time.Nanosecond), good},
		{"slow clock", judgeClockSource("hpet", 2*time.Microsecond), warn},
	}
	for _, tt := range tests {
		if tt.got.Verdict != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, tt.got.Verdict, tt.want)
		}
		if (tt.got.Advice == "") != (tt.got.Verdict == good) {
			t.Errorf("%s: verdict %s with advice %q", tt.name, tt.got.Verdict, tt.got.Advice)
		}
	}
}

func TestMeasureSyncsLeavesNoFile(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("/data", 0o755); err != nil {
		t.Fatal(err)
	}
	times, err := measureSyncs(mem, "/data/probe")
	if err != nil || len(times) == 0 {
		t.Fatalf("%d times, %v", len(times), err)
	}
	if names, err := mem.ReadDir("/data"); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}

	eio := errors.New("i/o error")
	failing := vfs.NewFault(mem, func(op vfs.Op) vfs.Decision {
		if op.Kind == vfs.OpSync {
			return vfs.Decision{Err: eio, Short: -1}
		}
		return vfs.Decision{Short: -1}
	})
	if _, err := measureSyncs(failing, "/data/probe"); !errors.Is(err, eio) {
		t.Errorf("failing sync: %v", err)
	}
	if names, _ := mem.ReadDir("/data"); len(names) != 0 {
		t.Errorf("left behind after a failure: %v", names)
	}
}
