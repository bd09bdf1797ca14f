package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/scenario"
)

// Agent runs shares of coordinators that know its token, one at a time. Its
// fields are not changed once Serve was called.
type Agent struct {
	Token   []byte
	Version string // of the program
	// Open opens the driver of that name.
	Open func(ctx context.Context, name string, o driver.Options) (driver.Driver, error)
	// Event is told what happens, in a line; safe for concurrent use. May be nil.
	Event func(string)

	clock pace.Clock
	busy  sync.Mutex // held by the connection that has a run
}

// Serve answers coordinators until ctx ends, and closes ln. It returns when all
// connections have ended. An error of ln is returned.
func (a *Agent) Serve(ctx context.Context, ln net.Listener) error {
	a.clock = pace.NewClock()
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	places := make(chan struct{}, connsMax)
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			ln.Close()
			return err
		}
		select {
		case places <- struct{}{}:
		default: // strangers must not take memory
			nc.Close()
			continue
		}
		serving.Go(func() {
			defer func() { <-places }()
			defer nc.Close()
			unhook := context.AfterFunc(ctx, func() { nc.Close() })
			defer unhook()
			if err := a.serve(ctx, nc); err != nil {
				a.event(fmt.Sprintf("%v: %v", nc.RemoteAddr(), err))
			}
		})
	}
}

func (a *Agent) event(s string) {
	if a.Event != nil {
		a.Event(s)
	}
}

// session is a coordinator's connection.
type session struct {
	*conn
	a      *Agent
	orders chan *frame // prepare and start, in this order; closed when the connection ends
	stop   context.CancelFunc
}

func (a *Agent) serve(ctx context.Context, nc net.Conn) error {
	c := &conn{c: nc, max: helloBytesMax}
	if err := c.admit(a.Token, a.Version); err != nil {
		return err
	}
	if !a.busy.TryLock() {
		c.write(&frame{Kind: kindRefused, Text: "the agent has a run already"})
		return errors.New("refused: busy")
	}
	release := sync.OnceFunc(a.busy.Unlock)
	defer release()
	a.event(fmt.Sprintf("%v: coordinator", nc.RemoteAddr()))

	c.max = orderBytesMax
	ctx, cancel := context.WithCancel(ctx)
	running, stop := context.WithCancel(ctx)
	s := &session{conn: c, a: a, orders: make(chan *frame, 2), stop: stop}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer nc.Close() // ends listen
	defer cancel()
	defer stop()
	var heard error
	ended := make(chan struct{})
	helpers.Go(func() { c.beat(ctx) })
	helpers.Go(func() {
		defer close(ended)
		heard = s.listen()
		close(s.orders)
		cancel()
	})

	res, late, err := s.run(running)
	release() // before the coordinator hears of it, who may come again
	if err != nil {
		c.write(&frame{Kind: kindFailed, Text: err.Error()})
		a.event("no result: " + err.Error())
	} else {
		if err := c.write(&frame{Kind: kindResult, Result: res, Late: late}); err != nil {
			return err
		}
		a.event(fmt.Sprintf("run %s: %d messages sent, %d delivered", res.RunID, res.Counts.Sent, res.Counts.Delivered))
	}
	<-ended // pings go on until the coordinator hangs up
	if heard != nil && res == nil {
		return heard
	}
	return nil
}

// listen takes frames until the connection ends, and answers pings at once.
func (s *session) listen() error {
	sent := 0
	for {
		f, err := s.read(time.Now().Add(frameTimeout))
		if err != nil {
			return err
		}
		switch f.Kind {
		case kindAlive:
		case kindPing:
			if err := s.write(&frame{Kind: kindPong, Clock: s.a.clock.Now()}); err != nil {
				return err
			}
		case kindStop:
			s.stop()
		case kindPrepare, kindStart:
			if want := [...]string{kindPrepare, kindStart, ""}[sent]; f.Kind != want {
				return fmt.Errorf("%s out of turn", f.Kind)
			}
			sent++
			s.orders <- f // has room for both
		default:
			return fmt.Errorf("unknown frame %.20q", f.Kind)
		}
	}
}

var errHungUp = errors.New("the coordinator hung up")

// run does what is ordered. late is how long after the agreed time it began.
func (s *session) run(ctx context.Context) (res *load.Result, late int64, err error) {
	f, ok := <-s.orders
	if !ok {
		return nil, 0, errHungUp
	}
	if f.Order == nil {
		return nil, 0, errors.New("prepare without an order")
	}
	r, end, err := s.a.prepare(ctx, f.Order, func(v load.Interval, h load.Histograms) {
		s.write(&frame{Kind: kindInterval, Interval: &interval{v, h}}) // a broken connection shows in listen
	})
	if err != nil {
		return nil, 0, err
	}
	defer end()
	if err := s.write(&frame{Kind: kindReady}); err != nil {
		r.Abandon(ctx)
		return nil, 0, err
	}
	if f, ok = <-s.orders; !ok || ctx.Err() != nil {
		r.Abandon(ctx)
		return nil, 0, errHungUp
	}
	begin := time.Now().Add(time.Duration(f.Clock - s.a.clock.Now()))
	wait := time.NewTimer(time.Until(begin) - executeAhead)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	r.StartAt(begin)
	if res, err = r.Execute(ctx); err != nil {
		return nil, 0, err
	}
	// The coordinator knows the scenario, and makes its own series.
	res.Resolved = ""
	for _, m := range []*load.Measured{res.Measured, res.Rejected} {
		if m != nil {
			m.Series = nil
		}
	}
	return res, max(0, int64(res.Began.Sub(begin))), nil
}

// corpusBytes is the pool of a generated payload, as in a run without agents.
const corpusBytes = 8 << 20

// prepare connects a run's clients; end closes the driver behind the run.
func (a *Agent) prepare(ctx context.Context, o *order, tell func(load.Interval, load.Histograms)) (r *load.Run, end func(), err error) {
	s, err := scenario.Parse("share", []byte(o.Scenario))
	if err != nil {
		return nil, nil, err
	}
	if err := readsFiles(s); err != nil {
		return nil, nil, err
	}
	cfg := load.Config{Scenario: s, RunID: o.RunID, Share: &o.Share, OnInterval: tell}
	if s.Payload.Source == "modules" {
		cfg.Corpus = corpus.FromModules(ctx)
	} else {
		// Never a file that happens to have the kind's name.
		f, err := corpus.Generate(s.Payload.Source, corpusBytes, s.Seed)
		if err != nil {
			return nil, nil, err
		}
		cfg.Corpus = []corpus.File{f}
	}
	if cfg.Driver, err = a.Open(ctx, o.Driver, driver.Options{Addr: o.Addr, Settings: o.Settings}); err != nil {
		return nil, nil, err
	}
	if r, err = load.New(ctx, cfg); err != nil {
		return nil, nil, errors.Join(err, cfg.Driver.Close())
	}
	return r, func() { cfg.Driver.Close() }, nil
}
