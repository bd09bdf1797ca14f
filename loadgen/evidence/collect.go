package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// Options of a Collector.
type Options struct {
	// Admin is the broker's admin listener, host:port or a URL; empty: none.
	Admin string
	// Find, if not nil, is asked for the admin listener's address when it does not
	// answer: a broker that was started again may be elsewhere. Empty: not known.
	Find func() string
	// PID is the target's process if it is on this machine, else 0.
	PID int
	// Dir takes profiles, traces and copies of /stats and /metrics; it is made.
	// Empty: none are taken.
	Dir string
	// Scenario says when the run is steady, and what is a breach.
	Scenario *scenario.Scenario
	// Profile is how long the CPU profile at steady state takes: whole seconds,
	// at most a quarter of the longest stretch of a
	// measured phase without faults; 0: 5 s; below 0: none.
	Profile time.Duration

	every time.Duration // between samples; for tests
}

// Bounds.
const (
	profileBytes   = 32 << 20
	traceBytes     = 128 << 20
	metricsBytes   = 8 << 20
	answerTimeout  = 10 * time.Second // beyond the time that a profile records
	flightMax      = 3                // traces a run
	flightApart    = 10 * time.Second // between two of them
	breachesMax    = 20
	notesMax       = 20
	profileDefault = 5 * time.Second
	profileMax     = 60 * time.Second
)

// Collector gathers evidence of one run. Make it with Start just before the
// run, give it each interval, and Stop it. Interval may be called from one
// goroutine, Stop from another.
type Collector struct {
	o       Options
	admin   *admin
	sampler *sampler
	cancel  context.CancelFunc
	ctx     context.Context
	ended   chan struct{} // the sampling goroutine has
	stop    chan struct{}
	jobs    sync.WaitGroup
	taking  sync.Mutex // held while a profile or a trace is taken

	profileAt  float64 // s, -1: not or no more
	profileFor time.Duration

	mu       sync.Mutex
	e        Evidence
	wall     []time.Time // of e.Samples
	sampled  time.Time   // the last attempt
	times    []span      // of e.Files
	first    *stats
	last     *stats
	lastDump float64
	dumps    int
}

type span struct{ begin, end time.Time }

// Check asks an admin listener, host:port or a URL, for its state: the error says
// why it can be no source of evidence.
func Check(ctx context.Context, addr string) error {
	a, err := newAdmin(addr)
	if err != nil {
		return err
	}
	defer a.client.CloseIdleConnections()
	b, err := a.bytes(ctx, "/stats", statsBytes, answerTimeout)
	if err != nil {
		return err
	}
	if _, err := parseStats(b); err != nil {
		return fmt.Errorf("%s/stats is not a broker's: %w", a.at(), err)
	}
	return nil
}

// Start begins to sample. Only a malformed address or a directory that cannot be
// made is an error: a target that does not answer becomes a note.
func Start(ctx context.Context, o Options) (*Collector, error) {
	c := &Collector{o: o, ended: make(chan struct{}), stop: make(chan struct{}), profileAt: -1}
	if c.o.every == 0 {
		c.o.every = time.Second
	}
	var err error
	if o.Admin != "" {
		if c.admin, err = newAdmin(o.Admin); err != nil {
			return nil, err
		}
		c.e.Sources = append(c.e.Sources, "admin listener "+strings.TrimPrefix(c.admin.at(), "http://"))
		if o.Dir != "" {
			if err := os.MkdirAll(o.Dir, 0o777); err != nil {
				return nil, err
			}
			c.plan()
		}
	}
	if o.PID != 0 {
		c.e.Sources = append(c.e.Sources, fmt.Sprintf("process %d", o.PID))
	}
	// What was begun outlives ctx: the run drains after it too.
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.sampler = newSampler(c.admin, o.PID)
	if s := c.sample(); s != nil {
		c.first = s
		c.e.Version, c.e.Go, c.e.Engine = s.Version, s.Go, s.Engine
	}
	c.metrics("before")
	go c.run()
	return c, nil
}

// recovery is left to the target after a fault before it counts as steady.
const recovery = 2 * time.Second

// plan chooses when to take profiles: in the longest stretch of a measured phase
// that no fault touches, after its first quarter.
func (c *Collector) plan() {
	if c.o.Profile < 0 || c.o.Scenario == nil {
		return
	}
	var at, length, begin time.Duration
	steady := func(from, until time.Duration) {
		if until-from > length {
			at, length = from, until-from
		}
	}
	faults := slices.SortedFunc(slices.Values(c.o.Scenario.Faults), func(a, b scenario.Fault) int { return cmp.Compare(a.At, b.At) })
	for i := range c.o.Scenario.Phases {
		p := &c.o.Scenario.Phases[i]
		end := begin + p.Duration
		if p.Measured {
			from := begin
			for _, f := range faults {
				steady(from, min(f.At, end))
				from = max(from, f.At+f.For+recovery)
			}
			steady(from, end)
		}
		begin = end
	}
	want := c.o.Profile
	if want == 0 {
		want = profileDefault
	}
	c.profileFor = min(want, length/4, profileMax).Truncate(time.Second)
	if c.profileFor <= 0 {
		c.note("no profiles: the longest steady stretch, %v, has no quarter of a second or more", length)
		return
	}
	c.profileAt = (at + length/4).Seconds()
}

func (c *Collector) run() {
	defer close(c.ended)
	tick := time.NewTicker(c.o.every)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			c.sample()
			return
		case <-tick.C:
			c.sample()
		}
	}
}

// sample takes one and returns the broker's stats, nil if there are none.
func (c *Collector) sample() *stats {
	if c.admin == nil && c.o.PID == 0 {
		return nil
	}
	s, st, errs := c.sampler.take(c.ctx)
	if st == nil && c.admin != nil && c.o.Find != nil {
		if err := c.admin.move(c.o.Find()); err != nil {
			errs = append(errs, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, err := range errs {
		c.noteLocked("%v", err)
	}
	if st != nil {
		c.last = st
	}
	now := time.Now()
	if s != nil {
		s.seconds = now.Sub(c.sampled).Seconds()
		c.e.Samples, c.wall = append(c.e.Samples, *s), append(c.wall, now)
		if len(c.wall) >= 2*samplesMax {
			c.thin()
		}
	}
	c.sampled = now
	return st
}

// thin halves the samples. They are merged before that is asked for, so a long
// run costs memory for samplesMax at most twice.
func (c *Collector) thin() {
	c.e.Samples = halve(c.e.Samples)
	wall := c.wall[:0]
	for i := 1; i < len(c.wall); i += 2 {
		wall = append(wall, c.wall[i])
	}
	if len(c.wall)%2 == 1 {
		wall = append(wall, c.wall[len(c.wall)-1])
	}
	c.wall = wall
}

// Interval looks at what was just measured: is it time for a profile, was an
// objective breached? It does not wait for either.
func (c *Collector) Interval(v load.Interval) {
	if c.profileAt >= 0 && v.End >= c.profileAt {
		c.profileAt = -1
		c.jobs.Go(c.profile)
	}
	b, ok := breach(c.o.Scenario, &v)
	if !ok {
		return
	}
	c.mu.Lock()
	c.e.BreachCount++
	if len(c.e.Breaches) < breachesMax {
		c.e.Breaches = append(c.e.Breaches, b)
	}
	dump := c.admin != nil && c.o.Dir != "" && c.dumps < flightMax && (c.dumps == 0 || v.End-c.lastDump >= flightApart.Seconds())
	if dump {
		c.dumps++
		c.lastDump = v.End
	}
	n := c.dumps
	c.mu.Unlock()
	if dump {
		c.jobs.Go(func() { c.flight(n, b) })
	}
}

// breach says which latency objective an interval of a measured phase misses.
func breach(s *scenario.Scenario, v *load.Interval) (Breach, bool) {
	if s == nil {
		return Breach{}, false
	}
	for i := range s.Phases {
		if p := &s.Phases[i]; p.Name == v.Phase && !p.Measured {
			return Breach{}, false
		}
	}
	for i := range s.Objectives {
		o := &s.Objectives[i]
		if o.AtMost == 0 || v.Phase == "" || o.Phase != "" && o.Phase != v.Phase {
			continue
		}
		if got := metric(&v.Latency, o.Metric); got > int64(o.AtMost) {
			return Breach{At: v.End, Metric: o.Metric, Got: got, Want: int64(o.AtMost)}, true
		}
	}
	return Breach{}, false
}

func metric(l *load.Latencies, name string) int64 {
	of, quantile, _ := strings.Cut(name, "_")
	q := map[string]*load.Quantiles{"e2e": &l.E2E, "ack": &l.Ack, "service": &l.Service}[of]
	if q == nil {
		return 0
	}
	return map[string]int64{"p50": q.P50, "p90": q.P90, "p99": q.P99, "p99_9": q.P999, "max": q.Max}[quantile]
}

// profile takes one after another: a broker records one at a time. A trace that
// is due comes in between.
func (c *Collector) profile() {
	query := fmt.Sprintf("?seconds=%d", int(c.profileFor.Seconds()))
	for _, p := range [][3]string{
		{"cpu.pb.gz", "/debug/pprof/profile" + query, "CPU profile"},
		{"mutex.pb.gz", "/debug/pprof/mutex" + query, "contended mutexes"},
		{"block.pb.gz", "/debug/pprof/block" + query, "blocked goroutines"},
	} {
		c.alone(func() { c.save(p[0], p[1], p[2], profileBytes, c.profileFor+answerTimeout) })
	}
	c.save("heap.pb.gz", "/debug/pprof/heap", "live heap and allocations", profileBytes, answerTimeout)
	c.save("goroutine.pb.gz", "/debug/pprof/goroutine", "goroutines", profileBytes, answerTimeout)
}

func (c *Collector) alone(f func()) {
	c.taking.Lock()
	defer c.taking.Unlock()
	f()
}

// flight takes what the broker's flight recorder holds: the seconds before.
func (c *Collector) flight(n int, b Breach) {
	what := fmt.Sprintf("execution trace; %s was %v until %.0f s, objective %v", b.Metric, time.Duration(b.Got), b.At, time.Duration(b.Want))
	c.alone(func() {
		c.save(fmt.Sprintf("breach-%d.trace", n), "/debug/flight", what, traceBytes, answerTimeout)
	})
}

func (c *Collector) metrics(when string) {
	if c.admin == nil || c.o.Dir == "" {
		return
	}
	c.save("metrics-"+when+".txt", "/metrics", "metrics "+when+" the run", metricsBytes, answerTimeout)
	c.save("stats-"+when+".json", "/stats", "state "+when+" the run", statsBytes, answerTimeout)
}

// save notes the file, or why there is none. One that is refused because
// another is being taken is asked for again for a while.
func (c *Collector) save(name, path, what string, most int64, timeout time.Duration) {
	asked := time.Now()
	begin := asked
	n, err := c.admin.save(c.ctx, path, filepath.Join(c.o.Dir, name), most, timeout)
	for busy := (*busyError)(nil); errors.As(err, &busy) && c.ctx.Err() == nil && time.Since(asked) < answerTimeout; {
		select {
		case <-c.ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
		begin = time.Now()
		n, err = c.admin.save(c.ctx, path, filepath.Join(c.o.Dir, name), most, timeout)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.noteLocked("%s: %v", name, err)
		return
	}
	c.e.Files = append(c.e.Files, File{Name: name, What: what, Bytes: n})
	c.times = append(c.times, span{begin, time.Now()})
}

func (c *Collector) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteLocked(format, args...)
}

// noteLocked keeps each note once, and a bounded number.
func (c *Collector) noteLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(c.e.Notes) >= notesMax {
		return
	}
	for _, n := range c.e.Notes {
		if n == text {
			return
		}
	}
	c.e.Notes = append(c.e.Notes, text)
}

// Stop ends sampling, waits for what is being taken, at most ten seconds longer
// than one profile lasts, and returns the evidence. began is when the run's first
// phase did. It is called once.
func (c *Collector) Stop(began time.Time) *Evidence {
	close(c.stop)
	<-c.ended
	done := make(chan struct{})
	go func() { c.jobs.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(c.profileFor + answerTimeout):
		c.cancel()
		<-done
	}
	c.metrics("after")
	c.cancel()
	if c.admin != nil {
		c.admin.client.CloseIdleConnections()
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.e.Samples) > samplesMax {
		c.thin()
	}
	since := func(t time.Time) float64 { return float64(t.Sub(began).Milliseconds()) / 1e3 }
	for i := range c.e.Samples {
		c.e.Samples[i].At = since(c.wall[i])
	}
	for i := range c.e.Files {
		c.e.Files[i].At, c.e.Files[i].Until = since(c.times[i].begin), since(c.times[i].end)
	}
	c.e.Totals = totals(c.first, c.last)
	if c.last != nil {
		for _, l := range c.last.Latencies {
			if l.Total.Count > 0 && len(c.e.Latencies) < latenciesMax {
				c.e.Latencies = append(c.e.Latencies, Latency{
					Name: l.Name, Count: l.Total.Count, P50: int64(l.Total.P50), P99: int64(l.Total.P99), P999: int64(l.Total.P999), Max: int64(l.Total.Max),
				})
			}
		}
	}
	return &c.e
}
