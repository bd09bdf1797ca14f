package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
	"time"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/sysmetrics"
)

// Limits of the collector's settings. The runtime itself has none.
const (
	gcPercentMin   = 1
	gcPercentMax   = 10_000
	memoryLimitMin = 16 << 20
	// autoMemory derives the limit from the control group.
	autoMemory = 0
	// unlimitedMemory is what the runtime takes for no limit.
	unlimitedMemory = math.MaxInt64
)

// collector is how the Go runtime was set up by the process's environment (GOGC,
// GOMEMLIMIT), read once, before anything changes it.
var collector = sync.OnceValue(func() (gc struct {
	percent int
	limit   int64 // unlimitedMemory if there is none
}) {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	gc.percent = -1
	if n := sample[0].Value.Uint64(); n <= math.MaxInt32 { // else it is off
		gc.percent = min(max(int(n), gcPercentMin), gcPercentMax)
	}
	gc.limit = max(debug.SetMemoryLimit(-1), memoryLimitMin)
	return gc
})

// groupLimits are the limits of the control group. What cannot be read limits
// nothing; `portask doctor` names it.
var groupLimits = func() sysmetrics.CgroupLimits {
	l, _ := sysmetrics.Limits()
	return l
}

// memoryPlan is how much memory the Go runtime is to stay below, and why.
type memoryPlan struct {
	// limit is for debug.SetMemoryLimit; unlimitedMemory is none.
	limit int64
	// from says where it comes from, for people.
	from string
	// chunks is what the broker may take outside of what the limit counts, group
	// the control group's limit, 0 if there is none.
	chunks, group int64
	// tight: the group does not have room for the chunks, a quarter for the heap
	// and a tenth for the rest; all of them in use would exceed it.
	tight bool
}

// planMemory derives the plan from the setting, the environment's GOMEMLIMIT, the
// control group's limit, and the most that chunks take outside of the heap.
//
// A setting that is a size or none stands. Otherwise GOMEMLIMIT does, if it is
// set. Otherwise, of a group's limit, a tenth is left to what the runtime does
// not count: the program's own pages, the kernel's buffers for sockets and
// files. The chunks are taken off too: the runtime does not count them either,
// and collecting garbage does not make them smaller. The rest is the limit; but
// it is at least a quarter of the group's, since chunks rarely reach their cap
// all at once, while a heap pressed below what lives in it would be collected
// without end.
func planMemory(setting, environment, group, chunks int64) memoryPlan {
	p := memoryPlan{chunks: chunks, group: group}
	switch {
	case setting == unlimitedMemory:
		p.limit, p.from = unlimitedMemory, "none"
	case setting != autoMemory:
		p.limit, p.from = setting, "as set"
	case environment != unlimitedMemory:
		p.limit, p.from = environment, "of GOMEMLIMIT"
	case group == 0:
		p.limit, p.from = unlimitedMemory, "none: no control group limits memory"
	default:
		share := group - group/10 - chunks
		p.limit = max(max(share, group/4)&^(1<<20-1), memoryLimitMin) // whole MiB read well
		p.from = "of the control group's " + document.FormatSize(group)
	}
	p.tight = group > 0 && group-group/10-chunks < group/4
	return p
}

// String is the limit and where it comes from.
func (p memoryPlan) String() string {
	if p.limit == unlimitedMemory {
		return p.from
	}
	return document.FormatSize(p.limit) + " " + p.from
}

// chunkBytes is the most that the broker takes outside of the Go heap for batches.
func (o *brokerOptions) chunkBytes() int64 {
	if !mempool.OffHeap {
		return 0
	}
	n := o.server.PoolBytes()
	if o.engine == engineMemory {
		n += o.mem.MaxBytes + min(o.mem.MaxBytes/16, mempool.DefaultFreeBytes)
	}
	return n
}

// memory is the plan for a broker whose chunks take up to chunks bytes.
func (o *brokerOptions) memory(chunks int64) memoryPlan {
	return planMemory(o.memoryLimit, collector().limit, groupLimits().EffectiveMemoryBytes(), chunks)
}

// collect sets the garbage collector up.
func (o *brokerOptions) collect(chunks int64) memoryPlan {
	p := o.memory(chunks)
	debug.SetGCPercent(o.gcPercent)
	debug.SetMemoryLimit(p.limit)
	return p
}

// tell logs the plan of a broker that starts.
func (p memoryPlan) tell(log *slog.Logger) {
	if p.limit != unlimitedMemory {
		log.Info("memory limit of the Go runtime", "limit", document.FormatSize(p.limit), "from", p.from, "chunks_outside", document.FormatSize(p.chunks))
	}
	if p.tight {
		log.Warn("the control group's memory is small for this configuration: lower performance.produce_memory and tail_memory",
			"group", document.FormatSize(p.group), "chunks_at_most", document.FormatSize(p.chunks))
	}
}

// settleAfter is when a broker gives back what only its start needed: late
// enough not to slow down those who wait for it.
const settleAfter = 5 * time.Second

// settle gives it back, the garbage of recovery, as soon as the broker is idle;
// who has connections has other things to do.
func settle(ctx context.Context, idle func() bool) {
	again := time.NewTicker(settleAfter)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		if idle() {
			break
		}
	}
	debug.FreeOSMemory()
}

// effective is what settings that say auto come to on this machine.
func (o *brokerOptions) effective() map[string]string {
	loops := o.server.WithDefaults().Loops
	m := map[string]string{}
	if o.server.Loops == 0 {
		m["performance.event_loops"] = strconv.Itoa(loops)
	}
	if o.memoryLimit == autoMemory {
		m["performance.memory_limit"] = o.memory(o.chunkBytes()).String()
	}
	return m
}

// checkGroup tells what the control group leaves of the
// machine.
func checkGroup() []finding {
	l, err := sysmetrics.Limits()
	if err != nil {
		return []finding{{Check: "control group", Verdict: unknown, Value: err.Error(), Advice: "limits that cannot be read are not obeyed: set performance.memory_limit yourself"}}
	}
	o := newBrokerOptions()
	return []finding{judgeMemory(l, o.memory(o.chunkBytes())), judgeProcessors(l)}
}

// judgeMemory. p is the plan with the default configuration.
func judgeMemory(l sysmetrics.CgroupLimits, p memoryPlan) finding {
	f := finding{Check: "memory limit", Verdict: good, Value: "none (" + groupText(l.Memory) + ")"}
	if n := l.EffectiveMemoryBytes(); n > 0 {
		f.Value = fmt.Sprintf("%s (%s); the Go runtime stays below %s", document.FormatSize(n), groupText(l.Memory), p)
	}
	if p.tight {
		f.Verdict = warn
		f.Advice = fmt.Sprintf("with the defaults batches may take %s of it: lower performance.produce_memory and tail_memory, or raise the limit", document.FormatSize(p.chunks))
	}
	return f
}

// judgeProcessors: below one processor every sync and every collection waits for
// the next period, 100 ms as a rule.
func judgeProcessors(l sysmetrics.CgroupLimits) finding {
	f := finding{Check: "processor limit", Verdict: good, Value: "none (" + groupText(l.CPU) + ")"}
	if l.CPUs > 0 {
		f.Value = fmt.Sprintf("%.3g processors (%s)", l.CPUs, groupText(l.CPU))
	}
	if l.CPUs > 0 && l.CPUs < 1 {
		f.Verdict, f.Advice = warn, "less than one processor stops the whole broker for the rest of each period: give it one or more, or a weight instead of a quota"
	}
	return f
}

func groupText(g sysmetrics.Cgroup) string {
	return cmp.Or(map[int]string{1: "cgroup v1", 2: "cgroup v2"}[g.Version], "no control group")
}
