// Package demo is `make demo`: real payloads through a real broker that is
// killed in the middle, with every message accounted for.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/fault"
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
	defer func() {
		if err != nil && ctx.Err() == nil {
			// The broker's own words are worth keeping when something went wrong.
			o.Event("the broker's log and data are kept in " + dir)
			return
		}
		os.RemoveAll(dir)
	}()
	broker, err := fault.StartServer(ctx, o.Binary, dir)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := broker.End(true); err == nil {
			err = stopErr
		}
	}()
	o.Event(fmt.Sprintf("broker: process %d on %s, data in %s", broker.PID(), broker.Addr(), dir))
	o.Event(fmt.Sprintf("payloads: %s, %d to %d B", corpus.Describe(pool), sizeMin, sizeMax))
	o.Event(fmt.Sprintf("load: %d producers, %d consumers, %d partitions, ack durable, linger %v, %.0f messages a second for %v; SIGKILL after %.0f s",
		producers, consumers, partitions, linger, o.Rate, o.Duration, killAt*o.Duration.Seconds()))
	res, err := o.load(ctx, broker, plan, pool)
	if err != nil {
		return err
	}
	return o.verdict(res)
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
	s.Faults = []scenario.Fault{{Kind: scenario.Kill, At: time.Duration(killAt * float64(o.Duration)), For: downFor}}
	s.Limits.Drain = drain
	return s, s.Validate()
}

func (o *Options) load(ctx context.Context, broker *fault.Server, plan *scenario.Scenario, pool []corpus.File) (*load.Result, error) {
	d, err := portask.Open(ctx, broker.Addr())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	stage := &fault.Stage{Server: broker, Event: o.Event}
	r, err := load.New(ctx, load.Config{
		Scenario: plan, Driver: d, Corpus: pool, TargetPID: broker.PID(),
		Progress:  func(snap load.Snapshot) { o.Progress(report.Progress(snap)) },
		Meanwhile: func(ctx context.Context, r *load.Run) error { return stage.Play(ctx, plan, r) },
	})
	if err != nil {
		return nil, err
	}
	return r.Execute(ctx)
}

func (o *Options) verdict(res *load.Result) error {
	// Whether latencies may be quoted is not this demonstration's question.
	if res.Complete && !res.Interrupted {
		for _, p := range res.Invalid {
			res.Notes = append(res.Notes, "latencies and rates are not shown: "+p.String())
		}
		res.Invalid = nil
	}
	if err := report.Table(o.Out, res); err != nil {
		return err
	}
	switch {
	case len(res.Violations) > 0:
		return ErrViolated
	case res.Interrupted:
		return fmt.Errorf("%w: interrupted", ErrUnfinished)
	case !res.Complete:
		return fmt.Errorf("%w: not every message was settled", ErrUnfinished)
	case len(res.Faults) == 0:
		return fmt.Errorf("%w: the broker was not killed", ErrUnfinished)
	case res.Counts.Delivered == 0:
		return fmt.Errorf("%w: nothing was delivered", ErrUnfinished)
	}
	return nil
}
