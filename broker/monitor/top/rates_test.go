package top

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/monitor"
)

func TestBetween(t *testing.T) {
	a := busy(3)
	b := after(a, 2*time.Second, 6400, 12_800)
	b.Time = b.Time.Add(-time.Hour) // a clock that was set back does not matter
	b.Pools = append([]monitor.Pool{{Name: "new", Gets: 100}}, a.Pools...)
	b.Pools[1].Gets += 50
	r := Between(a, b)
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.02*math.Abs(want)+1e-9 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("interval", r.Interval.Seconds(), 2)
	near("in", r.In.Messages, 6400)
	near("batches", r.In.Batches, 100)
	near("bytes", r.In.Bytes, 6400*1030)
	near("out", r.Out.Messages, 12_800)
	near("topic", r.Topics[0].Stored.Messages, 3200)
	near("all topics", r.Stored.Bytes, 6400*1030*(1./2+1./3+1./4))
	near("cpus", r.Process.CPUs, 0.0128)
	near("gc", r.Process.GCShare, 0.025)
	near("busy", r.System.Busy, 0.6)
	near("steal", r.System.Steal, 0.001)
	near("disk", r.System.DiskBusy, 1./3)
	near("throttled", r.System.Throttled, 0.01)
	near("a new pool", r.Pools[0].Gets, 0)
	near("a pool that moved", r.Pools[1].Gets, 25)
	if r.Topics[2].Lag != 4 || !r.Topics[2].Known || r.Restarted || len(r.Warnings) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestSampled: processor times are rates over the time between two readings of
// them, whenever the Reports were taken. Without a new reading a view keeps the
// last rates.
func TestSampled(t *testing.T) {
	a := busy(1)
	a.Sampled = a.Uptime - 900*time.Millisecond
	b := after(a, 200*time.Millisecond, 6400, 6400)
	b.Sampled = a.Sampled + time.Second
	b.Process.CPU, b.System.Disk.Busy = a.Process.CPU+500*time.Millisecond, a.System.Disk.Busy+time.Second/4
	c := after(b, 200*time.Millisecond, 6400, 6400)
	c.Process.CPU, c.System = b.Process.CPU, b.System
	v := view(80, 24, a, b)
	if r := &v.Rates; r.Process.CPUs != 0.5 || r.System.DiskBusy != 0.25 || r.SampleInterval != time.Second || r.Interval != 200*time.Millisecond {
		t.Errorf("%+v", r)
	}
	if r := Between(b, c); r.SampleInterval != 0 || r.Process.CPUs != 0 {
		t.Errorf("without a reading: %+v", r)
	}
	v.Observe(c)
	if r := &v.Rates; r.Process.CPUs != 0.5 || r.System.DiskBusy != 0.25 || r.SampleInterval != time.Second {
		t.Errorf("kept: %+v", r)
	}
}

// TestBetweenNothing: of the same moment twice there are no rates, and that is all.
func TestBetweenNothing(t *testing.T) {
	a := busy(1)
	if r := Between(a, after(a, 0, 0, 0)); r.Interval != 0 || r.Restarted || len(r.Warnings) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestBetweenFirst(t *testing.T) {
	r := Between(nil, busy(2))
	if r.Interval != 0 || r.Restarted || r.In.Messages != 0 || r.Topics[0].Known || r.Process.RSSBytes == 0 {
		t.Errorf("%+v", r)
	}
}

// TestRestart: what makes another process of a broker, each by itself. There are
// no rates then, however the counters differ.
func TestRestart(t *testing.T) {
	for name, change := range map[string]func(*monitor.Report){
		"less uptime": func(r *monitor.Report) { r.Uptime = time.Second },
		"another pid": func(r *monitor.Report) { r.Process.PID++ },
		// A container's only process has the same number again and, when it is
		// looked at seldom, more uptime than the last.
		"fewer frames": func(r *monitor.Report) { r.Totals.Frames = 3 },
	} {
		a := after(busy(2), time.Second, 9000, 9000)
		b := after(a, time.Second, 9000, 9000)
		change(b)
		r := Between(a, b)
		if !r.Restarted || r.Interval != 0 || r.In.Messages != 0 || r.Topics[0].Known || !strings.Contains(strings.Join(r.Warnings, "\n"), "restarted") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestLag: what is not visible or not durable counts; where the engine has no
// durability, visibility alone does.
func TestLag(t *testing.T) {
	for _, c := range []struct{ end, hwm, durable, want int64 }{
		{100, 100, 100, 0}, {100, 90, 100, 10}, {100, 100, 70, 30}, {100, 90, 70, 30}, {100, 100, 0, 0}, {100, 40, 0, 60}, {5, 9, 9, 0},
	} {
		r := busy(1)
		r.Topics[0].Partitions = []monitor.Partition{{End: c.end, HWM: c.hwm, Durable: c.durable}}
		if got := Between(nil, r).Topics[0].Lag; got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestTopicAnew: a topic that was deleted and created again counts from 0, one
// that came new too; of one that was not listed nothing is known.
func TestTopicAnew(t *testing.T) {
	a := busy(2)
	b := after(a, time.Second, 0, 0)
	b.Topics[0].MessagesStored = 700
	b.Topics = append(b.Topics, monitor.Topic{Name: "new", MessagesStored: 50})
	r := Between(a, b)
	if got := r.Topics[0].Stored.Messages; got != 700 {
		t.Errorf("created again: %v a second", got)
	}
	if got := r.Topics[2]; got.Stored.Messages != 50 || !got.Known {
		t.Errorf("new: %+v", got)
	}
	a.TopicsOmitted = 1
	if got := Between(a, b).Topics[2]; got.Stored.Messages != 0 || got.Known {
		t.Errorf("not listed before: %+v", got)
	}
}

func TestWarnings(t *testing.T) {
	for text, change := range map[string]func(*monitor.Report){
		"not ready: logs: two failed":                     func(r *monitor.Report) { r.Components[2] = monitor.Component{Name: "logs", Reason: "two failed"} },
		"storage is full: producing is stopped":           func(r *monitor.Report) { r.Storage.Full = true },
		"storage is low: 5.0 GiB of 100 GiB free":         func(r *monitor.Report) { r.Storage.FreeBytes = 5 << 30 },
		"1 partition take":                                func(r *monitor.Report) { r.Storage.FailedLogs = 1 },
		"see portask topic list":                          func(r *monitor.Report) { r.Storage.FailedLogs = 1 },
		"2 damaged ranges":                                func(r *monitor.Report) { r.Storage.Corruptions = 2 },
		"memory pool receive refuses 7.0 requests/s":      func(r *monitor.Report) { r.Pools[0].Refused += 7 },
		"memory pool receive is nearly full":              func(r *monitor.Report) { r.Pools[0].LiveBytes = 95 << 20 },
		"queue commit is full: 3.0 offers/s":              func(r *monitor.Report) { r.Queues[1].Refused = 3 },
		"queue commit is nearly full: 4000 of 4096":       func(r *monitor.Report) { r.Queues[1].Depth = 4000 },
		"producers get no more credit":                    func(r *monitor.Report) { r.Totals.CreditFreeBytes = 0 },
		"descriptors are nearly used up":                  func(r *monitor.Report) { r.Process.FDs = 1048000 },
		"the machine is short of memory":                  func(r *monitor.Report) { r.System.AvailableBytes = 1 << 20 },
		"the control group is short of memory":            func(r *monitor.Report) { r.System.Cgroup.MemoryBytes = 2<<30 - 1 },
		"quota of 1.5 processors holds the broker back":   func(r *monitor.Report) { r.System.Cgroup.Throttled += time.Second / 2 },
		"the kernel killed 2 processes":                   func(r *monitor.Report) { r.System.Cgroup.OOMKills = 2 },
		"slow consumers: 90% of the deliveries":           func(r *monitor.Report) { r.Totals.Delivers += 100; r.Totals.HistoryReads += 90 },
		"2.0 connections/s are refused":                   func(r *monitor.Report) { r.Totals.ConnectionsRefused += 2 },
		"clients get 2.0 errors/s":                        func(r *monitor.Report) { r.Totals.Errors += 2 },
		"the hypervisor takes":                            func(r *monitor.Report) { r.System.Steal += time.Second },
		"tasks waited for memory 50% of the last 10 s":    func(r *monitor.Report) { r.System.Pressure.Memory.Some10 = 0.5 },
		"tasks waited for processors 30% of the last":     func(r *monitor.Report) { r.System.Pressure.CPU.Some10 = 0.3 },
		"tasks waited for input and output 26% of the la": func(r *monitor.Report) { r.System.Pressure.IO.Some10 = 0.26 },
	} {
		a := busy(1)
		b := after(a, time.Second, 0, 0)
		b.Pools, b.Queues = append([]monitor.Pool(nil), a.Pools...), append([]monitor.Queue(nil), a.Queues...)
		b.Components = append([]monitor.Component(nil), a.Components...)
		b.System.Pressure = new(monitor.Pressure)
		if w := Between(a, b).Warnings; len(w) != 0 {
			t.Fatalf("a sound broker: %q", w)
		}
		change(b)
		if w := Between(a, b).Warnings; len(w) != 1 || !strings.Contains(w[0], text) {
			t.Errorf("%q, want one with %q", w, text)
		}
	}
}

// TestHostile: reports of nobody's broker give frames and rates all the same, of
// any size and without a control character.
func TestHostile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	evil := []string{"", "\x1b[2J\x1b]0;owned\a", "a\r\nb", "\u202egnp.exe", strings.Repeat("x", 100_000), "\xff\xfe", "e\u0301\u0301\u0301", "日本語のトピック", "\x9b31m", "👩‍👩‍👧‍👧"}
	word := func() string { return evil[rnd.IntN(len(evil))] }
	num := func() int64 {
		return []int64{0, 1, -1, math.MaxInt64, math.MinInt64, rnd.Int64(), -rnd.Int64(), int64(rnd.IntN(1000))}[rnd.IntN(8)]
	}
	d := func() time.Duration { return time.Duration(num()) }
	report := func() *monitor.Report {
		r := &monitor.Report{Version: word(), Node: word(), Engine: word(), Address: word(), Uptime: d(), Interval: d(), Sampled: d()}
		t := &r.Totals
		t.Connections, t.Producers, t.MessagesIn, t.Frames, t.Delivers, t.HistoryReads = num(), num(), uint64(num()), uint64(num()), uint64(num()), uint64(num())
		t.Topics, t.Partitions, t.CreditFreeBytes = int(num()), int(num()), num()
		r.Storage = monitor.Storage{FreeBytes: num(), TotalBytes: num(), FailedLogs: int(num()), Full: rnd.IntN(2) == 0}
		r.Process = monitor.Process{CPU: d(), RSSBytes: num(), FDs: int(num()), FDLimit: num(), HeapBytes: num(), HeapGoalBytes: num(), GCCPU: d(), MaxProcs: int(num())}
		r.System = monitor.System{Busy: d(), Idle: d(), IOWait: d(), Steal: d(), Load1: 1e300, MemoryBytes: num(), AvailableBytes: num(), SwapUsedBytes: num(),
			Disk:     &monitor.Disk{Device: word(), TotalBytes: num(), FreeBytes: num(), Busy: d(), ReadBytes: uint64(num())},
			Network:  &monitor.Network{BytesIn: uint64(num())},
			Cgroup:   &monitor.Cgroup{MemoryLimitBytes: num(), CPUs: -1e300, Throttled: d(), OOMKills: uint64(num())},
			Pressure: &monitor.Pressure{CPU: monitor.Stall{Some10: 1e300}, IO: monitor.Stall{Some10: -1}}}
		r.TopicsOmitted = int(num() % 1000)
		for range rnd.IntN(4) {
			r.Components = append(r.Components, monitor.Component{Name: word(), Reason: word()})
			r.Pools = append(r.Pools, monitor.Pool{Name: word(), LiveBytes: num(), LimitBytes: num(), Refused: uint64(num())})
			r.Queues = append(r.Queues, monitor.Queue{Name: word(), Depth: num(), Capacity: num(), Added: uint64(num())})
			r.Latencies = append(r.Latencies, monitor.Latency{Name: monitor.LatencyNames()[rnd.IntN(5)], Last: monitor.Quantiles{Count: uint64(num()), P50: d(), P99: d(), Max: d()}})
			r.Topics = append(r.Topics, monitor.Topic{Name: word(), Visibility: word(), Bytes: num(), MessagesStored: uint64(num()), PartitionCount: int(num()), Failed: int(num()),
				Partitions: []monitor.Partition{{Index: uint32(num()), End: num(), HWM: num(), Durable: num(), Failed: true, Corruptions: num()}}})
		}
		return r
	}
	for range 300 {
		v := view(rnd.IntN(250), rnd.IntN(70), report(), report(), report(), report())
		if rnd.IntN(2) == 0 {
			v.Lose(word(), d())
		}
		v.Order, v.Scroll, v.Help = Order(rnd.IntN(4)), rnd.IntN(9)-2, rnd.IntN(5) == 0
		checkFrame(t, v)
		if _, err := json.Marshal(&v.Rates); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Logf("%+v", v.Report)
			return
		}
	}
}

func TestSpark(t *testing.T) {
	var h History
	for i := range 100 {
		h.Add(&Rates{Uptime: time.Duration(i+1) * time.Second, Interval: time.Second, In: Flow{Messages: float64(i)}})
	}
	in := func(p *point) float64 { return p.in }
	// 12 spans of 10 s: [0 s, 10 s) to [90 s, 100 s), then the one that 100 s begins.
	values, most, covered := h.spark(12, 2*time.Minute, in)
	if covered != 2*time.Minute || most != 94.5 || !math.IsNaN(values[0]) || values[1] != 4.5 || values[10] != 94.5 || !math.IsNaN(values[11]) {
		t.Fatalf("%v %v %v", values, most, covered)
	}
	// One more point changes the last span only.
	h.Add(&Rates{Uptime: 101 * time.Second, Interval: time.Second, In: Flow{Messages: 7}})
	again, _, _ := h.spark(12, 2*time.Minute, in)
	for i := range 11 {
		if again[i] != values[i] && !math.IsNaN(values[i]) {
			t.Errorf("span %d went from %v to %v", i, values[i], again[i])
		}
	}
	if again[11] != 7 {
		t.Errorf("the last span: %v", again[11])
	}
	// A long pause is one average; a point longer than a span fills several.
	h.Add(&Rates{Uptime: 161 * time.Second, Interval: time.Minute, In: Flow{Messages: 3}})
	if v, _, covered := h.spark(4, time.Second, in); v[3] != 3 || covered != 4*time.Minute {
		t.Errorf("%v over %v", v, covered)
	}
	if v, _, _ := h.spark(200, 20*time.Second, in); len(v) != 200 {
		t.Errorf("%d values", len(v))
	}
	h.Add(&Rates{Restarted: true})
	if v, _, _ := h.spark(5, time.Minute, in); v != nil {
		t.Errorf("after a restart: %v", v)
	}
	for i := range 2 * historyMax {
		h.Add(&Rates{Uptime: time.Duration(i+1) * time.Second, Interval: time.Second})
	}
	if len(h.points) > historyMax {
		t.Errorf("%d points are kept", len(h.points))
	}
}

func TestGlyphs(t *testing.T) {
	g := ASCII()
	if got := g.spark([]float64{math.NaN(), 0, 1, 8, 4}, 8); got != " __#=" && got != " __#-" {
		t.Errorf("%q", got)
	}
	for share, want := range map[float64]string{0: "........", 0.001: "#.......", 0.5: "####....", 0.999: "#######.", 1: "########", 7: "########"} {
		if got := g.bar(share, 8).String(); got != want {
			t.Errorf("%v: %q, want %q", share, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range [][2]string{
		{number(0), "0"}, {number(0.04), "0.0"}, {number(9.94), "9.9"}, {number(9.96), "10"}, {number(9999), "9999"}, {number(9999.6), "10.0k"},
		{number(999_949), "999.9k"}, {number(999_951), "1.0M"}, {number(1e30), ">999P"}, {number(-1), "?"}, {number(math.NaN()), "?"},
		{whole(9999), "9999"}, {whole(10_000), "10.0k"}, {whole(-1), "?"},
		{size(0), "0 B"}, {size(1023), "1023 B"}, {size(1024), "1.0 KiB"}, {size(999 << 20), "999 MiB"}, {size(1000 << 20), "1.0 GiB"}, {size(math.MaxInt64), "8.0 EiB"}, {size(-1), "?"},
		{pair(12<<20, 64<<20), "12.0/64.0 MiB"}, {pair(12<<10, 64<<20), "12.0 KiB/64.0 MiB"},
		{latency(0), "0ns"}, {latency(87 * time.Microsecond), "87.0us"}, {latency(999_600), "1.00ms"}, {latency(1234 * time.Millisecond), "1.23s"}, {latency(2 * time.Hour), "2h00m"}, {latency(-1), "?"},
		{span(59 * time.Second), "59s"}, {span(61 * time.Second), "1m01s"}, {span(25 * time.Hour), "1d01h"}, {span(-1), "0s"},
		{percent(0), "0%"}, {percent(0.0123), "1.2%"}, {percent(0.456), "46%"}, {percent(-1), "?"},
		{count(1, "topic"), "1 topic"}, {count(2, "process"), "2 processes"},
		{Printable("orders-1.a_b"), "orders-1.a_b"}, {Printable("a\x1b[2Jb"), "a?[2Jb"}, {Printable("\u202ex"), "?x"}, {Printable("\xffx"), "?x"}, {Printable("Aufträge"), "Aufträge"},
	} {
		if c[0] != c[1] {
			t.Errorf("%q, want %q", c[0], c[1])
		}
	}
	if n := len(Printable(strings.Repeat("\x00", 1<<20))); n > textMax+3 {
		t.Errorf("%d bytes are kept", n)
	}
}

// TestJSON: the names of a line of --output json are kept.
func TestJSON(t *testing.T) {
	a := busy(1)
	b, err := json.Marshal(Between(a, after(a, time.Second, 6400, 6400)))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"time":"2026-03-04T12:00:01Z","node":"node-1","version":"0.1.0","uptime_ns":273601000000000,"interval_ns":1000000000,"sample_interval_ns":1000000000,"restarted":false,"ready":true,"warnings":[]`,
		`"in":{"messages_per_s":6400,"batches_per_s":100,"bytes_per_s":6592000}`, `"out":{`, `"stored":{`,
		`"latencies":[{"name":"produce_accepted","last":{"count":19500,`, `"process":{"cpus":0.012`, `"system":{"busy_share":0.6`,
		`"pools":[{"name":"receive"`, `"queues":[{"name":"history"`, `"topics":[{"name":"orders.000","stored":{"messages_per_s":3200`,
	} {
		if !strings.Contains(string(b), part) {
			t.Errorf("no %s in %s", part, b)
		}
	}
}

func TestStyled(t *testing.T) {
	l := Line{strong("a"), text("b"), {"c", Alarm}, faint("")}
	if got := l.Styled(&Dark); got != "\x1b[1ma\x1b[mb\x1b[1;7;38;5;215mc\x1b[m" {
		t.Errorf("%q", got)
	}
	if got := l.Styled(new(Theme)); got != "abc" {
		t.Errorf("%q", got)
	}
}
