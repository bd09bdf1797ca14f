package load

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

// Messages belong to a fault from its beginning until their lane is on time
// again; of two faults, to the one that was not over.
func TestFaultsSeparateLatencies(t *testing.T) {
	tr, err := verify.New(verify.Options{Producers: 1, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	f := faults{tracker: tr}
	const ms = int64(time.Millisecond)
	f.prepare(2, 2, 50*time.Millisecond)
	took := func(lane int, intended, now int64, want int) {
		t.Helper()
		if got := f.delivered(lane, intended*ms, now*ms); got != want {
			t.Errorf("lane %d, due %d ms, delivered %d ms: fault %d, want %d", lane, intended, now, got, want)
		}
	}
	begin := func(i int, at int64) {
		f.all[i].before = tr.Mark()
		f.all[i].begin.Store(at * ms)
		f.any.Store(true)
	}
	took(0, 10, 12, -1) // before
	begin(0, 100)
	took(0, 99, 101, 0)  // in flight at the beginning
	took(0, 110, 112, 0) // the fault lasts: an early answer proves nothing
	f.all[0].end.Store(600 * ms)
	took(0, 95, 700, 0)
	took(0, 120, 700, 0)  // backlog
	took(0, 690, 720, -1) // 30 ms: on time again, and the first that is
	took(0, 300, 730, 0)  // backlog of before that
	took(0, 700, 990, -1) // late, but afterwards
	took(1, 600, 720, 0)  // the other partition is behind
	if f.all[0].over.Load() {
		t.Error("over with a partition behind")
	}
	if i := f.touched(1, 650*ms); i != 0 {
		t.Errorf("an answer for the partition behind: fault %d", i)
	}
	took(1, 900, 905, -1)
	if x := &f.all[0]; !x.over.Load() || x.last.Load() != 905*ms {
		t.Errorf("over %v at %d ms", x.over.Load(), x.last.Load()/ms)
	}
	begin(1, 1000)
	took(0, 1100, 1101, 1)
	took(1, 500, 1102, 0) // a straggler of the first
	f.all[1].end.Store(1200 * ms)
	took(0, 1199, 1220, -1)
	if i := f.touched(0, 1100*ms); i != 1 {
		t.Errorf("an answer for what was due before: fault %d", i)
	}
	if i := f.touched(0, 1300*ms); i != -1 {
		t.Errorf("an answer afterwards: fault %d", i)
	}
}

// A consumer that takes nothing for a while: what it should have got is late
// and in the fault, and nothing is lost. The other one's partitions recover at
// once.
func TestHeldConsumers(t *testing.T) {
	s := plan(t, "topics.0.partitions=2", "phases.0.duration=100ms", "phases.1.duration=900ms", "limits.drain=2s")
	s.Faults = []scenario.Fault{{Kind: scenario.SlowConsumer, At: 200 * time.Millisecond, For: 300 * time.Millisecond, Consumers: 1}}
	res := execute(t, s, loopback.Behaviour{}, func(c *Config) {
		c.Meanwhile = func(ctx context.Context, r *Run) error {
			at := time.NewTimer(200 * time.Millisecond)
			defer at.Stop()
			<-at.C
			r.BeginFault(0)
			r.HoldConsumers(1)
			at.Reset(300 * time.Millisecond)
			<-at.C
			r.HoldConsumers(0)
			r.EndFault(0)
			return nil
		}
	})
	if len(res.Violations) > 0 || len(res.Faults) != 1 {
		t.Fatalf("violations %v, faults %v", res.Violations, res.Faults)
	}
	f := res.Faults[0]
	if !f.Recovered || f.Kind != scenario.SlowConsumer || f.At < 0.19 || f.For < 0.29 || f.Of.Lost != 0 || f.Of.Messages < 300 || f.E2E.Count < 300 {
		t.Errorf("%+v", f)
	}
	if d := time.Duration(f.E2E.Max); d < 250*time.Millisecond {
		t.Errorf("the longest latency in it is %v, want about 300 ms", d)
	}
	// What it touched is not part of the phase.
	m := numbers(t, res)
	if n := m.Phases[1].Latency.E2E.Count; n+f.E2E.Count != 1800 {
		t.Errorf("%d latencies in the phase, %d in the fault", n, f.E2E.Count)
	}
	if !strings.Contains(f.String(), "0 lost") {
		t.Errorf("%q", f.String())
	}
}

// A fault that cannot be made ends the run without a result.
func TestMeanwhileFails(t *testing.T) {
	s := plan(t)
	s.Faults = []scenario.Fault{{Kind: scenario.Reset, At: 50 * time.Millisecond}}
	if _, err := New(t.Context(), Config{Scenario: s, Driver: loopback.Open(loopback.Behaviour{})}); err == nil {
		t.Error("faults that nothing makes happen were accepted")
	}
	broken := errors.New("broken")
	r, err := New(t.Context(), Config{Scenario: s, Driver: loopback.Open(loopback.Behaviour{}), Meanwhile: func(context.Context, *Run) error { return broken }})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := r.Execute(t.Context()); !errors.Is(err, broken) || res != nil {
		t.Errorf("%v, %v", res, err)
	}
}
