package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/scenario"
)

// Options of a shared run.
type Options struct {
	Agents   []string // host:port of each
	Token    []byte
	Scenario *scenario.Scenario
	// Driver makes and removes the topics; it is not closed. Agents open the same
	// one with Target, whose address must be good where they are.
	Driver driver.Driver
	Target driver.Options
	Keep   bool // the topics

	// As load.Config's; intervals are those of all agents together. Called by
	// one goroutine.
	Progress   func(load.Snapshot)
	OnInterval func(load.Interval, load.Histograms)
	// Event is told what happens, in a line; safe for concurrent use. May be nil.
	Event func(string)
}

// member is an agent as its coordinator sees it.
type member struct {
	*conn
	load.Agent
	share  *scenario.Scenario
	res    *load.Result
	failed error // why there is no result
	clock  bound // before the run
}

// bound is what is known of a clock: it is offset ahead of the coordinator's, or
// at most err more or less.
type bound struct{ offset, err int64 }

// fleet is a run.
type fleet struct {
	o       Options
	runID   uint64
	clock   pace.Clock
	members []*member
	topics  []driver.Topic
	made    []string // topics to be removed
}

// Run shares the scenario out to the agents, begins them together and returns
// what came of it. If ctx ends early, agents end early and the result says so.
// An agent that is lost once they have begun makes the result invalid; before,
// it is an error, which names it.
func Run(ctx context.Context, o Options) (_ *load.Result, err error) {
	for i, a := range o.Agents {
		if slices.Contains(o.Agents[:i], a) {
			return nil, fmt.Errorf("agent %s is named twice", a)
		}
	}
	shares, err := Split(o.Scenario, len(o.Agents))
	if err != nil {
		return nil, err
	}
	f := &fleet{o: o, runID: rand.Uint64() | 1, clock: pace.NewClock()}
	first := 0
	for i, a := range o.Agents {
		m := &member{share: shares[i]}
		m.Name, m.Producers, m.FirstProducer, m.Consumers = a, shares[i].Producers.Count, first, shares[i].Consumers.Count
		first += m.Producers
		f.members = append(f.members, m)
	}
	beating, endBeats := context.WithCancel(context.WithoutCancel(ctx))
	var beats sync.WaitGroup
	defer func() {
		endBeats()
		for _, m := range f.members {
			if m.conn != nil {
				m.c.Close()
			}
		}
		beats.Wait()
		err = errors.Join(err, f.removeTopics(ctx))
	}()
	if err := f.each(func(m *member) error { return f.connect(ctx, m) }); err != nil {
		return nil, err
	}
	for _, m := range f.members {
		beats.Go(func() { m.beat(beating) })
	}
	if err := f.makeTopics(ctx); err != nil {
		return nil, err
	}
	unhook := context.AfterFunc(ctx, func() { // while agents prepare there is nothing to be saved
		for _, m := range f.members {
			m.c.SetReadDeadline(time.Now())
		}
	})
	err = f.each(f.prepare)
	if !unhook() {
		return nil, errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return nil, err
	}
	for _, m := range f.members {
		f.event(fmt.Sprintf("agent %s: %d producers, %d partitions, clock known to %v", m.Name, m.Producers, m.Partitions, time.Duration(m.ClockError)))
	}
	return f.execute(ctx)
}

func (f *fleet) event(s string) {
	if f.o.Event != nil {
		f.o.Event(s)
	}
}

// each does something with all members at once; errors name them.
func (f *fleet) each(do func(*member) error) error {
	errs := make([]error, len(f.members))
	var wg sync.WaitGroup
	for i, m := range f.members {
		wg.Go(func() {
			if err := do(m); err != nil {
				errs[i] = fmt.Errorf("agent %s: %w", m.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *fleet) connect(ctx context.Context, m *member) (err error) {
	d := net.Dialer{Timeout: helloTimeout}
	nc, err := d.DialContext(ctx, "tcp", m.Name)
	if err != nil {
		return err
	}
	m.conn = &conn{c: nc, max: helloBytesMax}
	if m.Version, err = m.introduce(f.o.Token); err != nil {
		return err
	}
	m.max = tellBytesMax
	return nil
}

func (f *fleet) makeTopics(ctx context.Context) error {
	s := f.o.Scenario
	if err := f.o.Driver.Check(s.Needs()); err != nil {
		return err
	}
	for i := range s.Topics {
		x := &s.Topics[i]
		t := driver.Topic{
			Name: load.TopicName(x, f.runID), Partitions: x.Partitions, Visibility: x.VisibilityLevel(&s.Producers),
			Retention: x.Retention, RetentionBytes: int64(x.RetentionBytes),
		}
		var err error
		if x.Existing {
			t, err = f.o.Driver.Lookup(ctx, t.Name)
		} else if t, err = f.o.Driver.Prepare(ctx, t); err == nil {
			f.made = append(f.made, t.Name)
		}
		if err != nil {
			return fmt.Errorf("topic %s: %w", x.Name, err)
		}
		f.topics = append(f.topics, t)
		for _, m := range f.members {
			m.Partitions += t.Partitions / len(f.members)
		}
	}
	return nil
}

func (f *fleet) removeTopics(ctx context.Context) error {
	if f.o.Keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var errs []error
	for _, name := range f.made {
		errs = append(errs, f.o.Driver.Drop(ctx, name))
	}
	return errors.Join(errs...)
}

// prepare has an agent connect its clients, and compares clocks.
func (f *fleet) prepare(m *member) error {
	o := &order{
		Driver: f.o.Driver.Name(), Addr: f.o.Target.Addr, Settings: f.o.Target.Settings, Scenario: string(m.share.YAML()), RunID: f.runID,
		Share: load.Share{Index: slices.Index(f.members, m), Of: len(f.members), Producer: m.FirstProducer},
	}
	for _, t := range f.topics {
		o.Share.Topics = append(o.Share.Topics, t.Name)
	}
	if err := m.write(&frame{Kind: kindPrepare, Order: o}); err != nil {
		return err
	}
	if _, err := m.expect(kindReady, time.Now().Add(readyMax)); err != nil {
		return err
	}
	var err error
	m.clock, err = f.compare(m)
	m.ClockError = m.clock.err
	return err
}

// expect waits for a frame of a kind, signs of life left out, and not longer
// than until the deadline.
func (m *member) expect(kind string, deadline time.Time) (*frame, error) {
	for {
		until := time.Now().Add(frameTimeout)
		if until.After(deadline) {
			until = deadline
		}
		x, err := m.read(until)
		switch {
		case err != nil:
			return nil, fmt.Errorf("waiting for %s: %w", kind, err)
		case x.Kind == kindAlive:
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("no %s in time", kind)
			}
		case x.Kind == kind:
			return x, nil
		case x.Kind == kindFailed || x.Kind == kindRefused:
			return nil, fmt.Errorf("%s: %.1000s", x.Kind, x.Text)
		default:
			return nil, fmt.Errorf("unexpected frame %.20q", x.Kind)
		}
	}
}

// compare asks for an agent's clock several times. The answer with the shortest
// round trip is the best one: the agent read its clock somewhere in it, in the
// middle give or take half.
func (f *fleet) compare(m *member) (best bound, err error) {
	for i := range pings {
		sent := f.clock.Now()
		if err := m.write(&frame{Kind: kindPing}); err != nil {
			return best, err
		}
		x, err := m.expect(kindPong, time.Now().Add(frameTimeout))
		if err != nil {
			return best, err
		}
		best = nearer(best, i == 0, sent, f.clock.Now(), x.Clock)
	}
	return best, nil
}

func nearer(best bound, first bool, sent, got, there int64) bound {
	half := (got - sent + 1) / 2
	if first || half < best.err {
		return bound{there - (sent + half), half}
	}
	return best
}

// told is what came from a member.
type told struct {
	m   *member
	v   *interval
	end bool
}

// execute begins, collects and merges. Agents are prepared.
func (f *fleet) execute(ctx context.Context) (*load.Result, error) {
	var worst int64
	for _, m := range f.members {
		worst = max(worst, m.clock.err)
	}
	ahead := int64(startAhead) + 2*worst
	began, begin := time.Now().Add(time.Duration(ahead)), f.clock.Now()+ahead
	stopAll := func() {
		for _, m := range f.members {
			m.write(&frame{Kind: kindStop}) // a broken connection shows when it is read
		}
	}
	for i, m := range f.members {
		if err := m.write(&frame{Kind: kindStart, Clock: begin + m.clock.offset + stagger(f.o.Scenario, i)}); err != nil {
			stopAll()
			return nil, fmt.Errorf("agent %s: start: %w", m.Name, err)
		}
	}
	unhook := context.AfterFunc(ctx, stopAll)
	defer unhook()
	stopOnce := sync.OnceFunc(stopAll)

	news := make(chan told, 4*len(f.members))
	for _, m := range f.members {
		go func() { // ends by its connection's end at the latest; news is read until all have
			if m.failed = f.collect(m, news); m.failed != nil {
				m.Lost = true
				m.c.Close()
			}
			news <- told{m: m, end: true}
		}()
	}
	all := newGather(f.o, len(f.members))
	for left := len(f.members); left > 0; {
		x := <-news
		if !x.end {
			all.add(x.m, x.v)
			continue
		}
		left--
		all.end(x.m)
		if x.m.failed != nil {
			f.event(fmt.Sprintf("agent %s was lost: %v", x.m.Name, x.m.failed))
			stopOnce()
		}
	}
	all.finish()
	return f.merge(began, all.series.List(), ctx.Err() != nil), nil
}

// stagger keeps messages of evenly paced agents from falling due together: the
// shares lie in turn, as the messages of one process would.
func stagger(s *scenario.Scenario, i int) int64 {
	if s.Loop != scenario.OpenLoop || len(s.Phases) == 0 || s.Phases[0].Rate <= 0 {
		return 0
	}
	return int64(min(time.Duration(float64(i)/s.Phases[0].Rate*1e9), lateMax))
}

// collect hands on an agent's intervals until it tells its result, and compares
// clocks again.
func (f *fleet) collect(m *member, news chan<- told) error {
	quiet := time.Now().Add(silenceMax)
	for {
		x, err := m.read(time.Now().Add(frameTimeout))
		if err != nil {
			return err
		}
		switch x.Kind {
		case kindAlive:
			if time.Now().After(quiet) {
				return fmt.Errorf("it told nothing of its run for %v", silenceMax)
			}
			continue
		case kindInterval:
			if x.Interval == nil {
				return errors.New("an interval without content")
			}
			if err := checkHistograms(&x.Interval.Histograms); err != nil {
				return err
			}
			news <- told{m: m, v: x.Interval}
		case kindResult:
			if x.Result == nil {
				return errors.New("a result without content")
			}
			if err := checkResult(x.Result, m.share); err != nil {
				return err
			}
			m.res, m.Late = x.Result, x.Late
			return f.drift(m)
		case kindFailed:
			return fmt.Errorf("%.1000s", x.Text)
		default:
			return fmt.Errorf("unexpected frame %.20q", x.Kind)
		}
		quiet = time.Now().Add(silenceMax)
	}
}

// drift compares clocks after the run. An agent that ends meanwhile has told its
// result all the same.
func (f *fleet) drift(m *member) error {
	after, err := f.compare(m)
	if err != nil {
		return nil
	}
	m.ClockDrift = after.offset - m.clock.offset
	m.ClockError = max(m.ClockError, after.err)
	return nil
}
