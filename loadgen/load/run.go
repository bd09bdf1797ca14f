package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

// Run is one scenario, connected and ready. Make it with New, then Execute it
// once. BeginFault, EndFault, HoldConsumers, SampleTarget and SetTarget may be
// called from elsewhere while it executes.
type Run struct {
	cfg     Config
	s       *scenario.Scenario
	id      uint64
	clock   pace.Clock
	wall    int64 // µs since 1970 at clock 0
	began   time.Time
	tracker *verify.Tracker

	source   *payload.Source
	describe string // of the payloads
	target   *target
	system   driver.Description

	topics   []topic
	places   []place   // partitions of all topics, counted through
	share    Share     // {Of: 1}: all places
	start    time.Time // of the first phase; zero: at once
	cycle    []uint8   // topics in the order in which a producer's messages go to them
	schedule []pace.Phase

	producers []*producer
	consumers []*consumer
	readers   []*reader
	recorders []*recorder
	lags      *recorder // owned by the pacer, drained by the collector
	pool      pool
	faults    faults
	gate      gate
	flushing  sync.WaitGroup

	// timeline are the phases' beginnings and the last one's end, ns on clock;
	// set by Execute before anything is sent.
	timeline []int64
	sequence *pace.Sequence // nil in a closed loop

	remarks     []string      // for Result.Notes; owned by Execute
	spun        atomic.Int64  // ns, by the pacer
	offsetsBack atomic.Uint64 // deliveries at an offset that was passed
	// Of each phase, by the pacer: messages due in it, and held back.
	due, held, heldMax []atomic.Int64

	mu    sync.Mutex
	errs  []error // guarded by mu; at most errsMax
	paced pace.Stats

	totals []Histograms // by phase, and behind them by fault; owned by the collector
	series intervals    // owned by the collector
}

// topic is one of the run's, as it is.
type topic struct {
	driver.Topic
	created bool // by this process
	own     bool // made for the run: nobody else sends to it
	first   int  // place of its partition 0
}

// mine reports whether a place belongs to this process's share.
func (r *Run) mine(place int) bool { return place%r.share.Of == r.share.Index }

// place is a partition of some topic.
type place struct {
	topic     int
	partition uint32
}

// recorderShards is enough for as many processors to record at once.
const recorderShards = 8

// errsMax of the producers' and consumers' errors are kept.
const errsMax = 8

// New connects producers and consumers and creates the topics. Consumers are at
// the end of their partitions when it returns.
//
// Errors: a scenario that the driver refuses is a *driver.Unsupported.
func New(ctx context.Context, cfg Config) (*Run, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Run{cfg: cfg, s: cfg.Scenario, id: cfg.RunID, clock: pace.NewClock(), wall: time.Now().UnixMicro()}
	if r.share = (Share{Of: 1}); cfg.Share != nil {
		r.share = *cfg.Share
	}
	for r.id == 0 {
		r.id = rand.Uint64()
	}
	if err := cfg.Driver.Check(r.s.Needs()); err != nil {
		return nil, err
	}
	if err := r.prepare(ctx); err != nil {
		r.close(context.WithoutCancel(ctx))
		return nil, err
	}
	return r, nil
}

func (r *Run) prepare(ctx context.Context) (err error) {
	var trace bool
	if r.schedule, trace, err = schedule(r.s); err != nil {
		return err
	}
	if r.source, r.describe, err = r.cfg.source(ctx, r.id); err != nil {
		return err
	}
	if trace {
		r.source.AllowSizes()
	}
	if r.system, err = r.cfg.Driver.Describe(ctx); err != nil {
		return err
	}
	if err := r.makeTopics(ctx); err != nil {
		return err
	}
	phases := len(r.s.Phases)
	r.due, r.held, r.heldMax = make([]atomic.Int64, phases), make([]atomic.Int64, phases), make([]atomic.Int64, phases)
	r.totals = make([]Histograms, r.parts())
	for range recorderShards + 1 {
		r.recorders = append(r.recorders, newRecorder(&r.pool, r.parts()))
	}
	r.lags = r.recorders[recorderShards]
	r.tracker, err = verify.New(verify.Options{Producers: r.s.Producers.Count, Partitions: len(r.places), WindowMessages: r.s.Limits.Window})
	if err != nil {
		return err
	}
	r.faults.tracker = r.tracker
	r.faults.prepare(len(r.s.Faults), r.s.Producers.Count*len(r.places), r.s.Limits.OnTime)
	if r.cfg.TargetPID != 0 {
		if r.target, err = newTarget(r.cfg.TargetPID); err != nil {
			return err
		}
	}
	for i := range min(r.s.Consumers.Count, len(r.places)/r.share.Of) {
		if err := r.addConsumer(ctx, i); err != nil {
			return fmt.Errorf("consumer %d: %w", i, err)
		}
	}
	for i := range r.s.Producers.Count {
		if err := r.addProducer(ctx, i); err != nil {
			return fmt.Errorf("producer %d: %w", i, err)
		}
	}
	return nil
}

// makeTopics creates the topics or looks them up, and spreads messages over
// them.
func (r *Run) makeTopics(ctx context.Context) error {
	shares := make([]int, len(r.s.Topics))
	for i := range r.s.Topics {
		x := &r.s.Topics[i]
		shares[i] = x.Share
		t := driver.Topic{
			Name: TopicName(x, r.id), Partitions: x.Partitions, Visibility: x.VisibilityLevel(&r.s.Producers),
			Retention: x.Retention, RetentionBytes: int64(x.RetentionBytes),
		}
		var err error
		if r.cfg.Share != nil {
			t.Name = r.share.Topics[i]
		}
		if x.Existing || r.cfg.Share != nil {
			t, err = r.cfg.Driver.Lookup(ctx, t.Name)
		} else {
			t, err = r.cfg.Driver.Prepare(ctx, t)
		}
		if err != nil {
			return fmt.Errorf("topic %s: %w", x.Name, err)
		}
		if t.Partitions%r.share.Of != 0 {
			return fmt.Errorf("topic %s: %d partitions for %d agents: want as many for each", x.Name, t.Partitions, r.share.Of)
		}
		r.topics = append(r.topics, topic{Topic: t, created: !x.Existing && r.cfg.Share == nil, own: !x.Existing, first: len(r.places)})
		for p := range t.Partitions {
			r.places = append(r.places, place{i, uint32(p)})
		}
	}
	if mine := len(r.places) / r.share.Of; r.s.Consumers.Count > mine {
		return fmt.Errorf("%d consumers for %d partitions", r.s.Consumers.Count, mine)
	}
	r.cycle = spread(shares)
	return nil
}

// spread is a cycle in which index i stands shares[i] times, as evenly as it can
// be: each step goes to the one that is furthest behind its share.
func spread(shares []int) []uint8 {
	total := 0
	for _, s := range shares {
		total += s
	}
	var cycle []uint8
	credit := make([]int, len(shares))
	for range total {
		best := 0
		for i, s := range shares {
			if credit[i] += s; credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		cycle = append(cycle, uint8(best))
	}
	return cycle
}

// ID is the run's.
func (r *Run) ID() uint64 { return r.id }

// Abandon closes a run that is not to be executed.
func (r *Run) Abandon(ctx context.Context) { r.close(context.WithoutCancel(ctx)) }

// StartAt sets when the first phase begins, for processes that begin together;
// call it before Execute, which is to be called shortly before t, and begins at
// once if t has passed.
func (r *Run) StartAt(t time.Time) { r.start = t }

// Execute runs the scenario to its end and drains it. If ctx ends early, what
// was sent until then is drained and judged all the same, and the Result says
// that it was interrupted. An error means that there is no result.
func (r *Run) Execute(ctx context.Context) (*Result, error) {
	// Producing and consuming outlive ctx: what is in flight is to be judged.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer r.close(context.WithoutCancel(ctx))

	procs := runtime.GOMAXPROCS(0)
	// The pacer's thread spins, and must not take another's processor; and when it
	// wakes there is to be one that is free.
	runtime.GOMAXPROCS(procs + 2)
	defer runtime.GOMAXPROCS(procs)
	// What faults start in mid-run is not to inherit a priority.
	if r.cfg.RealTime && r.s.Loop == scenario.OpenLoop && len(r.s.Faults) == 0 {
		lower, err := pace.RaiseProcess()
		if err != nil {
			r.remarks = append(r.remarks, err.Error())
		} else {
			defer lower()
		}
	}

	usage, err := newUsage(procs)
	if err != nil {
		return nil, err
	}
	if r.target != nil {
		r.target.sample()
	}
	r.began = time.Now()
	if err := r.plan(r.clock.Now() + max(int64(time.Millisecond), int64(r.start.Sub(r.began)))); err != nil {
		return nil, err
	}

	var consuming sync.WaitGroup
	for _, k := range r.readers {
		consuming.Go(func() { k.run(work) })
	}
	watched := make(chan struct{})
	watching, endWatch := context.WithCancel(work)
	go func() {
		defer close(watched)
		r.watch(watching, usage)
	}()

	err = r.produceAmid(ctx, work)
	if _, broken := errors.AsType[meanwhileError](err); broken {
		endWatch()
		<-watched
		r.close(work) // before stop, so that consumers end by it
		stop()
		consuming.Wait()
		return nil, err
	}
	interrupted := errors.Is(err, context.Canceled) && ctx.Err() != nil
	if err != nil && !interrupted {
		r.note(err)
	}
	complete := r.drain(work)
	if r.target != nil {
		r.target.sample()
	}
	endWatch()
	<-watched
	used, err := usage.take(time.Duration(r.spun.Load()))
	if err != nil {
		return nil, err
	}
	for _, p := range r.producers {
		p.close(work)
	}
	stop()
	consuming.Wait()
	r.flushing.Wait()
	res := r.result(used)
	res.Interrupted, res.Complete = interrupted, complete
	res.judge(r.s)
	return res, nil
}

// plan fixes the timeline from start on.
func (r *Run) plan(start int64) error {
	r.timeline = []int64{start}
	if r.schedule == nil {
		for i := range r.s.Phases {
			r.timeline = append(r.timeline, r.timeline[i]+int64(r.s.Phases[i].Duration))
		}
		return nil
	}
	var err error
	r.sequence, err = pace.NewSequence(start, r.s.Seed, r.schedule...)
	if err != nil {
		return err
	}
	r.timeline = r.sequence.Begins()
	return nil
}

// phaseAt returns the phase of time t, len(phases) behind the last, searching
// from the one that was found last.
func (r *Run) phaseAt(t int64, last int) int {
	for last > 0 && t < r.timeline[last] {
		last--
	}
	for last < len(r.timeline)-1 && t >= r.timeline[last+1] {
		last++
	}
	return last
}

// produce sends everything, open or closed. ctx ends sending, work what was
// begun.
func (r *Run) produce(ctx, work context.Context) error {
	if r.sequence == nil {
		select { // a start agreed with others may be ahead
		case <-time.After(time.Duration(r.timeline[0] - r.clock.Now())):
		case <-ctx.Done():
		}
		var wg sync.WaitGroup
		for _, p := range r.producers {
			wg.Go(func() {
				if err := p.loop(ctx, work); err != nil {
					r.note(err)
				}
			})
		}
		wg.Wait()
		return ctx.Err()
	}
	n := -1
	st, err := pace.Run(ctx, pace.Options{
		Clock: r.clock, Schedule: r.sequence, Quantum: r.s.Limits.Quantum, Observe: r.dispatched, Spun: &r.spun,
		Congested: func() bool { return r.producers[n].congested() },
	}, func(intended int64) (bool, error) {
		if n++; n == len(r.producers) {
			n = 0
		}
		return r.producers[n].send(ctx, intended, r.sequence.Phase(), r.sequence.Item())
	})
	r.mu.Lock()
	r.paced = st
	r.mu.Unlock()
	return err
}

// dispatched notes how late the pacer is. It runs on the pacer's thread.
func (r *Run) dispatched(_, late int64, held bool) {
	phase := r.sequence.Phase()
	r.due[phase].Add(1)
	if !held {
		r.lags.record(phase, lag, late)
		return
	}
	r.held[phase].Add(1)
	if late > r.heldMax[phase].Load() {
		r.heldMax[phase].Store(late)
	}
}

// lossWait is how long nothing may happen, with everything answered and every
// consumer at the end of what is stored, before what is missing is lost.
const lossWait = time.Second

// drain waits until every message has an outcome, every acknowledged one was
// delivered, and the consumers have read what is stored (so that a duplicate
// stored last is seen too). What is acknowledged and still missing when the
// consumers have read everything is lost; that takes lossWait. drain gives up
// after Limits.Drain without progress and then returns false.
func (r *Run) drain(ctx context.Context) bool {
	for _, p := range r.producers {
		r.flushing.Go(func() { p.flush(ctx) })
	}
	var last verify.Counts
	at := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now := r.tracker.Counts()
		if now != last {
			last, at = now, time.Now()
		}
		still := time.Since(at)
		switch {
		case now.Outstanding() == 0 && r.caughtUp(ctx):
			return true
		case now.Unanswered == 0 && still > min(lossWait, r.s.Limits.Drain) && r.caughtUp(ctx):
			return true
		case still > r.s.Limits.Drain:
			return false
		}
		<-tick.C
	}
}

// caughtUp reports whether every consumer has read what is stored.
func (r *Run) caughtUp(ctx context.Context) bool {
	for _, x := range r.readers {
		if !x.caughtUp(ctx) {
			return false
		}
	}
	return true
}

// note keeps an error for the result.
func (r *Run) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) < errsMax {
		r.errs = append(r.errs, err)
	}
}

func (r *Run) close(ctx context.Context) {
	for _, p := range r.producers {
		p.close(ctx)
	}
	for _, k := range r.consumers {
		k.close()
	}
	for i := range r.topics {
		t := &r.topics[i]
		if !t.created || r.cfg.Keep {
			continue
		}
		t.created = false
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := r.cfg.Driver.Drop(ctx, t.Name); err != nil {
			r.note(err)
		}
		cancel()
	}
}
