package fault

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// shrink makes a scenario n times shorter, with less to send.
func shrink(t *testing.T, s *scenario.Scenario, n time.Duration) *scenario.Scenario {
	t.Helper()
	for i := range s.Phases {
		s.Phases[i].Duration /= n
		s.Phases[i].Rate /= 2
	}
	for i := range s.Faults {
		s.Faults[i].At /= n
		s.Faults[i].For /= n
		s.Faults[i].Rate /= 2
	}
	s.Limits.OnTime = 200 * time.Millisecond // of a machine that does other things too
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

// play runs a scenario against a broker of its own.
func play(t *testing.T, s *scenario.Scenario) (*load.Result, *Stage) {
	t.Helper()
	b, err := StartServer(t.Context(), launchtest.Binary(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said []string
	stage := &Stage{Server: b, Event: func(line string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, line)
	}}
	defer func() {
		if err := b.End(true); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s", strings.Join(said, "\n"))
		}
	}()
	addr := b.Addr()
	if NeedsProxy(s) {
		if stage.Proxy, err = Listen(addr, ProxyOptions{Seed: s.Seed}); err != nil {
			t.Fatal(err)
		}
		defer stage.Proxy.Close()
		addr = stage.Proxy.Addr()
	}
	// Half-open connections are found by three heartbeats.
	d, err := portask.Open(t.Context(), addr, client.WithHeartbeat(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, err := load.New(t.Context(), load.Config{
		Scenario: s, Driver: d, TargetPID: b.PID(),
		Meanwhile: func(ctx context.Context, r *load.Run) error { return stage.Play(ctx, s, r) },
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Execute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(said) < 2*len(s.Faults) {
		t.Errorf("%d events of %d faults", len(said), len(s.Faults))
	}
	return res, stage
}

// Every shipped scenario with faults, small, against a real broker: nothing is
// lost, and every partition recovers.
func TestShippedScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("starts brokers")
	}
	ran := 0
	for _, name := range scenario.Shipped() {
		s, err := scenario.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Faults) == 0 {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			res, _ := play(t, shrink(t, s, 8))
			t.Logf("%d sent, %d acknowledged, %d retries", res.Counts.Sent, res.Counts.Acked, res.Wire.Retries)
			for _, f := range res.Faults {
				t.Log(f.String())
			}
			for _, p := range res.Violations {
				t.Error(p)
			}
			c := res.Counts
			if !res.Complete || c.Sent < 3000 || c.Delivered < c.Acked || len(res.Faults) != len(s.Faults) {
				t.Fatalf("complete %v, counts %+v, %d faults; errors %v", res.Complete, c, len(res.Faults), res.Errors)
			}
			// A generator that was itself so late could not have been on time.
			m := cmp.Or(res.Measured, res.Rejected)
			slow := m.Total.Latency.Lag.Max > int64(s.Limits.OnTime/2)
			for i, f := range res.Faults {
				want := s.Faults[i].For.Seconds()
				// How late a busy machine is, is no matter; it is never early.
				if f.Kind != s.Faults[i].Kind || f.For < want*0.95 || f.At < s.Faults[i].At.Seconds()-0.01 || !f.Recovered && !slow || f.Recovery < 0 || f.Of.Messages == 0 || f.Of.Messages > c.Sent || f.Of.Lost != 0 {
					t.Errorf("fault %d, which should last %.2f s: %+v", i, want, f)
				}
				// While nothing can be answered, what is due waits to its end.
				if k := f.Kind; k == scenario.Partition || k == scenario.Freeze || k == scenario.Kill {
					if longest := time.Duration(f.E2E.Max).Seconds(); longest < 0.9*f.For {
						t.Errorf("%s of %.2f s, but nothing waited for more than %.2f s", k, f.For, longest)
					}
				}
			}
		})
	}
	if ran < 6 {
		t.Errorf("%d scenarios with faults", ran)
	}
}

// still is a subject to which nothing happens.
type still struct{ held []int }

func (*still) BeginFault(int)          {}
func (*still) EndFault(int)            {}
func (s *still) HoldConsumers(n int)   { s.held = append(s.held, n) }
func (*still) SampleTarget()           {}
func (*still) SetTarget(pid int) error { return nil }

// When the run ends early, the fault that lasts is ended and the rest is left.
func TestPlayEndsWithTheRun(t *testing.T) {
	s := scenario.Default()
	s.Phases[1].Duration = time.Hour
	s.Faults = []scenario.Fault{
		{Kind: scenario.SlowConsumer, At: time.Minute, For: time.Second, Consumers: 2},
		{Kind: scenario.SlowConsumer, At: 0, For: 30 * time.Second, Consumers: 1},
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var x still
	err := (&Stage{Event: func(string) { cancel() }}).Play(ctx, s, &x)
	if err != nil || len(x.held) != 2 || x.held[0] != 1 || x.held[1] != 0 {
		t.Errorf("held %v, %v", x.held, err)
	}
}

// What cannot be broken is an error, not a fault that does not happen.
func TestPlayNeedsItsThings(t *testing.T) {
	for _, kind := range scenario.FaultKinds {
		s := scenario.Default()
		s.Faults = []scenario.Fault{{Kind: kind, For: time.Millisecond, Latency: 1, Consumers: 1}}
		err := (&Stage{}).Play(t.Context(), s, &still{})
		if (err != nil) != (kind != scenario.SlowConsumer) {
			t.Errorf("%s: %v", kind, err)
		}
		if NeedsProxy(s) && NeedsServer(s) {
			t.Errorf("%s needs both", kind)
		}
	}
}

// A broker that dies by itself ends the run, and is not taken for a fault.
func TestServerThatEnds(t *testing.T) {
	b, err := StartServer(t.Context(), launchtest.Binary(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer b.End(true)
	b.Kill()
	s := scenario.Default()
	if err := (&Stage{Server: b}).Play(t.Context(), s, &still{}); !errors.Is(err, ErrServerEnded) {
		t.Errorf("%v", err)
	}
	if _, err := StartServer(t.Context(), "/nonexistent/portask", ""); err == nil {
		t.Error("started out of nothing")
	}
}
