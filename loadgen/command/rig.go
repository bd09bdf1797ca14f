package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/fault"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// rig is a target ready to be loaded, with what the scenario's faults need: a
// broker of loadgen's own, a proxy before it. Its methods are for one goroutine.
type rig struct {
	driver   driver.Driver
	stage    fault.Stage
	addr     string // where clients connect: the target's, or the proxy's
	realTime bool
	pid      int // of the target's process, 0: not known
}

// rig opens the target. event is told what happens to it.
func (t *targetFlags) rig(ctx context.Context, p *Program, s *scenario.Scenario, event func(string)) (_ *rig, err error) {
	k, err := p.driver(t.driver)
	if err != nil {
		return nil, err
	}
	g := &rig{stage: fault.Stage{Event: event}, pid: t.pid, realTime: t.realTime}
	defer func() {
		if err != nil {
			g.close(nil)
		}
	}()
	addr := t.addr
	if addr == "" {
		addr = k.Addr
	}
	switch {
	case t.broker != "":
		if k.Name != portask.Kind.Name || t.addr != "" || t.pid != 0 {
			return nil, fmt.Errorf("--start-broker starts the %s to be driven: it excludes --addr, --pid and other drivers", portask.Kind.Name)
		}
		if g.stage.Server, err = fault.StartServer(ctx, t.broker, "", t.brokerArgs...); err != nil {
			return nil, err
		}
		addr, g.pid = g.stage.Server.Addr(), g.stage.Server.PID()
	case fault.NeedsServer(s):
		return nil, errors.New("the scenario stops or kills the target's process, which must be loadgen's own: want --start-broker PATH")
	}
	if fault.NeedsProxy(s) {
		if g.stage.Proxy, err = fault.Listen(addr, fault.ProxyOptions{Seed: s.Seed}); err != nil {
			return nil, err
		}
		addr = g.stage.Proxy.Addr()
	}
	d, err := t.open(ctx, k, addr)
	if err != nil {
		return nil, err
	}
	g.driver, g.addr = d, addr
	return g, nil
}

// admin is the admin listener to be asked: the one that was named, or that of a
// broker of loadgen's own.
func (g *rig) admin(named string) (string, error) {
	if named != "" || g.stage.Server == nil {
		return named, nil
	}
	return g.stage.Server.Admin()
}

// config is what a run of s needs of the rig.
func (g *rig) config(s *scenario.Scenario) load.Config {
	c := load.Config{Scenario: s, Driver: g.driver, TargetPID: g.pid, RealTime: g.realTime}
	if len(s.Faults) > 0 || g.stage.Server != nil {
		c.Meanwhile = func(ctx context.Context, r *load.Run) error { return g.stage.Play(ctx, s, r) }
	}
	return c
}

// close ends what rig opened. The data and the log of a broker that ended by
// itself, which is what err then says, are kept.
func (g *rig) close(err error) error {
	var errs []error
	if g.driver != nil {
		errs = append(errs, g.driver.Close())
	}
	if g.stage.Proxy != nil {
		g.stage.Proxy.Close()
	}
	if b := g.stage.Server; b != nil {
		keep := errors.Is(err, fault.ErrServerEnded)
		if keep && g.stage.Event != nil {
			g.stage.Event("the broker's log and data are kept in " + b.Dir())
		}
		if endErr := b.End(keep); !keep {
			errs = append(errs, endErr)
		}
	}
	return errors.Join(errs...)
}

// events writes lines that stay, unless quiet.
func events(w io.Writer, quiet bool) (p *progress, event func(string)) {
	p = newProgress(w)
	return p, func(s string) {
		if !quiet {
			p.event(s)
		}
	}
}
