package top

import (
	"fmt"

	"github.com/portask/portask/broker/monitor"
)

// Bounds above which something is worth a sentence. They are where an operator
// still has time to act, not where it hurts.
const (
	lowSpace   = 0.10 // of the disk
	lowMemory  = 0.05 // of the machine, or of the control group's limit
	nearlyFull = 0.90 // pools, queues, descriptors
	stolen     = 0.05 // of the processors' time
	throttled  = 0.05 // of the time
	stalled    = 0.25 // tasks waiting, of the time
	behindTail = 0.20 // deliveries that were read from the log
)

// Warnings says in words what is wrong, the worst first; empty when nothing is.
// r are the rates up to to.
func Warnings(to *monitor.Report, r *Rates) []string {
	w := []string{} // "[]" in JSON, not "null"
	say := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }

	for i := range to.Components {
		if c := &to.Components[i]; !c.Ready {
			say("not ready: %s: %s", c.Name, c.Reason)
		}
	}
	s := &to.Storage
	switch free := share(s.FreeBytes, s.TotalBytes); {
	case s.Full:
		say("storage is full: producing is stopped until there is space; %s of %s free", size(s.FreeBytes), size(s.TotalBytes))
	case s.TotalBytes > 0 && free < lowSpace:
		say("storage is low: %s of %s free", size(s.FreeBytes), size(s.TotalBytes))
	}
	if s.FailedLogs > 0 {
		say("%s take no more batches: %s", count(s.FailedLogs, "partition"), failedLogs(to, s.FailedLogs))
	}
	if s.Corruptions > 0 {
		say("%s in the logs: see portask log verify", count(s.Corruptions, "damaged range"))
	}
	if r.Restarted {
		say("the broker restarted %s ago", span(to.Uptime))
	}
	memoryWarnings(say, to, r)
	loadWarnings(say, to, r)
	return w
}

func memoryWarnings(say func(string, ...any), to *monitor.Report, r *Rates) {
	for _, p := range r.Pools {
		switch {
		case p.Refused > 0:
			say("memory pool %s refuses %s requests/s: %s of %s used", p.Name, number(p.Refused), size(p.LiveBytes), size(p.LimitBytes))
		case share(p.LiveBytes, p.LimitBytes) > nearlyFull:
			say("memory pool %s is nearly full: %s of %s", p.Name, size(p.LiveBytes), size(p.LimitBytes))
		}
	}
	for _, q := range r.Queues {
		switch {
		case q.Refused > 0:
			say("queue %s is full: %s offers/s refused", q.Name, number(q.Refused))
		case share(q.Depth, q.Capacity) > nearlyFull:
			say("queue %s is nearly full: %d of %d", q.Name, q.Depth, q.Capacity)
		}
	}
	if to.Totals.Producers > 0 && to.Totals.CreditFreeBytes <= 0 {
		say("producers get no more credit: the memory for batches is given away")
	}
	p := &to.Process
	if p.FDLimit > 0 && share(int64(p.FDs), p.FDLimit) > nearlyFull {
		say("descriptors are nearly used up: %d of %d", p.FDs, p.FDLimit)
	}
	m := &to.System
	if m.MemoryBytes > 0 && share(m.AvailableBytes, m.MemoryBytes) < lowMemory {
		say("the machine is short of memory: %s of %s available", size(m.AvailableBytes), size(m.MemoryBytes))
	}
	if c := m.Cgroup; c != nil {
		if c.MemoryLimitBytes > 0 && share(c.MemoryBytes, c.MemoryLimitBytes) > 1-lowMemory {
			say("the control group is short of memory: %s of %s used", size(c.MemoryBytes), size(c.MemoryLimitBytes))
		}
		if r.System.Throttled > throttled {
			say("the control group's quota of %.3g processors holds the broker back %s of the time", c.CPUs, percent(r.System.Throttled))
		}
		if c.OOMKills > 0 {
			say("the kernel killed %s in the control group for want of memory", count(int(min(c.OOMKills, 1<<30)), "process"))
		}
	}
}

func loadWarnings(say func(string, ...any), to *monitor.Report, r *Rates) {
	if behind := r.HistoryReads; behind > 0 && behind > behindTail*r.Delivers {
		say("slow consumers: %s of the deliveries are read from the log, not from its tail in memory", percent(min(1, behind/max(behind, r.Delivers))))
	}
	if r.Refused > 0 {
		say("%s connections/s are refused", number(r.Refused))
	}
	if r.Errors > 0 {
		say("clients get %s errors/s", number(r.Errors))
	}
	if r.System.Steal > stolen {
		say("the hypervisor takes %s of the processors' time", percent(r.System.Steal))
	}
	if p := to.System.Pressure; p != nil {
		for _, s := range []struct {
			what  string
			share float64
		}{{"processors", p.CPU.Some10}, {"memory", p.Memory.Some10}, {"input and output", p.IO.Some10}} {
			if s.share > stalled {
				say("tasks waited for %s %s of the last 10 s", s.what, percent(s.share))
			}
		}
	}
}

// failedLogs names the partitions that failed, three at most.
func failedLogs(to *monitor.Report, all int) string {
	text, n := "", 0
	for i := range to.Topics {
		for k := range to.Topics[i].Partitions {
			p := &to.Topics[i].Partitions[k]
			if !p.Failed || n == 3 {
				continue
			}
			if n++; n > 1 {
				text += ", "
			}
			text += fmt.Sprintf("%s-%d", to.Topics[i].Name, p.Index)
		}
	}
	switch {
	case n == 0:
		return "see portask topic list"
	case all > n:
		return fmt.Sprintf("%s and %d more", text, all-n)
	}
	return text
}
