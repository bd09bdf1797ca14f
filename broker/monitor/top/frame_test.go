package top

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/portask/portask/broker/monitor"
)

var update = flag.Bool("update", false, "write the frames of testdata anew")

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// quiet is a broker that has just begun.
func quiet() *monitor.Report {
	return &monitor.Report{
		Version: "0.1.0", Go: "go1.26", Node: "node-1", Engine: "disklog", Address: "127.0.0.1:7474",
		Time: noon, Uptime: 90 * time.Second, Interval: 10 * time.Second, Ready: true,
		Components: []monitor.Component{{Name: "listener", Ready: true}, {Name: "storage", Ready: true}, {Name: "logs", Ready: true}},
		Latencies: []monitor.Latency{{Name: monitor.LatencyAccepted}, {Name: monitor.LatencyDurable}, {Name: monitor.LatencyAppend},
			{Name: monitor.LatencySync}, {Name: monitor.LatencyDeliver}},
		Storage: monitor.Storage{FreeBytes: 80 << 30, TotalBytes: 100 << 30},
		Pools:   []monitor.Pool{{Name: "receive", FreeBytes: 1 << 20, LimitBytes: 96 << 20}, {Name: "output", LimitBytes: 16 << 20}},
		Queues:  []monitor.Queue{{Name: "history", Capacity: 1024}, {Name: "commit", Capacity: 4096}, {Name: "mail"}},
		Process: monitor.Process{PID: 100, CPU: time.Second, RSSBytes: 24 << 20, FDs: 21, FDLimit: 1048576, Threads: 9, Goroutines: 31,
			HeapBytes: 3 << 20, HeapGoalBytes: 4 << 20, GCs: 2, MaxProcs: 2},
		System: monitor.System{Processors: 2, Busy: 10 * time.Second, Idle: 100 * time.Second, Load1: 0.31, Load5: 0.2, Load15: 0.1,
			MemoryBytes: 8 << 30, AvailableBytes: 6 << 30,
			Disk:     &monitor.Disk{Path: "/data", Device: "vda", TotalBytes: 100 << 30, FreeBytes: 80 << 30},
			Network:  &monitor.Network{},
			Cgroup:   &monitor.Cgroup{MemoryLimitBytes: 2 << 30, MemoryBytes: 300 << 20, CPUs: 1.5},
			Pressure: &monitor.Pressure{}},
	}
}

// after is r some time later, with so many messages a second in and out.
func after(r *monitor.Report, d time.Duration, in, out float64) *monitor.Report {
	n := *r
	s := d.Seconds()
	n.Time, n.Uptime = r.Time.Add(d), r.Uptime+d
	n.Totals.Frames += uint64(in * s / 60)
	n.Totals.Syscalls += uint64(in * s / 40)
	n.Totals.MessagesIn += uint64(in * s)
	n.Totals.BatchesIn += uint64(in * s / 64)
	n.Totals.BytesIn += uint64(in * s * 1030)
	n.Totals.MessagesOut += uint64(out * s)
	n.Totals.BytesOut += uint64(out * s * 1030)
	n.Totals.Delivers += uint64(out * s / 200)
	n.Process.CPU += time.Duration(in * 2e-6 * float64(d))
	n.Process.GCCPU += time.Duration(in * 5e-8 * float64(d))
	n.Process.GCs += uint64(s)
	n.Process.AllocBytes += uint64(in * s)
	n.Storage.Syncs += uint64(800 * s)
	n.System.Busy += time.Duration(0.6 * 2 * float64(d))
	n.System.Idle += time.Duration(0.35 * 2 * float64(d))
	n.System.IOWait += time.Duration(0.049 * 2 * float64(d))
	n.System.Steal += time.Duration(0.001 * 2 * float64(d))
	disk, network, cgroup := *r.System.Disk, *r.System.Network, *r.System.Cgroup
	disk.WriteBytes += uint64(in * s * 1024)
	disk.Busy += d / 3
	network.BytesIn += uint64(in * s * 1050)
	network.BytesOut += uint64(out * s * 1050)
	cgroup.Throttled += d / 100
	n.System.Disk, n.System.Network, n.System.Cgroup = &disk, &network, &cgroup
	n.Topics = make([]monitor.Topic, len(r.Topics))
	for i, t := range r.Topics {
		t.MessagesStored += uint64(in * s / float64(i+2))
		t.BatchesStored += uint64(in * s / float64(i+2) / 64)
		t.BytesStored += uint64(in * s / float64(i+2) * 1030)
		t.Bytes = int64(t.BytesStored)
		n.Topics[i] = t
	}
	return &n
}

// busy is a broker under load, with topics.
func busy(topics int) *monitor.Report {
	r := quiet()
	r.Uptime = 3*24*time.Hour + 4*time.Hour
	t := &r.Totals
	t.Connections, t.Producers, t.Subscriptions, t.CreditFreeBytes = 120, 40, 80, 48<<20
	r.Pools[0].LiveBytes, r.Pools[1].LiveBytes = 41<<20, 3<<20
	r.Queues[0].Depth, r.Queues[1].Depth, r.Queues[2].Depth = 12, 700, 3
	us := time.Microsecond
	r.Latencies = []monitor.Latency{
		{Name: monitor.LatencyAccepted, Last: monitor.Quantiles{Count: 19_500, P50: 87 * us, P99: 940 * us, P999: 2310 * us, Max: 5 * time.Millisecond},
			Total: monitor.Quantiles{Count: 9e6, P50: 90 * us, P99: 1200 * us, P999: 8 * time.Millisecond}},
		{Name: monitor.LatencyDurable, Last: monitor.Quantiles{Count: 4_000, P50: 1870 * us, P99: 12400 * us, P999: 101 * time.Millisecond, Max: 1500 * time.Millisecond},
			Total: monitor.Quantiles{Count: 2e6, P50: 1900 * us, P99: 13 * time.Millisecond, P999: 120 * time.Millisecond}},
		{Name: monitor.LatencyAppend},
		{Name: monitor.LatencySync, Last: monitor.Quantiles{Count: 8_000, P50: 1100 * us, P99: 9 * time.Millisecond, P999: 88 * time.Millisecond, Max: 300 * time.Millisecond},
			Total: monitor.Quantiles{Count: 4e6, P50: 1000 * us, P99: 9500 * us, P999: 90 * time.Millisecond}},
		{Name: monitor.LatencyDeliver, Total: monitor.Quantiles{Count: 9, P50: 30 * us, P99: 100 * us, P999: 100 * us}},
	}
	for i := range topics {
		r.Topics = append(r.Topics, monitor.Topic{Name: fmt.Sprintf("orders.%03d", i), Visibility: "durable", PartitionCount: 4, Segments: 9,
			MessagesStored: uint64(1000 * (topics - i)), BytesStored: uint64(1 << 20 * (topics - i)), BatchesStored: uint64(20 * (topics - i)),
			Partitions: []monitor.Partition{{Index: 0, End: 1000, HWM: 1000 - int64(i), Durable: 1000 - int64(2*i)}}})
	}
	t.Topics, t.Partitions = topics, 4*topics
	return r
}

// view is what stands on the screen after the reports.
func view(w, h int, reports ...*monitor.Report) *View {
	v := &View{Clock: noon, Every: time.Second, Window: 3 * time.Minute, Keys: true, Width: w, Height: h, Glyphs: Unicode()}
	for _, r := range reports {
		v.Observe(r)
	}
	return v
}

// load is minutes of changing load.
func load(topics int) []*monitor.Report {
	all := []*monitor.Report{busy(topics)}
	for i := range 150 {
		in := 20_000 + 600*float64(i)
		if i > 60 && i < 75 {
			in = 0
		}
		all = append(all, after(all[i], time.Second, in, in*2))
	}
	return all
}

func TestFrames(t *testing.T) {
	trouble := func() *View {
		all := load(5)
		last := *after(all[len(all)-1], time.Second, 110_000, 90_000)
		last.Ready = false
		last.Components = []monitor.Component{{Name: "listener", Ready: true},
			{Name: "storage", Reason: "the disk is nearly full: 1.2 GiB of 100 GiB are left", Code: "storage-full"}}
		last.Storage.Full, last.Storage.FreeBytes, last.Storage.FailedLogs, last.Storage.Corruptions = true, 1200<<20, 5, 1
		last.Topics[1].Failed, last.Topics[2].Failed = 1, 1
		last.Topics[1].Partitions = []monitor.Partition{{Index: 3, Failed: true}}
		last.Topics[3].Partitions = []monitor.Partition{{Index: 0, Corruptions: 1}}
		last.Pools = []monitor.Pool{{Name: "receive", LiveBytes: 95 << 20, LimitBytes: 96 << 20, Refused: 40}, last.Pools[1]}
		last.Queues = []monitor.Queue{{Name: "history", Depth: 1024, Capacity: 1024, Refused: 9, Added: 100}, last.Queues[1], last.Queues[2]}
		last.Totals.HistoryReads += 300
		last.Totals.Errors += 12
		last.Totals.ConnectionsRefused += 3
		last.Totals.CreditFreeBytes = 0
		last.System.Steal += 300 * time.Millisecond
		last.System.Pressure = &monitor.Pressure{IO: monitor.Stall{Some10: 0.61}}
		last.Process.FDs = 1048000
		return view(80, 24, append(all, &last)...)
	}
	stale := view(80, 24, load(3)...)
	stale.Lose("connection refused", 12*time.Second)
	paused := view(80, 24, load(3)...)
	paused.Paused, paused.Help = true, true
	ascii := view(80, 24, load(3)...)
	ascii.Glyphs = ASCII()
	scrolled := view(80, 24, load(300)...)
	scrolled.Order, scrolled.Turned, scrolled.Scroll = ByName, true, 100
	gone := view(80, 24)
	gone.Lose("connection refused", 0)
	once := view(80, 0, load(12)...)
	once.Keys = false
	warned := trouble()
	warned.Height = 40
	restarted := view(80, 24, load(3)...)
	again := after(quiet(), 5*time.Second, 0, 0)
	again.Process.PID, again.Uptime = 101, 5*time.Second
	restarted.Observe(again)
	for name, v := range map[string]*View{
		"80x24":      view(80, 24, load(3)...),
		"120x40":     view(120, 40, load(30)...),
		"200x50":     view(200, 50, load(30)...),
		"60x16":      view(60, 16, load(3)...),
		"first":      view(80, 24, busy(3)),
		"empty":      view(80, 24, quiet(), after(quiet(), time.Second, 0, 0)),
		"stale":      stale,
		"gone":       gone,
		"waiting":    view(80, 24),
		"help":       paused,
		"ascii":      ascii,
		"manytopics": scrolled,
		"once":       once,
		"trouble":    trouble(),
		"trouble40":  warned,
		"restarted":  restarted,
	} {
		t.Run(name, func(t *testing.T) {
			got := v.Text()
			checkFrame(t, v)
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
			}
		})
	}
}

// checkFrame: a frame keeps to its size and has nothing that moves a cursor.
func checkFrame(t *testing.T, v *View) {
	t.Helper()
	lines := v.Frame()
	if v.Height > 0 && len(lines) > max(v.Height, HeightMin) {
		t.Errorf("%d lines for %d", len(lines), v.Height)
	}
	for i, l := range lines {
		if n := l.Width(); n > max(v.Width, WidthMin) {
			t.Errorf("line %d has %d columns for %d: %q", i, n, v.Width, l.String())
		}
		if s := l.String(); !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 }) {
			t.Errorf("line %d: %q", i, s)
		}
	}
}
