package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/portask/portask/loadgen/scenario"
)

// Stage is what there is to be broken.
type Stage struct {
	Proxy  *Proxy  // before the target; nil: its network cannot be broken
	Server *Server // nil: its process cannot be broken
	// Event, if not nil, is told what happens, a line each.
	Event func(string)
}

// Subject is the run that is to suffer: a load.Run.
type Subject interface {
	BeginFault(i int)
	EndFault(i int)
	HoldConsumers(n int)
	SampleTarget()
	SetTarget(pid int) error
}

// ErrServerEnded reports that the broker ended by itself.
var ErrServerEnded = errors.New("the broker ended by itself")

// NeedsProxy reports whether a scenario breaks the network, NeedsServer whether
// it breaks the target's process.
func NeedsProxy(s *scenario.Scenario) bool {
	return slices.ContainsFunc(s.Faults, func(f scenario.Fault) bool { return f.OfNetwork() })
}

// NeedsServer: see NeedsProxy.
func NeedsServer(s *scenario.Scenario) bool {
	return slices.ContainsFunc(s.Faults, func(f scenario.Fault) bool { return f.OfProcess() })
}

// Play makes the faults of s happen, each at its time from now on, and returns
// when the last one is over. When ctx ends before, the one that lasts is ended
// and the others do not begin; that is no error. Everything is whole again when
// it returns without one.
func (t *Stage) Play(ctx context.Context, s *scenario.Scenario, r Subject) error {
	began := time.Now()
	order := make([]int, len(s.Faults))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(s.Faults[a].At - s.Faults[b].At) })
	for _, i := range order {
		f := &s.Faults[i]
		if err := t.wait(ctx, time.Until(began.Add(f.At))); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := t.play(ctx, f, i, r); err != nil {
			return fmt.Errorf("fault %s: %w", f.Kind, err)
		}
	}
	// To its end the run needs its broker.
	if t.Server != nil {
		select {
		case <-ctx.Done():
		case <-t.Server.Ended():
			return ErrServerEnded
		}
	}
	return nil
}

// wait returns after d or when ctx ends; an error if the broker ends meanwhile.
func (t *Stage) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var ended <-chan struct{}
	if t.Server != nil {
		ended = t.Server.Ended()
	}
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-ended:
		return ErrServerEnded
	}
	return nil
}

// play is one fault.
func (t *Stage) play(ctx context.Context, f *scenario.Fault, i int, r Subject) error {
	switch {
	case f.OfNetwork() && t.Proxy == nil:
		return errors.New("there is no proxy before the target")
	case f.OfProcess() && t.Server == nil:
		return errors.New("the target was not started by loadgen")
	}
	lasts := func() {
		timer := time.NewTimer(f.For)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if f.OfProcess() {
		r.SampleTarget()
	}
	r.BeginFault(i)
	t.event("%s begins", f)
	var err error
	switch f.Kind {
	case scenario.SlowNetwork:
		t.Proxy.Shape(Network{Latency: f.Latency, Jitter: f.Jitter, Rate: f.Rate})
		lasts()
		t.Proxy.Shape(Network{})
	case scenario.Partition:
		t.Proxy.Partition(true)
		lasts()
		t.Proxy.Partition(false)
	case scenario.HalfOpen:
		end := t.Proxy.Silence()
		lasts()
		end()
	case scenario.Reset:
		t.Proxy.Refuse(true)
		lasts()
		t.Proxy.Refuse(false)
	case scenario.Freeze:
		if err = t.Server.broker.Freeze(); err == nil {
			lasts()
			err = t.Server.broker.Thaw()
		}
	case scenario.Kill:
		t.Server.Kill()
		lasts()
		err = t.again(ctx, r)
	case scenario.Restart:
		if err = t.Server.Stop(); err == nil {
			lasts()
			err = t.again(ctx, r)
		}
	case scenario.SlowConsumer:
		r.HoldConsumers(f.Consumers)
		lasts()
		r.HoldConsumers(0)
	default:
		err = errors.New("no such kind")
	}
	if err != nil {
		return err
	}
	r.EndFault(i)
	t.event("%s has ended", f)
	return nil
}

// again starts the broker, also if the run has ended: it is to be drained.
func (t *Stage) again(ctx context.Context, r Subject) error {
	began := time.Now()
	if err := t.Server.Again(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	t.event("process %d serves on the same data and port after %v", t.Server.PID(), time.Since(began).Round(time.Millisecond))
	return r.SetTarget(t.Server.PID())
}

func (t *Stage) event(format string, args ...any) {
	if t.Event != nil {
		t.Event(fmt.Sprintf(format, args...))
	}
}
