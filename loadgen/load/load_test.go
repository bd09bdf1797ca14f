package load

import (
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/verify"
)

func source(t *testing.T) *payload.Source {
	t.Helper()
	s, err := payload.New(1, 1, 100, 100, [][]byte{[]byte("some bytes")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConfigDefaultsAndAllViolations(t *testing.T) {
	c := Config{Addr: "x", Topic: "t", Source: source(t)}
	if err := c.complete(); err != nil {
		t.Fatal(err)
	}
	if c.Partitions != 4 || c.Rate != 10_000 || c.Mode != Open || c.Warm != time.Second || c.InFlight != 4096 {
		t.Errorf("defaults %+v", c)
	}
	short := Config{Addr: "x", Topic: "t", Source: source(t), Duration: time.Second}
	if err := short.complete(); err != nil || short.Warm != 500*time.Millisecond {
		t.Errorf("warm-up of a second-long run %v, %v", short.Warm, err)
	}
	bad := Config{Partitions: -1, Producers: 5000, Consumers: 9, Mode: "sideways", Arrival: "late", Rate: math.NaN(), Duration: time.Millisecond,
		Warm: time.Hour, Drain: -1, Ack: message.AckLevel(9), InFlight: -1, Quantum: time.Hour}
	err := bad.complete()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"no address", "no topic", "no payloads", "-1 partitions", "5000 producers", "9 consumers", `mode "sideways"`,
		`arrival "late"`, "rate NaN", "duration 1ms", "warm-up", "drain", "ack level", "-1 messages in flight", "quantum"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q:\n%v", want, err)
		}
	}
}

func TestRecorder(t *testing.T) {
	r := newRecorder()
	r.record(-5) // a clock that went back must not vanish
	r.record(int64(time.Hour))
	r.record(int64(time.Millisecond))
	h := pace.NewHistogram()
	r.drainTo(h)
	if h.TotalCount() != 3 {
		t.Errorf("interval of %d values, want 3", h.TotalCount())
	}
	h.Reset()
	r.record(int64(time.Second))
	r.drainTo(h)
	if h.TotalCount() != 1 {
		t.Errorf("next interval of %d values, want 1", h.TotalCount())
	}
	q := quantiles(merged([]*recorder{r, nil, newRecorder()}))
	if q.Count != 4 || q.Max < int64(9*time.Minute) || q.P50 < int64(900*time.Microsecond) || q.P50 > int64(1100*time.Microsecond) {
		t.Errorf("quantiles %+v", q)
	}
}

func valid() *Result {
	return &Result{
		Mode: Open, Arrival: Constant, Ack: "durable", Complete: true, Offered: 1000, Sent: 999,
		E2E: Quantiles{P99: 10_000_000}, AckLatency: Quantiles{P99: 8_000_000}, Lag: Quantiles{P99: 700_000},
		Counts: verify.Counts{Sent: 10, Acked: 10, Delivered: 10},
	}
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Result)
		status int
		says   string
	}{
		{"all well", func(*Result) {}, 0, ""},
		{"lost", func(r *Result) { r.Counts.Lost = 3 }, 4, "3 acknowledged and not delivered"},
		{"lost where nothing is promised", func(r *Result) { r.Counts.Lost = 3; r.Ack = "none" }, 0, ""},
		{"duplicated", func(r *Result) { r.Counts.Duplicated = 1 }, 4, "1 delivered more than once"},
		{"reordered", func(r *Result) { r.Counts.Reordered = 1 }, 4, "out of order"},
		{"corrupt", func(r *Result) { r.Counts.Corrupt = 1 }, 4, "corrupt"},
		{"phantom", func(r *Result) { r.Counts.Phantom = 1 }, 4, "never sent"},
		{"misplaced", func(r *Result) { r.Counts.Misplaced = 1 }, 4, "another partition"},
		{"offset used again", func(r *Result) { r.OffsetsBack = 1 }, 4, "offset already used"},
		{"other producers' messages", func(r *Result) { r.Counts.Foreign = 100 }, 0, ""},
		{"delivered without an answer", func(r *Result) { r.Counts.UnackedDelivered = 5 }, 0, ""},
		{"lag", func(r *Result) { r.Lag.P99 = 900_000 }, 3, "dispatch lag"},
		{"lag in closed mode", func(r *Result) { r.Lag.P99 = 900_000; r.Mode = Closed }, 0, ""},
		{"rate missed", func(r *Result) { r.Sent = 990 }, 3, "990 messages a second were sent, 1000 offered"},
		{"rate of a random schedule", func(r *Result) { r.Sent = 990; r.Arrival = Poisson }, 0, ""},
		{"generator", func(r *Result) { r.Generator = 0.9 }, 3, "90 % of the processors"},
		{"interrupted", func(r *Result) { r.Interrupted = true }, 3, "interrupted"},
		{"not drained", func(r *Result) { r.Complete = false; r.Counts.Unanswered = 7 }, 3, "7 messages without an answer"},
		{"violation before validity", func(r *Result) { r.Counts.Corrupt = 1; r.Sent = 1 }, 4, "corrupt"},
	} {
		r := valid()
		tt.change(r)
		r.judge()
		all := strings.Join(slices.Concat(r.Violations, r.Invalid), "; ")
		if got := r.ExitStatus(); got != tt.status || !strings.Contains(all, tt.says) || (tt.status == 0) != (all == "") {
			t.Errorf("%s: status %d (%s), want %d with %q", tt.name, got, all, tt.status, tt.says)
		}
	}
}

func TestOutageSeparatesLatencies(t *testing.T) {
	o := outage{all: newRecorder(), caught: make([]atomic.Int64, 2)}
	const ms = int64(time.Millisecond)
	took := func(partition uint32, intended, now int64, want bool) {
		t.Helper()
		if got := o.took(partition, intended*ms, now*ms); got != want {
			t.Errorf("partition %d, due %d ms, delivered %d ms: in the outage = %v, want %v", partition, intended, now, got, want)
		}
	}
	took(0, 10, 12, false) // before
	if o.result() != nil {
		t.Error("a result without an outage")
	}
	o.begin.Store(100 * ms)
	took(0, 99, 101, true)  // in flight at the kill
	took(0, 110, 112, true) // the broker is not up: an early answer proves nothing
	o.up.Store(true)
	took(0, 95, 700, true)
	took(0, 120, 700, true)  // backlog
	took(0, 690, 720, false) // 30 ms: on time again, and the first that is
	took(0, 300, 730, true)  // backlog of before that
	took(0, 700, 990, false) // late, but afterwards: that is no longer the outage
	took(1, 600, 720, true)  // the other partition is behind
	if r := o.result(); r.Seconds != 0 {
		t.Errorf("over after %v s with a partition behind", r.Seconds)
	}
	took(1, 900, 905, false)
	if r := o.result(); r.Seconds != 0.8 || r.Delay.Count != 6 {
		t.Errorf("result %+v, want 0.8 s and 6 messages", r)
	}
}

func TestTargetAcrossARestart(t *testing.T) {
	r := &Run{}
	if err := r.SetTarget(os.Getpid()); err == nil {
		t.Error("a target out of nowhere was accepted")
	}
	var err error
	if r.target, err = newTarget(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	r.target.base -= time.Second // as if a second had been spent
	r.SampleTarget()
	if err := r.SetTarget(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	before := r.target.use(1)
	if before.CPUSeconds < 1 || before.CPUSeconds > 1.5 {
		t.Errorf("after the restart %v s, want the old process's second", before.CPUSeconds)
	}
	r.SampleTarget()
	if u := r.target.use(1_000_000); u.CPUSeconds <= before.CPUSeconds || u.CPUPerMillion != u.CPUSeconds || u.RSSBytes == 0 {
		t.Errorf("use %+v, want more than %v s", u, before.CPUSeconds)
	}
	if (*target)(nil).use(1) != nil {
		t.Error("use of no target")
	}
}
