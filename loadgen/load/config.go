// Package load runs one scenario against one target and says what came of it:
// rates, latencies from the intended send time, and the fate of every message.
//
// In an open-loop run messages are due at times fixed in advance, whatever the
// target does; a slow target shows as latency. In a closed-loop run each
// producer sends when an earlier message is acknowledged; its latencies are
// service times, and say nothing about a load that does not wait.
//
// A run in which the generator was the limit is invalid: its measurements are
// kept apart, as Result.Rejected, and are no result.
package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
)

// Config describes a run.
type Config struct {
	// Scenario must be valid (see scenario.Validate); it is not changed.
	Scenario *scenario.Scenario
	// Driver is not closed by the run.
	Driver driver.Driver
	// RunID tells the run's messages and topics from others'; 0: a random one.
	RunID uint64
	// Corpus replaces the scenario's payload source if it is not nil.
	Corpus []corpus.File
	// Share is the part of a run that this process has; nil: all of it.
	Share *Share
	// RealTime gives all threads of the process a real-time priority while an open
	// loop without faults runs; see pace.RaiseProcess. Where that is not allowed the
	// Result says so.
	RealTime bool
	// Keep leaves the topics that the run created.
	Keep bool
	// TargetPID is the target's process, for its CPU and memory; 0 if it is not
	// on this machine.
	TargetPID int

	// Meanwhile, if not nil, runs beside the load from the first phase's beginning
	// on, and makes the scenario's faults happen. Its ctx ends with the sending;
	// it undoes what it did and returns before the drain begins. Its error ends
	// the run without a result.
	Meanwhile func(ctx context.Context, r *Run) error

	// Progress is called about once a second while the run goes on.
	Progress func(Snapshot)
	// OnInterval is called with each interval when it ends, about once a second,
	// and its histograms, which are valid during the call.
	OnInterval func(Interval, Histograms)
}

// Share is one process's part of a run that several have together. Of every
// topic it sends to the partitions that it also consumes, so that latencies are
// of one clock: those whose number among the partitions of all topics, divided
// by Of, leaves Index. The scenario is the part's: its producers, consumers and
// rates.
type Share struct {
	Index, Of int
	// Producer is the id of its first producer in messages.
	Producer int
	// Topics are the names on the target, in the scenario's order. They exist,
	// were made for the run unless the scenario says otherwise, and stay.
	Topics []string
}

func (x *Share) validate(s *scenario.Scenario) error {
	if x.Of < 1 || x.Index < 0 || x.Index >= x.Of || x.Producer < 0 || x.Producer > 1<<20 {
		return fmt.Errorf("share %d of %d, producers from %d on", x.Index, x.Of, x.Producer)
	}
	if len(x.Topics) != len(s.Topics) {
		return fmt.Errorf("share: %d names for %d topics", len(x.Topics), len(s.Topics))
	}
	return nil
}

func (c *Config) validate() error {
	switch {
	case c.Scenario == nil:
		return errors.New("no scenario")
	case c.Driver == nil:
		return errors.New("no driver")
	case c.Scenario.Kind != scenario.KindLoad:
		return fmt.Errorf("a scenario of kind %s sends nothing", c.Scenario.Kind)
	}
	if len(c.Scenario.Faults) > 0 && c.Meanwhile == nil {
		return errors.New("the scenario has faults, and nothing makes them happen")
	}
	if c.Share != nil {
		if err := c.Share.validate(c.Scenario); err != nil {
			return err
		}
	}
	return c.Scenario.Validate()
}

// generatedBytes is the pool of a generated payload kind: larger than a core's
// caches, so that producing is not faster than in life.
const generatedBytes = 8 << 20

// kindsMax bounds the generated kinds of one source.
const kindsMax = 8

// files reads or generates what bodies are cut from.
func (c *Config) files(ctx context.Context) ([]corpus.File, error) {
	if c.Corpus != nil {
		return c.Corpus, nil
	}
	what := c.Scenario.Payload.Source
	if what == "modules" {
		return corpus.FromModules(ctx), nil
	}
	at := c.Scenario.Path(what)
	if info, err := os.Stat(at); err == nil {
		if info.IsDir() {
			return corpus.FromDir(at)
		}
		return corpus.FromFile(at)
	}
	var files []corpus.File
	for kind := range strings.SplitSeq(what, ",") {
		f, err := corpus.Generate(kind, generatedBytes, c.Scenario.Seed)
		if err != nil {
			return nil, fmt.Errorf("payload.source %q: no file or directory, and %w", what, err)
		}
		if files = append(files, f); len(files) > kindsMax {
			return nil, fmt.Errorf("payload.source %q: more than %d kinds", what, kindsMax)
		}
	}
	return files, nil
}

// source makes the values' source; describe says what it holds.
func (c *Config) source(ctx context.Context, run uint64) (src *payload.Source, describe string, err error) {
	files, err := c.files(ctx)
	if err != nil {
		return nil, "", err
	}
	p := &c.Scenario.Payload
	lo, hi := p.SizeRange()
	if src, err = payload.New(run, c.Scenario.Seed, lo, hi, corpus.Pool(files)); err != nil {
		return nil, "", err
	}
	src.TakeTurns(uint64(p.Turn))
	switch {
	case p.Split == scenario.SplitLine:
		err = src.SplitLines()
	case p.Distribution == scenario.Empirical:
		var sizes []payload.SizeWeight
		if sizes, err = readSizes(c.Scenario.Path(p.Sizes)); err == nil {
			src.SetSizes(sizes)
		}
	default:
		err = src.SetDistribution(payload.Distribution(p.Distribution))
	}
	if err != nil {
		return nil, "", fmt.Errorf("payload: %w", err)
	}
	return src, corpus.Describe(files), nil
}

func readSizes(name string) ([]payload.SizeWeight, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe could wait without end
		return nil, fmt.Errorf("%s: is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := payload.ReadSizes(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return all, nil
}

// schedule is the scenario's phases, for the pacer; nil in a closed loop. trace
// says whether one of them takes sizes from a trace.
func schedule(s *scenario.Scenario) (phases []pace.Phase, trace bool, err error) {
	if s.Loop == scenario.ClosedLoop {
		return nil, false, nil
	}
	for i := range s.Phases {
		x := &s.Phases[i]
		p := pace.Phase{Length: x.Duration, Random: x.Spacing == "poisson"}
		switch x.Arrival {
		case "constant":
			p.Shape = pace.Flat(x.Rate)
		case "poisson":
			p.Shape, p.Random = pace.Flat(x.Rate), true
		case "bursts":
			p.Shape = pace.Bursts{Rated: x.Rate, Base: x.Base, On: x.On, Off: x.Off}
		case "sine":
			p.Shape = pace.Sine{Mean: x.Rate, Amplitude: x.Amplitude, Period: x.Period}
		case "ramp":
			p.Shape = pace.Ramp{From: x.Rate, To: x.To, Over: x.Duration}
		case "staircase":
			p.Shape = pace.Staircase{From: x.Rate, To: x.To, Steps: x.Steps, Over: x.Duration}
		case "trace":
			if p.Trace, err = pace.OpenTrace(s.Path(x.File)); err != nil {
				return nil, false, fmt.Errorf("phase %s: %w", x.Name, err)
			}
			p.Speed, p.Random = x.Speed, false
			if x.ShapeOnly {
				p.Trace = p.Trace.Shape()
			} else {
				trace = true
			}
		default:
			return nil, false, fmt.Errorf("phase %s: arrival %q", x.Name, x.Arrival)
		}
		phases = append(phases, p)
	}
	return phases, trace, nil
}

// TopicName is what a run calls the topic on the target.
func TopicName(t *scenario.Topic, run uint64) string {
	if t.Existing {
		return t.Name
	}
	return fmt.Sprintf("%s-%016x", strings.TrimSpace(t.Name), run)
}
