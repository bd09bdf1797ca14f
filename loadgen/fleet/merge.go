package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
)

// gather puts the agents' intervals side by side, by the second in whose middle
// they lie. A second is told when every agent still running has told a later one.
type gather struct {
	o      Options
	agents int
	last   map[*member]int // second told last; ended agents are not in it
	open   map[int]*second
	series load.Series
	told   int // seconds before it are told
	sum    load.Snapshot
}

type second struct {
	v load.Interval
	h load.Histograms
	n int
}

func newGather(o Options, agents int) *gather {
	return &gather{o: o, agents: agents, last: map[*member]int{}, open: map[int]*second{}}
}

func (g *gather) add(m *member, v *interval) {
	at := max(g.told, int(min(math.Max(0, (v.Start+v.End)/2), 1e6)))
	x := g.open[at]
	if x == nil {
		x = &second{}
		g.open[at] = x
	}
	x.add(v)
	g.last[m] = at
	g.flush()
}

// add appends an agent's interval to those of the others.
func (x *second) add(v *interval) {
	seconds := v.Seconds()
	if x.n == 0 {
		x.v = v.Interval
		x.v.Generator, x.v.Spin, x.v.Target, x.v.Outstanding = v.Generator*seconds, v.Spin*seconds, nil, 0
	} else {
		t := &x.v
		t.Start, t.End = min(t.Start, v.Start), max(t.End, v.End)
		t.Offered += v.Offered
		t.Sent += v.Sent
		t.Acked += v.Acked
		t.Failed += v.Failed
		t.Delivered += v.Delivered
		t.Bytes += v.Bytes
		t.HeldBack += v.HeldBack
		t.Generator += v.Generator * seconds
		t.Spin += v.Spin * seconds
	}
	x.n++
	x.h.Merge(v.Histograms)
}

func (g *gather) end(m *member) {
	delete(g.last, m)
	g.agents--
	g.flush()
}

// flush tells the seconds that are complete.
func (g *gather) flush() {
	if g.agents == 0 || len(g.last) < g.agents {
		return
	}
	until := math.MaxInt
	for _, at := range g.last {
		until = min(until, at)
	}
	g.tell(until)
}

func (g *gather) finish() { g.tell(math.MaxInt) }

func (g *gather) tell(until int) {
	var ready []int
	for at := range g.open {
		if at < until {
			ready = append(ready, at)
		}
	}
	slices.Sort(ready)
	for _, at := range ready {
		x := g.open[at]
		delete(g.open, at)
		g.told = at + 1
		v := &x.v
		if s := v.Seconds(); s > 0 {
			v.Generator /= s
			v.Spin /= s
		}
		g.sum.Sent += v.Sent
		g.sum.Acked += v.Acked
		g.sum.Failed += v.Failed
		g.sum.Delivered += v.Delivered
		if done := g.sum.Delivered + g.sum.Failed; g.sum.Sent > done {
			v.Outstanding = g.sum.Sent - done
		}
		v.Latency = x.h.Summarise()
		g.series.Add(*v, x.h)
		if g.o.OnInterval != nil {
			g.o.OnInterval(*v, x.h)
		}
		if g.o.Progress != nil {
			g.sum.Elapsed, g.sum.Planned, g.sum.Last = time.Duration(v.End*1e9), g.o.Scenario.Duration(), *v
			g.o.Progress(g.sum)
		}
	}
}

// checkHistograms refuses what would not merge without loss.
func checkHistograms(h *load.Histograms) error {
	want := pace.NewHistogram()
	for _, x := range []*hdrhistogram.Histogram{h.E2E, h.Ack, h.Service, h.Lag} {
		if x != nil && (x.LowestTrackableValue() != want.LowestTrackableValue() || x.HighestTrackableValue() != want.HighestTrackableValue() || x.SignificantFigures() != want.SignificantFigures()) {
			return errors.New("a histogram of another range: the agent's version is another one")
		}
	}
	return nil
}

func measuredOf(res *load.Result) *load.Measured { return cmp.Or(res.Measured, res.Rejected) }

// checkResult refuses a result that is not of the share.
func checkResult(res *load.Result, s *scenario.Scenario) error {
	m := measuredOf(res)
	if res.Schema != load.Schema || m == nil || len(m.Phases) != len(s.Phases) {
		return errors.New("a result of another scenario or version")
	}
	for i := range m.Phases {
		if err := checkHistograms(&m.Phases[i].Histograms); err != nil {
			return err
		}
	}
	return checkHistograms(&m.Total.Histograms)
}

// errorsMax of the clients' errors are kept.
const errorsMax = 8

// merge makes one result of those that there are.
func (f *fleet) merge(began time.Time, series []load.Interval, interrupted bool) *load.Result {
	s := f.o.Scenario
	out := &load.Result{
		Schema: load.Schema, RunID: fmt.Sprintf("%016x", f.runID), Began: began,
		Scenario: s.Name, Hash: s.Hash(), Resolved: string(s.YAML()), Loop: s.Loop, Ack: s.Producers.Ack,
		Producers: s.Producers.Count, Consumers: s.Consumers.Count, Complete: true, Interrupted: interrupted, Generator: load.Generator{ExactPacing: true},
	}
	for i, t := range f.topics {
		v := t.Visibility.String()
		out.Topics = append(out.Topics, load.TopicInfo{Name: t.Name, Partitions: t.Partitions, Visibility: v})
		out.Partitions += t.Partitions
		if i > 0 && v != out.Visibility {
			v = "mixed"
		}
		out.Visibility = v
	}
	total := &load.Measured{Series: series, Total: load.Phase{Name: "total", Measured: true}}
	var invalid []load.Problem
	bad := func(kind string, m *member, format string, args ...any) {
		invalid = append(invalid, load.Problem{Kind: kind, Text: "agent " + m.Name + " " + fmt.Sprintf(format, args...)})
	}
	var worst time.Duration
	var batched float64
	for _, m := range f.members {
		worst = max(worst, time.Duration(m.ClockError))
		if time.Duration(m.ClockError) > clockMax {
			bad(load.ClockBound, m, "has a clock that is known to %v only, more than %v", time.Duration(m.ClockError), clockMax)
		}
		if time.Duration(m.Late) > lateMax {
			bad(load.AgentLate, m, "began %v late, more than %v", time.Duration(m.Late), lateMax)
		}
		if m.res == nil {
			bad(load.AgentLost, m, "was lost: %v", m.failed)
			out.Complete = false
			out.Agents = append(out.Agents, m.Agent)
			continue
		}
		res := m.res
		for _, p := range res.Invalid {
			p.Text = "agent " + m.Name + ": " + p.Text
			invalid = append(invalid, p)
		}
		m.Counts, m.Generator = res.Counts, res.Generator
		out.Agents = append(out.Agents, m.Agent)
		if out.System.System == "" {
			out.System, out.Durability = res.System, res.Durability
			out.Payload = res.Payload
			out.Payload.Stats = payload.Stats{}
		}
		addStats(&out.Payload.Stats, &res.Payload.Stats)
		addCounts(&out.Counts, &res.Counts)
		out.OffsetsBack += res.OffsetsBack
		batched += res.Wire.MessagesPerBatch * float64(res.Wire.Batches)
		addWire(&out.Wire, &res.Wire)
		g := &out.Generator
		g.CPUSeconds += res.Generator.CPUSeconds
		g.SpinSeconds += res.Generator.SpinSeconds
		g.Share, g.Steal = max(g.Share, res.Generator.Share), max(g.Steal, res.Generator.Steal)
		g.ExactPacing = g.ExactPacing && res.Generator.ExactPacing
		out.Complete = out.Complete && res.Complete
		out.Interrupted = out.Interrupted || res.Interrupted
		for _, e := range res.Errors {
			if len(out.Errors) < errorsMax {
				out.Errors = append(out.Errors, "agent "+m.Name+": "+e)
			}
		}
		addMeasured(total, measuredOf(res))
	}
	if w := &out.Wire; w.Batches > 0 {
		w.MessagesPerBatch = batched / float64(w.Batches)
	}
	if w := &out.Wire; w.Bytes > 0 {
		w.Compression = float64(w.RawBytes) / float64(w.Bytes)
	}
	for i := range total.Phases {
		total.Phases[i].Latency = total.Phases[i].Histograms.Summarise()
	}
	total.Total.Latency = total.Total.Histograms.Summarise()
	out.Measured = total
	out.Notes = append(out.Notes, fmt.Sprintf("%d agents; their clocks are known to %v; latencies are of one clock each", len(f.members), worst))
	out.JudgeShared(s, invalid)
	return out
}

// addMeasured adds one agent's phases; phases are as long everywhere, so rates
// add.
func addMeasured(to, from *load.Measured) {
	if len(to.Phases) == 0 {
		to.Phases = make([]load.Phase, len(from.Phases))
	}
	for i := range from.Phases {
		addPhase(&to.Phases[i], &from.Phases[i])
	}
	addPhase(&to.Total, &from.Total)
}

func addPhase(to, from *load.Phase) {
	to.Name, to.Measured, to.Start, to.Seconds = from.Name, from.Measured, from.Start, from.Seconds
	to.Offered += from.Offered
	to.Sent += from.Sent
	to.Acked += from.Acked
	to.Delivered += from.Delivered
	to.DeliveredMBps += from.DeliveredMBps
	to.HeldBack += from.HeldBack
	to.HeldBackMax = max(to.HeldBackMax, from.HeldBackMax)
	to.Histograms.Merge(from.Histograms)
}

func addWire(to, from *load.Wire) {
	to.Batches += from.Batches
	to.Bytes += from.Bytes
	to.RawBytes += from.RawBytes
	to.Retries += from.Retries
	to.Duplicates += from.Duplicates
}
