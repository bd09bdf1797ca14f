package evidence

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker is an admin listener of known behaviour: each answer of /stats is a
// second later than the one before, and tells of half a processor, 10 syncs and
// 1 MB in a second.
type broker struct {
	mu     sync.Mutex
	asked  int
	busy   int // profiles to refuse first
	got    []string
	answer map[string]string // by path, instead
	status map[string]int
}

func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, r.URL.String())
	if n := b.status[r.URL.Path]; n != 0 {
		http.Error(w, "no\nsuch thing", n)
		return
	}
	if text, ok := b.answer[r.URL.Path]; ok {
		_, _ = io.WriteString(w, text)
		return
	}
	switch r.URL.Path {
	case "/stats":
		n := b.asked
		b.asked++
		s := map[string]any{
			"version": "1.2", "go": "go9", "engine": "disklog", "uptime_ns": int64(n+5) * 1e9, "sampled_ns": int64(n+5) * 1e9,
			"totals":    map[string]any{"socket_bytes_in_total": 1_000_000 * n, "messages_in_total": 100 * n, "batches_in_total": 10 * n},
			"storage":   map[string]any{"syncs_total": 10 * n},
			"latencies": []any{map[string]any{"name": "sync", "last": map[string]any{"count": 1, "p99_ns": 77}, "total": map[string]any{"count": 9, "p99_ns": 88, "p999_ns": 99}}},
			"queues":    []any{map[string]any{"name": "a", "depth": 3, "refused_total": n}, map[string]any{"name": "b", "depth": 4}},
			"process":   map[string]any{"cpu_ns_total": int64(n) * 5e8, "rss_bytes": 1000 + n, "goroutines": 12, "heap_bytes": 500},
			"system":    map[string]any{"busy_ns_total": int64(n) * 1e9, "idle_ns_total": int64(n) * 1e9, "disk": map[string]any{"write_bytes_total": 2_000_000 * n}},
			"unknown":   "field",
		}
		_ = json.NewEncoder(w).Encode(s)
	case "/debug/pprof/profile":
		if b.busy > 0 {
			b.busy--
			http.Error(w, "another one", http.StatusTooManyRequests)
			return
		}
		fallthrough
	default:
		fmt.Fprintf(w, "answer of %s", r.URL.Path)
	}
}

func start(t *testing.T, b *broker, o Options) *Collector {
	t.Helper()
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	o.Admin = s.URL
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// until waits until ok holds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not: %s", what)
		}
	}
}

func tested(t *testing.T) *scenario.Scenario {
	s, err := scenario.Parse("test", []byte(`
version: 1
topics: [{name: a}]
phases:
  - {name: warm-up, duration: 2s, measured: false, rate: 100}
  - {name: main, duration: 8s, rate: 5000}
objectives:
  - {metric: e2e_p99, at_most: 10ms}
  - {metric: ack_p50, at_most: 1ms, phase: main}
  - {metric: delivered_rate, at_least: 100}
`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func interval(end float64, phase string, p99 time.Duration) load.Interval {
	v := load.Interval{Start: end - 1, End: end, Phase: phase}
	v.Latency.E2E.P99 = int64(p99)
	return v
}

func TestCollector(t *testing.T) {
	b := &broker{busy: 2}
	dir := filepath.Join(t.TempDir(), "evidence")
	c := start(t, b, Options{Dir: dir, Scenario: tested(t), Profile: time.Second, every: 5 * time.Millisecond})
	if c.profileAt != 4 || c.profileFor != time.Second {
		t.Errorf("profile of %v at %v s, want at a quarter of the measured phase", c.profileFor, c.profileAt)
	}
	began := time.Now()
	until(t, "samples", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.e.Samples) > 3 })
	c.Interval(interval(1, "warm-up", time.Second)) // not measured: no breach
	c.Interval(interval(3, "main", 9*time.Millisecond))
	for i := range 30 { // a breach each second, a trace each ten
		c.Interval(interval(float64(4+i), "main", 11*time.Millisecond))
	}
	c.Interval(interval(40, "", time.Second)) // the drain
	e := c.Stop(began)

	if e.Version != "1.2" || e.Engine != "disklog" || e.Go != "go9" || len(e.Notes) > 0 {
		t.Errorf("%q %q %q, notes %q", e.Version, e.Engine, e.Go, e.Notes)
	}
	s := e.Samples[len(e.Samples)-1]
	if s.CPUs != 0.5 || s.RSSBytes < 1000 || s.HeapBytes != 500 || s.Goroutines != 12 || s.DiskWrite != 2_000_000 || s.HostBusy != 0.5 || s.Queued != 7 || s.LatencyP99["sync"] != 77 {
		t.Errorf("sample %+v", s)
	}
	if s.NetIn <= 1_000_000 || s.Syncs <= 10 { // over the wall's time, which is milliseconds here
		t.Errorf("rates %v, %v", s.NetIn, s.Syncs)
	}
	if e.Samples[0].At > s.At || s.At > 30 {
		t.Errorf("times %v to %v", e.Samples[0].At, s.At)
	}
	if x := e.Totals; x == nil || x.Messages == 0 || x.Messages != 10*x.Batches || x.CPUSeconds != float64(x.Messages)/200 || x.Refused != x.Messages/100 {
		t.Errorf("totals %+v", x)
	}
	if len(e.Latencies) != 1 || e.Latencies[0] != (Latency{Name: "sync", Count: 9, P99: 88, P999: 99}) {
		t.Errorf("latencies %+v", e.Latencies)
	}
	if e.BreachCount != 30 || len(e.Breaches) != breachesMax || e.Breaches[0] != (Breach{At: 4, Metric: "e2e_p99", Got: 11e6, Want: 10e6}) {
		t.Errorf("%d breaches, %+v", e.BreachCount, e.Breaches)
	}
	var names []string
	for _, f := range e.Files {
		names = append(names, f.Name)
		b, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil || int64(len(b)) != f.Bytes || f.Until < f.At {
			t.Errorf("%+v: %d bytes, %v", f, len(b), err)
		}
	}
	slices.Sort(names)
	want := "block.pb.gz breach-1.trace breach-2.trace breach-3.trace cpu.pb.gz goroutine.pb.gz heap.pb.gz metrics-after.txt metrics-before.txt mutex.pb.gz stats-after.json stats-before.json"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("files %s\nwant  %s", got, want)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".part-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if !slices.Contains(b.got, "/debug/pprof/mutex?seconds=1") {
		t.Errorf("asked for %v", b.got)
	}
}

// Nothing that fails here fails a run: it is a note.
func TestFailuresAreNotes(t *testing.T) {
	b := &broker{
		answer: map[string]string{"/stats": `{"version": 7}`, "/debug/pprof/heap": strings.Repeat("x", profileBytes+1)},
		status: map[string]int{"/debug/flight": 404, "/debug/pprof/profile": 500},
	}
	dir := t.TempDir()
	c := start(t, b, Options{Dir: dir, Scenario: tested(t), Profile: time.Second, PID: 1 << 30, every: time.Millisecond})
	c.Interval(interval(5, "main", time.Second))
	e := c.Stop(time.Now())
	notes := strings.Join(e.Notes, "\n")
	for _, want := range []string{"process 1073741824", "GET /stats: json", "cpu.pb.gz: GET /debug/pprof/profile?seconds=1: 500 Internal Server Error: no such thing", "breach-1.trace: GET /debug/flight: 404", "heap.pb.gz: GET /debug/pprof/heap: more than"} {
		if strings.Count(notes, want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, notes)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "heap.pb.gz")); err == nil {
		t.Error("a part of the heap profile was kept")
	}
	if len(e.Samples) > 0 || e.Totals != nil {
		t.Errorf("%+v", e)
	}
	for _, addr := range []string{"", "ftp://x", "http://", "http://x?y=1", "http://u:p@x", "http://a b"} {
		if _, err := newAdmin(addr); err == nil {
			t.Errorf("address %q was accepted", addr)
		}
	}
	if _, err := Start(t.Context(), Options{Admin: "x", Dir: filepath.Join(dir, "heap.pb.gz\x00")}); err == nil {
		t.Error("a directory that cannot be made was accepted")
	}
}

// A broker that was started again is found where it is now.
func TestBrokerElsewhere(t *testing.T) {
	gone := httptest.NewServer(&broker{})
	next := httptest.NewServer(&broker{})
	defer next.Close()
	c, err := Start(t.Context(), Options{Admin: gone.URL, Find: func() string { return next.URL }, every: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	c.mu.Lock()
	before := len(c.e.Samples)
	c.mu.Unlock()
	until(t, "samples of the next one", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.e.Samples) > before+5 && c.admin.at() == next.URL
	})
	if e := c.Stop(time.Now()); len(e.Notes) == 0 {
		t.Error("the gap is not noted")
	}
}

// The target's process, without its admin listener.
func TestProcess(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, err := Start(t.Context(), Options{PID: os.Getpid(), every: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "samples", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.e.Samples) > 2 })
	e := c.Stop(time.Now())
	s := e.Samples[1]
	if s.CPUs <= 0 || s.RSSBytes <= 0 || len(e.Notes) > 0 || len(e.Files) > 0 {
		t.Errorf("%+v, notes %q", s, e.Notes)
	}
}

func TestSamplesAreBounded(t *testing.T) {
	c := &Collector{}
	for i := range 5 {
		c.e.Samples = append(c.e.Samples, Sample{CPUs: float64(i), seconds: 1, RSSBytes: int64(i), LatencyP99: map[string]int64{"a": int64(10 - i)}})
		c.wall = append(c.wall, time.Unix(int64(i), 0))
	}
	c.e.Samples[1].seconds = 3
	c.thin()
	if len(c.e.Samples) != 3 || len(c.wall) != 3 || c.wall[0].Unix() != 1 || c.wall[2].Unix() != 4 {
		t.Fatalf("%d samples, %v", len(c.e.Samples), c.wall)
	}
	if s := c.e.Samples[0]; s.CPUs != 0.75 || s.seconds != 4 || s.RSSBytes != 1 || s.LatencyP99["a"] != 10 {
		t.Errorf("merged to %+v", s)
	}
}

// The broker's figures of its process are a second old at most: an answer
// without newer ones does not mean that it used no processor.
func TestNoNewFiguresAreNotZero(t *testing.T) {
	a, b := &stats{Uptime: 1e9, Sampled: 1e9}, &stats{Uptime: 2e9, Sampled: 2e9}
	b.Process.CPU = 3e8
	var s, next Sample
	s.fromStats(a, b, time.Second, &Sample{})
	next.fromStats(b, b, time.Second, &s)
	if s.CPUs != 0.3 || next.CPUs != 0.3 {
		t.Errorf("%v, then %v", s.CPUs, next.CPUs)
	}
}

// Profiles are taken where nothing is broken on purpose.
func TestProfileIsApartFromFaults(t *testing.T) {
	s := tested(t)
	for _, tt := range []struct {
		faults []scenario.Fault
		at     float64
		length time.Duration
	}{
		{nil, 4, 2 * time.Second},
		{[]scenario.Fault{{At: 3 * time.Second, For: time.Second}}, 7, time.Second},       // until 4 s, and 2 s to recover
		{[]scenario.Fault{{At: 8 * time.Second, For: 2 * time.Second}}, 3.5, time.Second}, // from 2 s to 8 s
		{[]scenario.Fault{{At: 9 * time.Second}, {At: 4 * time.Second}}, -1, 0},
		{[]scenario.Fault{{At: 2 * time.Second, For: 8 * time.Second}}, -1, 0},
	} {
		s.Faults = tt.faults
		c := &Collector{o: Options{Scenario: s}, profileAt: -1}
		c.plan()
		if c.profileAt != tt.at || c.profileFor != tt.length {
			t.Errorf("%v: %v at %v s, want %v at %v s", tt.faults, c.profileFor, c.profileAt, tt.length, tt.at)
		}
	}
}

func TestRestartedBrokerIsNotANegativeRate(t *testing.T) {
	a, b := &stats{Uptime: time.Hour}, &stats{Uptime: time.Second}
	if totals(a, b) != nil || totals(nil, b) != nil {
		t.Error("totals over two processes")
	}
	if per(5, 9, 1) != 0 || per(9, 5, 0) != 0 || per(9, 5, 2) != 2 {
		t.Error("rate of a counter")
	}
}

func TestEnvironment(t *testing.T) {
	e := Describe("v1")
	if e.Loadgen != "v1" || e.MaxProcs < 1 || e.Processors < 1 || e.MemoryBytes < 1<<20 || e.Go == "" || e.CPU == "" {
		t.Errorf("%+v", e)
	}
	e.files(fstest.MapFS{
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":            {Data: []byte("performance\n")},
		"sys/devices/system/clocksource/clocksource0/current_clocksource": {Data: []byte("tsc\n")},
		"sys/kernel/mm/transparent_hugepage/enabled":                      {Data: []byte("always [madvise] never\n")},
		"proc/cpuinfo":                {Data: []byte("processor : 0\nflags : fpu hypervisor sse\n")},
		"sys/class/dmi/id/sys_vendor": {Data: []byte("QEMU\n")},
	})
	if e.Governor != "performance" || e.ClockSource != "tsc" || e.HugePages != "madvise" || e.Virtual != "QEMU" {
		t.Errorf("%+v", e)
	}
	if e.files(fstest.MapFS{}); e.Governor+e.Virtual+e.HugePages != "" {
		t.Errorf("%+v", e)
	}
}

func TestDataOf(t *testing.T) {
	root := t.TempDir()
	fd := filepath.Join(root, "proc/7/fd")
	if err := os.MkdirAll(fd, 0o777); err != nil {
		t.Fatal(err)
	}
	for i, to := range []string{"/dev/null", "socket:[12]", "/data/p-1/000.log", "/data/p-0/000.log", "/data/p-1/001.log", "/x/y"} {
		if err := os.Symlink(to, filepath.Join(fd, fmt.Sprint(i))); err != nil {
			t.Skip(err)
		}
	}
	if got := dataOf(os.DirFS(root), 7); got != "/data/p-1" {
		t.Errorf("%q", got)
	}
	if got := dataOf(os.DirFS(root), 8); got != "" {
		t.Errorf("%q", got)
	}
}

func FuzzStats(f *testing.F) {
	f.Add([]byte(`{"uptime_ns": 5, "latencies": [{"name": "a", "last": {"count": 1}}], "queues": [{"depth": -1}], "system": {"disk": {}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStats(b)
		if err != nil {
			return
		}
		var x Sample
		x.fromStats(s, s, time.Second, &Sample{})
		if x.CPUs < 0 || x.NetIn < 0 || len(x.LatencyP99) > latenciesMax {
			t.Errorf("%+v", x)
		}
	})
}
