// Package selftest measures the instrument. It loads targets of known behaviour
// and holds what a run reports against what the target says it did: the fate of
// messages by exact counts, latencies by the distribution that follows from the
// target's own pauses and the schedule of arrivals. It also measures what the
// generator itself can do: messages verified a second by one processor,
// allocations a message, and how late it is.
//
// A check that cannot be decided, since the machine was busy with something
// else, is Inconclusive and never passes.
package selftest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// Verdict of a check.
type Verdict string

// The verdicts, best first.
const (
	Pass         Verdict = "pass"
	Skipped      Verdict = "skipped"      // something it needs is not there
	Inconclusive Verdict = "inconclusive" // the machine was busy
	Slow         Verdict = "slow"         // a figure the instrument must reach was missed on an idle machine
	Fail         Verdict = "fail"         // a defect was not found, or found in another quantity
)

// Figures that the instrument must reach.
const (
	// ThroughputLeast is messages of 1 KiB a second, sent into a null sink and
	// verified, for each second of processor time.
	ThroughputLeast = 500_000
	// LagMost is the dispatch lag's p99 at LagRate sends a second.
	LagMost = 100 * time.Microsecond
	LagRate = 20_000
	// AllocationsMost a message: 0, but for what a run's length decides, such as
	// buffers that grow.
	AllocationsMost = 0.01
	// busyShare is the part of the processors others may take while the machine
	// counts as idle.
	busyShare = 0.05
)

// Check is one comparison.
type Check struct {
	Name     string  `json:"name"`
	Target   string  `json:"target"` // what it was made to do
	Expected string  `json:"expected"`
	Found    string  `json:"found"`
	Verdict  Verdict `json:"verdict"`
	Why      string  `json:"why,omitempty"` // unless it passed
	// Figures are what Expected and Found say, by name; latencies in ns.
	Figures map[string]float64 `json:"figures,omitempty"`
	// Others is the part of the machine's processors that other programs took,
	// 0 to 1.
	Others float64 `json:"others_cpu"`
}

// Report is the outcome, also as JSON.
type Report struct {
	Schema  int                `json:"schema"`
	Began   time.Time          `json:"began"`
	Seconds float64            `json:"seconds"`
	Machine sysmetrics.Machine `json:"machine"`
	Checks  []Check            `json:"checks"`
}

// Options of Run. The zero value is not usable; see Defaults.
type Options struct {
	// Length of each run that is measured.
	Length time.Duration
	// Every: of so many messages one is dropped, duplicated, reordered or flipped.
	Every uint64
	// Stall is how long the target that stalls does.
	Stall time.Duration
	// Broker is the portask to start behind a proxy for the checks over sockets;
	// empty: they are skipped.
	Broker string
	// Done, if not nil, is called with each check when it ends.
	Done func(Check)
}

// Defaults are Options that take some 30 seconds.
func Defaults() Options {
	return Options{Length: 2 * time.Second, Every: 10_000, Stall: time.Second}
}

func (o *Options) validate() error {
	switch {
	case o.Length < 100*time.Millisecond || o.Length > time.Minute:
		return fmt.Errorf("length %v: want 100ms to 1m", o.Length)
	case o.Every < 10:
		return fmt.Errorf("one defect in %d messages: want at least 10", o.Every)
	case o.Stall < 50*time.Millisecond || o.Stall > 10*time.Second:
		return fmt.Errorf("stall of %v: want 50ms to 10s", o.Stall)
	}
	return nil
}

// Run makes all checks, one after the other. An error means that there is no
// Report: ctx ended, or a check could not be made.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	r := &Report{Schema: 1, Began: time.Now(), Machine: sysmetrics.ThisMachine()}
	all := append(defects(&o), latencies(&o)...)
	all = append(append(all, speeds(&o)...), sockets(&o)...)
	for _, f := range all {
		from, err := watchHost()
		if err != nil {
			return nil, err
		}
		var c Check
		if err := f(ctx, &c, from); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.Checks = append(r.Checks, c)
		if o.Done != nil {
			o.Done(c)
		}
	}
	r.Seconds = time.Since(r.Began).Seconds()
	return r, nil
}

// check makes one comparison and fills c.
type check func(ctx context.Context, c *Check, h *host) error

// ExitStatus is what a command ends with: 4 for a defect that was not found or
// not quantified, 3 if a check could not be decided, 2 if the instrument is too
// slow, 0 otherwise.
func (r *Report) ExitStatus() int {
	status := 0
	for i := range r.Checks {
		switch r.Checks[i].Verdict {
		case Fail:
			status = max(status, 4)
		case Inconclusive:
			status = max(status, 3)
		case Slow:
			status = max(status, 2)
		}
	}
	return status
}

// WriteJSON writes the report, indented.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tTARGET\tEXPECTED\tFOUND\tVERDICT")
	for i := range r.Checks {
		c := &r.Checks[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Name, c.Target, c.Expected, c.Found, strings.ToUpper(string(c.Verdict)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range r.Checks {
		if c := &r.Checks[i]; c.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", c.Name, c.Why)
		}
	}
	_, err := fmt.Fprintf(w, "%d checks in %.0f s on %s\n", len(r.Checks), r.Seconds, r.Machine.CPU)
	return err
}

// decide sets the verdict and why.
func (c *Check) decide(v Verdict, format string, args ...any) {
	c.Verdict, c.Why = v, fmt.Sprintf(format, args...)
}

// execute runs s against d.
func execute(ctx context.Context, s *scenario.Scenario, d driver.Driver, meanwhile func(context.Context, *load.Run) error) (*load.Result, error) {
	r, err := load.New(ctx, load.Config{Scenario: s, Driver: d, Meanwhile: meanwhile})
	if err != nil {
		return nil, err
	}
	return r.Execute(ctx)
}

// plan is a scenario of one lane and one measured phase: what the target does to
// message n is known to be done to the nth that is sent.
func plan(length time.Duration, rate float64, size string) *scenario.Scenario {
	s := scenario.Default()
	s.Name = "selftest"
	s.Topics[0].Partitions, s.Producers.Count, s.Consumers.Count = 1, 1, 1
	s.Producers.Ack = "accepted"
	s.Payload.Size = size
	s.Phases = s.Phases[1:]
	s.Phases[0].Duration, s.Phases[0].Rate = length, rate
	return s
}

// flood is a plan that sends as fast as answers come.
func flood(length time.Duration, lanes int) *scenario.Scenario {
	s := plan(length, 1, "1KiB")
	s.Loop = scenario.ClosedLoop
	s.Topics[0].Partitions, s.Producers.Count, s.Consumers.Count = lanes, lanes, lanes
	return s
}

// sink is a loopback target.
func sink(b loopback.Behaviour) *loopback.Driver { return loopback.Open(b) }
