package main

import (
	"math"
	"testing"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/sysmetrics"
)

func TestPlanMemory(t *testing.T) {
	const mib, none = 1 << 20, unlimitedMemory
	for _, tt := range []struct {
		name                        string
		setting, env, group, chunks int64
		want                        int64
		text                        string
		tight                       bool
	}{
		{"no limit anywhere", autoMemory, none, 0, 100 * mib, none, "none: no control group limits memory", false},
		{"a tenth and the chunks off", autoMemory, none, 1000 * mib, 100 * mib, 800 * mib, "800MiB of the control group's 1000MiB", false},
		{"chunks on the heap", autoMemory, none, 1000 * mib, 0, 900 * mib, "900MiB of the control group's 1000MiB", false},
		{"no less than a quarter", autoMemory, none, 128 * mib, 108 * mib, 32 * mib, "32MiB of the control group's 128MiB", true},
		{"no less than the least", autoMemory, none, 20 * mib, 0, 18 * mib, "18MiB of the control group's 20MiB", false},
		{"hardly any memory", autoMemory, none, 8 * mib, 0, memoryLimitMin, "16MiB of the control group's 8MiB", false},
		{"GOMEMLIMIT before the group", autoMemory, 300 * mib, 1000 * mib, 100 * mib, 300 * mib, "300MiB of GOMEMLIMIT", false},
		{"a setting before both", 50 * mib, 300 * mib, 1000 * mib, 100 * mib, 50 * mib, "50MiB as set", false},
		{"none before both", unlimitedMemory, 300 * mib, 1000 * mib, 100 * mib, none, "none", false},
		{"a setting in a tight group is told too", 50 * mib, none, 128 * mib, 108 * mib, 50 * mib, "50MiB as set", true},
		{"no overflow", autoMemory, none, math.MaxInt64 / 2, 0, (math.MaxInt64/2 - math.MaxInt64/2/10) &^ (mib - 1), document.FormatSize((math.MaxInt64/2-math.MaxInt64/2/10)&^(mib-1)) + " of the control group's " + document.FormatSize(math.MaxInt64/2), false},
	} {
		p := planMemory(tt.setting, tt.env, tt.group, tt.chunks)
		if p.limit != tt.want || p.String() != tt.text || p.tight != tt.tight {
			t.Errorf("%s: %d, %q, tight %t; want %d, %q, %t", tt.name, p.limit, p, p.tight, tt.want, tt.text, tt.tight)
		}
	}
}

func TestChunksOfBothEngines(t *testing.T) {
	o := plainOptions()
	disk := o.chunkBytes()
	o.engine = engineMemory
	if more := o.chunkBytes() - disk; disk > 0 && more <= o.mem.MaxBytes {
		t.Errorf("memlog, which may hold %d, adds %d to the chunks", o.mem.MaxBytes, more)
	}
}

func TestDoctorJudgesTheGroup(t *testing.T) {
	const mib = 1 << 20
	l := func(memory int64, cpus float64) sysmetrics.CgroupLimits {
		return sysmetrics.CgroupLimits{MemoryBytes: memory, CPUs: cpus, Memory: sysmetrics.Cgroup{Version: 2}, CPU: sysmetrics.Cgroup{Version: 1}}
	}
	for _, tt := range []struct {
		got     finding
		want    verdict
		value   string
		advises bool
	}{
		{judgeMemory(l(0, 0), planMemory(autoMemory, unlimitedMemory, 0, 100*mib)), good, "none (cgroup v2)", false},
		{judgeMemory(l(1000*mib, 0), planMemory(autoMemory, unlimitedMemory, 1000*mib, 100*mib)), good,
			"1000MiB (cgroup v2); the Go runtime stays below 800MiB of the control group's 1000MiB", false},
		{judgeMemory(l(128*mib, 0), planMemory(autoMemory, unlimitedMemory, 128*mib, 100*mib)), warn,
			"128MiB (cgroup v2); the Go runtime stays below 32MiB of the control group's 128MiB", true},
		{judgeProcessors(l(0, 0)), good, "none (cgroup v1)", false},
		{judgeProcessors(l(0, 1.5)), good, "1.5 processors (cgroup v1)", false},
		{judgeProcessors(l(0, 0.25)), warn, "0.25 processors (cgroup v1)", true},
		{judgeProcessors(sysmetrics.CgroupLimits{}), good, "none (no control group)", false},
	} {
		if tt.got.Verdict != tt.want || tt.got.Value != tt.value || (tt.got.Advice != "") != tt.advises {
			t.Errorf("%+v, want %s %q", tt.got, tt.want, tt.value)
		}
	}
}

// The collector without a limit and without a percentage is refused whatever
// the limit's word.
func TestCollectorNeedsAnEnd(t *testing.T) {
	was := groupLimits
	defer func() { groupLimits = was }()
	var group int64
	groupLimits = func() sysmetrics.CgroupLimits { return sysmetrics.CgroupLimits{MemoryBytes: group} }
	for _, tt := range []struct {
		limit, group int64
		ok           bool
	}{{autoMemory, 0, false}, {unlimitedMemory, 1 << 30, false}, {autoMemory, 1 << 30, true}, {1 << 30, 0, true}} {
		o := plainOptions()
		o.gcPercent, o.memoryLimit, group = -1, tt.limit, tt.group
		if err := o.check(); (err == nil) != tt.ok {
			t.Errorf("limit %d in a group of %d, gc off: %v", tt.limit, tt.group, err)
		}
	}
}
