package evidence

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
)

// latenciesMax and queuesMax bound what is taken of an answer.
const (
	latenciesMax = 16
	queuesMax    = 1024
)

// sampler makes samples of what its sources say now and said before. Not safe
// for concurrent use.
type sampler struct {
	admin *admin
	p     *sysmetrics.Process
	err   error // why there is no p

	at   time.Time
	cpu  time.Duration
	hasP bool // cpu is there
	host *sysmetrics.HostSample
	data string // where the process keeps its data, empty: not known
	disk *sysmetrics.DiskSample
	net  *sysmetrics.NetworkSample

	asked time.Time
	st    *stats
	last  Sample // of the broker's own figures
}

func newSampler(a *admin, pid int) *sampler {
	s := &sampler{admin: a}
	if pid != 0 {
		s.p, s.err = sysmetrics.OpenProcess(pid)
	}
	return s
}

// take returns nil for s until there is something to compare with.
func (x *sampler) take(ctx context.Context) (s *Sample, st *stats, errs []error) {
	var out Sample
	if x.err != nil {
		errs = append(errs, x.err)
		x.err = nil
	}
	seen := false
	if x.admin != nil {
		asked := time.Now()
		now, _, err := x.admin.stats(ctx)
		if err != nil {
			errs = append(errs, err)
			x.st = nil
		} else {
			if x.st != nil && now.Uptime >= x.st.Uptime { // else: another process
				out.fromStats(x.st, now, asked.Sub(x.asked), &x.last)
				x.last = out
				seen = true
			}
			x.st, x.asked, st = now, asked, now
		}
	}
	if x.p != nil {
		ok, err := x.fromProcess(&out)
		if err != nil {
			errs = append(errs, err)
			x.p = nil // gone for good: a new one has another pid
		}
		seen = seen || ok
	}
	if !seen {
		return nil, st, errs
	}
	return &out, st, errs
}

// fromProcess reads the process and its machine: nearer, and exact to the
// nanosecond, so it goes before what the broker says of itself.
func (x *sampler) fromProcess(out *Sample) (ok bool, err error) {
	s, err := x.p.Sample()
	if err != nil {
		return false, err
	}
	seconds := s.At.Sub(x.at).Seconds()
	ok = x.hasP && seconds > 0
	if ok {
		out.CPUs = (s.CPU - x.cpu).Seconds() / seconds
		out.RSSBytes, out.FDs, out.Threads = s.RSSBytes, s.FDs, s.Threads
	}
	if x.admin == nil { // which knows its own
		x.devices(out, ok, seconds)
	}
	if h, err := sysmetrics.Host(); err == nil {
		if ok && x.host != nil {
			out.host(h.Busy-x.host.Busy, h.Idle-x.host.Idle, h.IOWait-x.host.IOWait, h.Steal-x.host.Steal)
		}
		x.host = &h
	}
	x.at, x.cpu, x.hasP = s.At, s.CPU, true
	return ok, nil
}

// devices reads the disk under the process's data and the machine's network.
// What Linux counts as written by a process itself is no use: it counts pages
// that become dirty, whole large folios of them, and came to 47 times what was
// written here.
func (x *sampler) devices(out *Sample, ok bool, seconds float64) {
	if x.data == "" { // it may have none at first
		x.data = dataOf(os.DirFS("/"), x.p.PID())
	}
	if x.data != "" {
		if d, err := sysmetrics.Disk(x.data); err == nil {
			if ok && x.disk != nil {
				out.DiskRead, out.DiskWrite = per(d.ReadBytes, x.disk.ReadBytes, seconds), per(d.WriteBytes, x.disk.WriteBytes, seconds)
			}
			x.disk = &d
		}
	}
	if n, err := sysmetrics.Network(); err == nil {
		if ok && x.net != nil {
			out.NetIn, out.NetOut = per(n.BytesIn, x.net.BytesIn, seconds), per(n.BytesOut, x.net.BytesOut, seconds)
		}
		x.net = &n
	}
}

// filesMax bounds the descriptors that are looked at for where data are.
const filesMax = 512

// dataOf is the directory in which process pid has most files open, as /proc
// tells it; empty if it has none, or where there is no /proc.
func dataOf(root fs.FS, pid int) string {
	links, ok := root.(fs.ReadLinkFS)
	if !ok {
		return ""
	}
	at := fmt.Sprintf("proc/%d/fd", pid)
	all, err := fs.ReadDir(root, at)
	if err != nil {
		return ""
	}
	open, best := map[string]int{}, ""
	for _, e := range all[:min(len(all), filesMax)] {
		name, err := links.ReadLink(path.Join(at, e.Name()))
		if err != nil || !path.IsAbs(name) {
			continue // socket:[1234]
		}
		if dir := path.Dir(name); dir != "/dev" && dir != "/" {
			if open[dir]++; open[dir] > open[best] || open[dir] == open[best] && dir < best {
				best = dir
			}
		}
	}
	return best
}

func (s *Sample) host(busy, idle, iowait, steal time.Duration) {
	if all := (busy + idle + iowait + steal).Seconds(); all > 0 {
		s.HostBusy, s.HostIOWait, s.HostSteal = busy.Seconds()/all, iowait.Seconds()/all, steal.Seconds()/all
	}
}

// fromStats compares two answers that were asked for wall apart. The broker looks
// at its process about once a second, so it may not have done so in between: then
// the rates of that are those of the last sample.
func (s *Sample) fromStats(a, b *stats, wall time.Duration, last *Sample) {
	s.RSSBytes, s.HeapBytes, s.FDs, s.Threads, s.Goroutines = b.Process.RSSBytes, b.Process.HeapBytes, b.Process.FDs, b.Process.Threads, b.Process.Goroutines
	if sampled := (b.Sampled - a.Sampled).Seconds(); sampled > 0 {
		s.CPUs = max(0, (b.Process.CPU-a.Process.CPU).Seconds()/sampled)
		s.host(b.System.Busy-a.System.Busy, b.System.Idle-a.System.Idle, b.System.IOWait-a.System.IOWait, b.System.Steal-a.System.Steal)
		if d, e := a.System.Disk, b.System.Disk; d != nil && e != nil {
			s.DiskRead, s.DiskWrite = per(e.ReadBytes, d.ReadBytes, sampled), per(e.WriteBytes, d.WriteBytes, sampled)
		}
		if d, e := a.System.Cgroup, b.System.Cgroup; d != nil && e != nil {
			s.Throttled = max(0, (e.Throttled-d.Throttled).Seconds()/sampled)
		}
	} else {
		s.CPUs, s.DiskRead, s.DiskWrite, s.Throttled = last.CPUs, last.DiskRead, last.DiskWrite, last.Throttled
		s.HostBusy, s.HostSteal, s.HostIOWait = last.HostBusy, last.HostSteal, last.HostIOWait
	}
	if seconds := wall.Seconds(); seconds > 0 {
		s.GCCPUs = max(0, (b.Process.GCCPU-a.Process.GCCPU).Seconds()/seconds)
		s.NetIn = per(b.Totals.SocketBytesIn, a.Totals.SocketBytesIn, seconds)
		s.NetOut = per(b.Totals.SocketBytesOut, a.Totals.SocketBytesOut, seconds)
		s.Syncs = per(b.Storage.Syncs, a.Storage.Syncs, seconds)
	}
	for i, q := range b.Queues {
		if i == queuesMax {
			break
		}
		s.Queued += q.Depth
	}
	for i, l := range b.Latencies {
		if i == latenciesMax {
			break
		}
		if l.Last.Count > 0 {
			if s.LatencyP99 == nil {
				s.LatencyP99 = map[string]int64{}
			}
			s.LatencyP99[l.Name] = int64(l.Last.P99)
		}
	}
}

// per is a counter's rate; 0 if it went back.
func per(now, before uint64, seconds float64) float64 {
	if now < before || seconds <= 0 {
		return 0
	}
	return float64(now-before) / seconds
}

// totals is nil without two answers of one process.
func totals(a, b *stats) *Totals {
	if a == nil || b == nil || b.Uptime <= a.Uptime {
		return nil
	}
	less := func(now, before uint64) uint64 {
		if now < before {
			return 0
		}
		return now - before
	}
	t := &Totals{
		CPUSeconds: (b.Process.CPU - a.Process.CPU).Seconds(), GCCPUSeconds: (b.Process.GCCPU - a.Process.GCCPU).Seconds(),
		GCs: less(b.Process.GCs, a.Process.GCs), Messages: less(b.Totals.MessagesIn, a.Totals.MessagesIn), Batches: less(b.Totals.BatchesIn, a.Totals.BatchesIn),
		Syscalls: less(b.Totals.Syscalls, a.Totals.Syscalls), Syncs: less(b.Storage.Syncs, a.Storage.Syncs), Writes: less(b.Storage.Writes, a.Storage.Writes),
		AllocObjects: less(b.Process.AllocObjects, a.Process.AllocObjects), AllocBytes: less(b.Process.AllocBytes, a.Process.AllocBytes),
		SocketIn: less(b.Totals.SocketBytesIn, a.Totals.SocketBytesIn), SocketOut: less(b.Totals.SocketBytesOut, a.Totals.SocketBytesOut),
		Errors: less(b.Totals.Errors, a.Totals.Errors), Duplicates: less(b.Totals.Duplicates, a.Totals.Duplicates), HistoryReads: less(b.Totals.HistoryReads, a.Totals.HistoryReads),
	}
	var before, after uint64
	for _, q := range a.Queues {
		before += q.Refused
	}
	for _, q := range b.Queues {
		after += q.Refused
	}
	t.Refused = less(after, before)
	var s Sample
	s.host(b.System.Busy-a.System.Busy, b.System.Idle-a.System.Idle, b.System.IOWait-a.System.IOWait, b.System.Steal-a.System.Steal)
	t.Steal = s.HostSteal
	if d, e := a.System.Cgroup, b.System.Cgroup; d != nil && e != nil {
		t.ThrottledSec = max(0, (e.Throttled - d.Throttled).Seconds())
	}
	return t
}
