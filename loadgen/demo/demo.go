// Package demo is `make demo`: real payloads through a real broker that is
// killed in the middle, with every message accounted for.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/launch"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/scenario"
)

// Options of Run. Zero fields take the defaults named here.
type Options struct {
	Binary   string        // portask
	Payloads string        // directory; default: test data of Go modules
	Duration time.Duration // of sending, 24 s
	Rate     float64       // messages a second in all, 20,000
	// Event and Progress show what happens: lines that stay, and lines that
	// the next one replaces.
	Event, Progress func(string)
	Out             io.Writer // the table
}

const (
	producers, consumers, partitions = 3, 2, 4
	sizeMin, sizeMax                 = 256, 2048
	// linger lets the twelve lanes of 1,700 messages a second fill batches of
	// several messages: the broker's work is per batch.
	linger = 5 * time.Millisecond

	// killAt is the part of the run after which the broker is killed.
	killAt = 0.4
	// downFor is how long it stays down, so that one sees the backlog.
	downFor = 500 * time.Millisecond
	// startTimeout bounds a start, recovery included.
	startTimeout = 15 * time.Second
	// drain bounds the wait for what is outstanding.
	drain = 10 * time.Second
)

// ErrUnfinished reports that the run did not come to a verdict.
var ErrUnfinished = errors.New("unfinished")

// ErrViolated reports that a promise was broken.
var ErrViolated = errors.New("messages were lost, duplicated, reordered or corrupt")

// Run runs the demonstration. The broker and its data are gone when it returns.
func Run(ctx context.Context, o Options) (err error) {
	if o.Duration == 0 {
		o.Duration = 24 * time.Second
	}
	if o.Rate == 0 {
		o.Rate = 20_000
	}
	var pool []corpus.File
	plan, err := o.scenario()
	if err != nil {
		return err
	}
	if o.Payloads == "" {
		pool = corpus.FromModules(ctx)
	} else if pool, err = corpus.FromDir(o.Payloads); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "portask-demo-")
	if err != nil {
		return err
	}
	s := &stage{o: o, dir: dir}
	defer func() {
		if err != nil && ctx.Err() == nil {
			// The broker's own words are worth keeping when something went wrong.
			o.Event("the broker's log and data are kept in " + dir)
			return
		}
		os.RemoveAll(dir)
	}()
	defer func() {
		if stopErr := s.end(); err == nil {
			err = stopErr
		}
	}()
	if err := s.start(ctx, "127.0.0.1:0"); err != nil {
		return err
	}
	o.Event(fmt.Sprintf("broker: process %d on %s, data in %s", s.broker.PID(), s.broker.Addr(), dir))
	o.Event(fmt.Sprintf("payloads: %s, %d to %d B", corpus.Describe(pool), sizeMin, sizeMax))
	o.Event(fmt.Sprintf("load: %d producers, %d consumers, %d partitions, ack durable, linger %v, %.0f messages a second for %v; SIGKILL after %.0f s",
		producers, consumers, partitions, linger, o.Rate, o.Duration, killAt*o.Duration.Seconds()))
	res, err := s.load(ctx, plan, pool)
	if err != nil {
		return err
	}
	return s.verdict(res)
}

// stage is the broker, which is one process after another.
type stage struct {
	o      Options
	dir    string
	broker *launch.Broker
}

func (s *stage) start(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	b, err := launch.Start(ctx, launch.Options{
		Binary: s.o.Binary, Data: filepath.Join(s.dir, "data"), Listen: listen,
		AddrFile: filepath.Join(s.dir, "addr"), LogFile: filepath.Join(s.dir, "broker.log"),
	})
	if err != nil {
		return err
	}
	s.broker = b
	return nil
}

func (s *stage) end() error {
	if s.broker == nil {
		return nil
	}
	return s.broker.Stop(drain)
}

// scenario is what is sent: the whole run is measured, the outage in its middle
// included.
func (o *Options) scenario() (*scenario.Scenario, error) {
	s := scenario.Default()
	s.Name, s.About = "demo", "Durable messages across the death of the broker."
	s.Topics[0].Name, s.Topics[0].Partitions = "demo", partitions
	s.Producers.Count, s.Producers.Linger, s.Producers.Compression = producers, linger, "threshold:zstd"
	s.Consumers.Count = consumers
	s.Payload.Source, s.Payload.Size = "modules", fmt.Sprintf("%d..%d", sizeMin, sizeMax)
	if o.Payloads != "" {
		s.Payload.Source = o.Payloads
	}
	warm := min(time.Second, o.Duration/2)
	s.Phases[0].Duration, s.Phases[0].Rate = warm, o.Rate
	s.Phases[1].Duration, s.Phases[1].Rate = o.Duration-warm, o.Rate
	s.Limits.Drain = drain
	return s, s.Validate()
}

func (s *stage) load(ctx context.Context, plan *scenario.Scenario, pool []corpus.File) (*load.Result, error) {
	d, err := portask.Open(ctx, s.broker.Addr())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	r, err := load.New(ctx, load.Config{
		Scenario: plan, Driver: d, Corpus: pool, TargetPID: s.broker.PID(),
		Progress: func(snap load.Snapshot) { s.o.Progress(report.Progress(snap)) },
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var killing sync.WaitGroup
	killing.Go(func() {
		if err := s.killAndRestart(ctx, r); err != nil {
			cancel(err)
		}
	})
	res, err := r.Execute(ctx)
	cancel(nil)
	killing.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return res, err
}

// killAndRestart is the middle of the run.
func (s *stage) killAndRestart(ctx context.Context, r *load.Run) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.broker.Ended():
		return fmt.Errorf("the broker ended by itself; see its log")
	case <-time.After(time.Duration(killAt * float64(s.o.Duration))):
	}
	addr := s.broker.Addr()
	r.SampleTarget()
	r.BeginOutage()
	s.broker.Kill()
	s.o.Event(fmt.Sprintf("SIGKILL: process %d is gone; producers keep their schedule", s.broker.PID()))
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(downFor):
	}
	began := time.Now()
	if err := s.start(ctx, addr); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	if err := r.SetTarget(s.broker.PID()); err != nil {
		return err
	}
	r.EndOutage()
	s.o.Event(fmt.Sprintf("restarted on the same data and port: process %d serves after %v", s.broker.PID(), time.Since(began).Round(time.Millisecond)))
	return nil
}

func (s *stage) verdict(res *load.Result) error {
	// Whether latencies may be quoted is not this demonstration's question.
	if res.Complete && !res.Interrupted {
		for _, p := range res.Invalid {
			res.Notes = append(res.Notes, "latencies and rates are not shown: "+p.String())
		}
		res.Invalid = nil
	}
	if err := report.Table(s.o.Out, res); err != nil {
		return err
	}
	switch {
	case len(res.Violations) > 0:
		return ErrViolated
	case res.Interrupted:
		return fmt.Errorf("%w: interrupted", ErrUnfinished)
	case !res.Complete:
		return fmt.Errorf("%w: not every message was settled", ErrUnfinished)
	case res.Outage == nil:
		return fmt.Errorf("%w: the broker was not killed", ErrUnfinished)
	case res.Counts.Delivered == 0:
		return fmt.Errorf("%w: nothing was delivered", ErrUnfinished)
	}
	return nil
}
