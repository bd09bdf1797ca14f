package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/verify"
)

// Run is one workload, connected and ready. Make it with New, then Execute it
// once. BeginOutage, EndOutage and SetTarget may be called from elsewhere while
// it executes.
type Run struct {
	cfg     Config
	clock   pace.Clock
	wall    int64 // µs since 1970 at clock 0
	admin   *client.Client
	tracker *verify.Tracker

	producers []*producer
	consumers []*consumer
	// Recorders of producers, of which a few share one: each is 360 KiB.
	acks, services [recorderShards]*recorder
	target         *target
	created        bool // the topic is ours
	flushing       sync.WaitGroup
	outage         outage

	// Measured messages are those due in [from, till), ns on clock.
	from, till int64

	sent, acked, failed, delivered atomic.Uint64
	offsetsBack                    atomic.Uint64 // deliveries at an offset that was passed
	// Of those, what happened in [from, till).
	sentIn, ackedIn, deliveredIn, bytesIn atomic.Uint64

	mu    sync.Mutex
	errs  []error // guarded by mu; at most errsMax
	stats pace.Stats
}

// recorderShards is enough for as many processors to record at once.
const recorderShards = 8

// errsMax of the producers' and consumers' errors are kept.
const errsMax = 8

// New connects producers and consumers and creates the topic if that is asked
// for. Consumers are at the end of their partitions when it returns.
func New(ctx context.Context, cfg Config) (*Run, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	r := &Run{cfg: cfg, clock: pace.NewClock(), wall: time.Now().UnixMicro()}
	r.outage.all = newRecorder()
	for i := range min(recorderShards, cfg.Producers) {
		r.acks[i], r.services[i] = newRecorder(), newRecorder()
	}
	if err := r.connect(ctx); err != nil {
		r.close(ctx)
		return nil, err
	}
	return r, nil
}

func (r *Run) dial(ctx context.Context, role string) (*client.Client, error) {
	return client.Dial(ctx, r.cfg.Addr, client.WithName("portask-loadgen "+role))
}

func (r *Run) connect(ctx context.Context) (err error) {
	if r.admin, err = r.dial(ctx, "admin"); err != nil {
		return err
	}
	if err := r.topic(ctx); err != nil {
		return err
	}
	r.outage.caught = make([]atomic.Int64, r.cfg.Partitions)
	if r.tracker, err = verify.New(verify.Options{Producers: r.cfg.Producers, Partitions: r.cfg.Partitions}); err != nil {
		return err
	}
	if r.cfg.TargetPID != 0 {
		if r.target, err = newTarget(r.cfg.TargetPID); err != nil {
			return err
		}
	}
	for i := range r.cfg.Consumers {
		k, err := r.newConsumer(ctx, i)
		if err != nil {
			return fmt.Errorf("consumer %d: %w", i, err)
		}
		r.consumers = append(r.consumers, k)
	}
	for i := range r.cfg.Producers {
		p, err := r.newProducer(ctx, i)
		if err != nil {
			return fmt.Errorf("producer %d: %w", i, err)
		}
		r.producers = append(r.producers, p)
	}
	return nil
}

// topic creates the topic or looks it up.
func (r *Run) topic(ctx context.Context) error {
	a := r.admin.Admin()
	if r.cfg.Create {
		_, err := a.CreateTopic(ctx, client.TopicConfig{
			Name: r.cfg.Topic, Partitions: r.cfg.Partitions, Visibility: r.cfg.Visibility,
		})
		if err != nil {
			return err
		}
		r.created = true
	}
	t, err := a.DescribeTopic(ctx, r.cfg.Topic)
	if err != nil {
		return err
	}
	r.cfg.Partitions = len(t.Partitions)
	r.cfg.Visibility = t.Visibility
	if r.cfg.Consumers > r.cfg.Partitions {
		return fmt.Errorf("%d consumers for the %d partitions of topic %s", r.cfg.Consumers, r.cfg.Partitions, r.cfg.Topic)
	}
	return nil
}

// ends asks for the log end of each partition.
func (r *Run) ends(ctx context.Context) ([]message.Offset, error) {
	t, err := r.admin.Admin().DescribeTopic(ctx, r.cfg.Topic)
	if err != nil {
		return nil, err
	}
	ends := make([]message.Offset, len(t.Partitions))
	for i, p := range t.Partitions {
		ends[i] = p.LogEnd
	}
	return ends, nil
}

// Execute runs the workload to its end and drains it. If ctx ends early, what
// was sent until then is drained and judged all the same, and the Result says
// that it was interrupted. An error means that there is no result.
func (r *Run) Execute(ctx context.Context) (*Result, error) {
	// Producing and consuming outlive ctx: what is in flight is to be judged.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer r.close(context.WithoutCancel(ctx))

	procs := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(procs + 1) // the pacer's thread spins; it must not take another's processor
	defer runtime.GOMAXPROCS(procs)

	usage, err := newUsage()
	if err != nil {
		return nil, err
	}
	if r.target != nil {
		r.target.sample()
	}
	start := r.clock.Now() + int64(time.Millisecond)
	r.from, r.till = start+int64(r.cfg.Warm), start+int64(r.cfg.Duration)

	var consuming sync.WaitGroup
	for _, k := range r.consumers {
		consuming.Go(func() { k.run(work) })
	}
	watched := make(chan struct{})
	watching, endWatch := context.WithCancel(work)
	go func() {
		defer close(watched)
		r.watch(watching, start)
	}()

	err = r.produce(ctx, work, start)
	interrupted := errors.Is(err, context.Canceled) && ctx.Err() != nil
	if err != nil && !interrupted {
		r.note(err)
	}
	complete := r.drain(work)
	endWatch()
	<-watched
	if r.target != nil {
		r.target.sample()
	}
	used, err := usage.take(procs)
	if err != nil {
		return nil, err
	}
	for _, p := range r.producers {
		p.close(work)
	}
	stop()
	consuming.Wait()
	r.flushing.Wait()
	res := r.result()
	res.Interrupted, res.Complete = interrupted, complete
	res.GeneratorCPU, res.Generator, res.Steal = used.cpuSeconds, used.share, used.steal
	res.judge()
	return res, nil
}

// produce sends everything, open or closed. ctx ends sending, work what was
// begun.
func (r *Run) produce(ctx, work context.Context, start int64) error {
	if r.cfg.Mode == Closed {
		var wg sync.WaitGroup
		for i, p := range r.producers {
			wg.Go(func() {
				if err := p.loop(ctx, work, i); err != nil {
					r.note(err)
				}
			})
		}
		wg.Wait()
		return ctx.Err()
	}
	schedule := pace.Constant(start, r.cfg.Rate)
	if r.cfg.Arrival == Poisson {
		schedule = pace.Poisson(start, r.cfg.Rate, r.cfg.Seed)
	}
	var n int
	st, err := pace.Run(ctx, pace.Options{Clock: r.clock, Schedule: schedule, Rate: r.cfg.Rate, MeasureFrom: r.from, End: r.till, Quantum: r.cfg.Quantum},
		func(intended int64) (bool, error) {
			p := r.producers[n%len(r.producers)]
			partition := uint32(n / len(r.producers) % r.cfg.Partitions)
			n++
			return p.send(ctx, partition, intended)
		})
	r.mu.Lock()
	r.stats = st
	r.mu.Unlock()
	return err
}

// drain waits until every message has an outcome, every acknowledged one was
// delivered, and the consumers have read to the end of the log (so that a
// duplicate stored last is seen too). It gives up after Config.Drain without
// progress and then returns false.
func (r *Run) drain(ctx context.Context) bool {
	for _, p := range r.producers {
		r.flushing.Go(func() { p.flush(ctx) })
	}
	last, at := uint64(0), time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if r.tracker.Counts().Outstanding() == 0 && r.readToEnd(ctx) {
			return true
		}
		now := r.acked.Load() + r.failed.Load() + r.delivered.Load()
		if now != last {
			last, at = now, time.Now()
		}
		if time.Since(at) > r.cfg.Drain {
			return false
		}
		<-tick.C
	}
}

// readToEnd reports whether the consumers have seen all that is stored.
func (r *Run) readToEnd(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ends, err := r.ends(ctx)
	if err != nil {
		return false
	}
	for _, k := range r.consumers {
		for i := range k.next {
			if p := k.partitions[i]; k.next[i].Load() < int64(ends[p]) {
				return false
			}
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
	if r.admin == nil {
		return
	}
	if r.created && r.cfg.Delete {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := r.admin.Admin().DeleteTopic(ctx, r.cfg.Topic); err != nil && !errors.Is(err, fault.NotFound) {
			r.note(err)
		}
	}
	r.admin.Close()
	r.admin = nil
}

// measured reports whether ns is in the measured part of the run.
func (r *Run) measured(ns int64) bool { return ns >= r.from && ns < r.till }
