package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/scenario"
)

func TestMain(m *testing.M) { launchtest.Main(m, func() error { return goleak.Find() }) }

// plan is a scenario of half a second.
func plan(t *testing.T, set ...string) *scenario.Scenario {
	t.Helper()
	all := []scenario.Setting{
		{Path: "phases.0.duration", Value: "100ms"}, {Path: "phases.1.duration", Value: "400ms"}, {Path: "phases.*.rate", Value: "2000"},
		{Path: "limits.drain", Value: "300ms"}, {Path: "payload.source", Value: "text"},
	}
	for _, s := range set {
		x, err := scenario.ParseSetting(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	s, err := scenario.With(all...)
	if err != nil {
		t.Fatal(err)
	}
	s.Payload.Size = "100..300" // where it has a meaning
	return s
}

func execute(t *testing.T, s *scenario.Scenario, b loopback.Behaviour, change func(*Config)) *Result {
	t.Helper()
	file, err := corpus.Generate("text", 64<<10, 1) // the usual pool takes a moment to make
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Scenario: s, Driver: loopback.Open(b), RunID: 7, Corpus: []corpus.File{file}}
	if change != nil {
		change(&cfg)
	}
	r, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Execute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// numbers are the measurements, whether or not a busy machine made the run
// invalid.
func numbers(t *testing.T, res *Result) *Measured {
	t.Helper()
	if res.Measured != nil {
		return res.Measured
	}
	if res.Rejected == nil {
		t.Fatal("no measurements")
	}
	return res.Rejected
}

// Everything adds up: counts, phases, histograms and the series tell of the same
// messages.
func TestCountsAddUp(t *testing.T) {
	var mu sync.Mutex
	var seen []Interval
	var inIntervals Histograms
	snapshots := 0
	s := plan(t, "topics.0.name=a", "keys.count=50", "keys.skew=0.9", "producers.count=3", "phases.main.arrival=poisson")
	s.Topics = append(s.Topics, scenario.Topic{Name: "b", Partitions: 3, Visibility: "ack", Share: 3})
	s.Phases[1].Duration = 1300 * time.Millisecond
	res := execute(t, s, loopback.Behaviour{}, func(c *Config) {
		c.OnInterval = func(v Interval, h Histograms) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, v)
			inIntervals.Merge(h)
		}
		c.Progress = func(Snapshot) { snapshots++ }
	})
	c := res.Counts
	if len(res.Violations) > 0 || !res.Complete || c.Sent < 2000 || c.Acked != c.Sent || c.Delivered != c.Sent || c.Failed+c.Foreign+c.Unanswered != 0 {
		t.Errorf("counts %+v, violations %v, errors %v", c, res.Violations, res.Errors)
	}
	if res.Partitions != 7 || len(res.Topics) != 2 || res.Topics[1].Name != "b-0000000000000007" || res.RunID != "0000000000000007" || res.Durability != driver.Nothing {
		t.Errorf("%+v", res)
	}
	m := numbers(t, res)
	var sum Interval
	for _, v := range m.Series {
		sum.Sent += v.Sent
		sum.Acked += v.Acked
		sum.Delivered += v.Delivered
		sum.Offered += v.Offered
		if v.End <= v.Start {
			t.Errorf("interval %v to %v", v.Start, v.End)
		}
	}
	if sum.Sent != c.Sent || sum.Acked != c.Acked || sum.Delivered != c.Delivered || math.Abs(sum.Offered-2800) > 1 {
		t.Errorf("the series has %d sent, %d acked, %d delivered, %v offered; want %d, and 2800 offered", sum.Sent, sum.Acked, sum.Delivered, sum.Offered, c.Sent)
	}
	if len(m.Series) < 2 || len(seen) != len(m.Series) || snapshots != len(seen) || m.Series[0].Phase != "warm-up" {
		t.Errorf("%d intervals, %d seen, %d snapshots; the first in phase %q", len(m.Series), len(seen), snapshots, m.Series[0].Phase)
	}
	if n := inIntervals.E2E.TotalCount(); n != int64(c.Delivered) {
		t.Errorf("%d latencies in the intervals, %d messages", n, c.Delivered)
	}
	if len(m.Phases) != 2 || m.Phases[0].Latency.E2E.Count != 0 || m.Phases[0].Histograms.E2E != nil {
		t.Errorf("the warm-up is measured: %+v", m.Phases[0])
	}
	main, total := &m.Phases[1], &m.Total
	due := int64(math.Round(main.Offered * main.Seconds))
	if l := main.Latency; l.E2E.Count != due || l.Ack.Count != due || l.Service.Count != due || l.Lag.Count+int64(main.HeldBack) != due {
		t.Errorf("%d messages were due, latencies of %d, %d, %d, lag of %d and %d held back", due, l.E2E.Count, l.Ack.Count, l.Service.Count, l.Lag.Count, main.HeldBack)
	}
	if total.Latency != main.Latency || total.Delivered != main.Delivered || total.Seconds != main.Seconds || total.Start != 0.1 {
		t.Errorf("total %+v differs from the one measured phase %+v", total, main)
	}
	if l := main.Latency; l.E2E.P50 < l.Lag.P50 || l.Ack.P50 < l.Service.P50 {
		t.Errorf("latencies %+v: what counts from the intended time is shorter than what does not", l)
	}
	if res.Wire.Batches == 0 || res.Wire.MessagesPerBatch < 1 || res.Generator.CPUSeconds == 0 || !res.Generator.ExactPacing {
		t.Errorf("wire %+v, generator %+v", res.Wire, res.Generator)
	}
	if p := res.Payload; p.MeanBytes < 150 || p.MeanBytes > 250 || p.Entropy < 3 || p.Zstd1 < 1.5 {
		t.Errorf("payload %+v", p)
	}
	if again, err := scenario.Parse("x.yaml", []byte(res.Resolved)); err != nil || again.Hash() != res.Hash {
		t.Errorf("the resolved scenario: %v", err)
	}
}

// The result survives JSON, histograms included.
func TestResultJSON(t *testing.T) {
	res := execute(t, plan(t), loopback.Behaviour{}, nil)
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var got Result
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	m, want := numbers(t, &got), numbers(t, res)
	if got.Counts != res.Counts || m.Total.Latency != want.Total.Latency || got.Hash != res.Hash || len(m.Series) != len(want.Series) {
		t.Errorf("came back as %+v", got)
	}
	if q := Summarise(m.Total.Histograms.E2E); q != want.Total.Latency.E2E {
		t.Errorf("histogram came back as %+v, want %+v", q, want.Total.Latency.E2E)
	}
	if d, ok := got.System.Gives(plan(t).Producers.AckLevel()); !ok || d != driver.Nothing {
		t.Errorf("the description came back as %+v", got.System)
	}
}

// Faults of the target are found and counted exactly: the instrument measured
// against known behaviour.
func TestFaultsAreFoundAndQuantified(t *testing.T) {
	const every = 100
	for name, tt := range map[string]struct {
		b    loopback.Behaviour
		kind string
		of   func(*Result) uint64
	}{
		"dropped":    {loopback.Behaviour{DropEvery: every}, Lost, func(r *Result) uint64 { return r.Counts.Lost }},
		"duplicated": {loopback.Behaviour{DuplicateEvery: every}, Duplicated, func(r *Result) uint64 { return r.Counts.Duplicated }},
		// Which bit it is depends on the order of arrival. A value whose first bytes
		// are spoilt is beyond recognition, and counts as nobody's.
		"flipped": {loopback.Behaviour{FlipEvery: every}, Corrupt, func(r *Result) uint64 { return r.Counts.Corrupt + r.Counts.Phantom }},
		"refused": {loopback.Behaviour{RefuseEvery: every}, "", func(r *Result) uint64 { return r.Counts.UnackedDelivered }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := execute(t, plan(t), tt.b, nil)
			if !res.Complete {
				t.Error("what is lost for good was waited for")
			}
			if got, want := tt.of(res), res.Counts.Sent/every; got != want || want < 8 {
				t.Errorf("%d found of %d; counts %+v", got, want, res.Counts)
			}
			if tt.kind == "" {
				if len(res.Violations) > 0 {
					t.Errorf("violations %v, want none", res.Violations)
				}
				return
			}
			if !slices.ContainsFunc(res.Violations, func(p Problem) bool { return p.Kind == tt.kind }) || res.ExitStatus() != 4 {
				t.Errorf("violations %v, status %d", res.Violations, res.ExitStatus())
			}
			for _, p := range res.Violations {
				// A flipped message is lost too.
				if p.Kind != tt.kind && !(tt.kind == Corrupt && (p.Kind == Lost || p.Kind == Phantom)) {
					t.Errorf("another violation: %v", p)
				}
			}
		})
	}
	// Reordering needs loads of several messages: one lane, at a high rate.
	t.Run("reordered", func(t *testing.T) {
		t.Parallel()
		res := execute(t, plan(t, "topics.0.partitions=1", "consumers.count=1", "producers.count=1", "phases.*.rate=100000", "phases.*.duration=100ms"), loopback.Behaviour{ReorderEvery: every}, nil)
		if n := res.Counts.Reordered; n == 0 || n > res.Counts.Sent/every {
			t.Errorf("%d reordered of at most %d", n, res.Counts.Sent/every)
		}
		if res.Counts.Lost+res.Counts.Duplicated+res.Counts.Corrupt != 0 {
			t.Errorf("counts %+v", res.Counts)
		}
	})
}

// A target that stands still for a while shows in latency from intended times,
// in proportion to the time, not as one slow message.
func TestAStallIsSeenByAllWhoWereDue(t *testing.T) {
	s := plan(t, "phases.0.duration=50ms", "phases.1.duration=950ms")
	res := execute(t, s, loopback.Behaviour{Stall: 300 * time.Millisecond, StallAt: 300 * time.Millisecond}, nil)
	if len(res.Violations) > 0 {
		t.Fatalf("violations %v", res.Violations)
	}
	m := numbers(t, res)
	l := m.Total.Latency.E2E
	// Upper bounds would be about the machine: other tests share it.
	if d := time.Duration(l.Max); d < 280*time.Millisecond {
		t.Errorf("longest latency %v, want about the stall's 300 ms", d)
	}
	// 300 of 950 ms of messages waited, evenly between 0 and 300 ms: 16 % of
	// all waited for more than 150 ms.
	late := int64(0)
	for _, b := range m.Total.Histograms.E2E.Distribution() {
		if b.From >= int64(150*time.Millisecond) {
			late += b.Count
		}
	}
	if share := float64(late) / float64(l.Count); share < 0.12 {
		t.Errorf("%.0f %% of the messages waited for more than half the stall, want 16 %%", 100*share)
	}
}

// A service time of 5 ms on 1 % of messages is quantified.
func TestSlowMessages(t *testing.T) {
	s := plan(t, "topics.0.partitions=1", "consumers.count=1", "producers.count=1", "phases.*.rate=500", "phases.1.duration=900ms")
	res := execute(t, s, loopback.Behaviour{Slow: 20 * time.Millisecond, SlowEvery: 50}, nil)
	l := numbers(t, res).Total.Latency
	if d := time.Duration(l.E2E.P99); d < 15*time.Millisecond {
		t.Errorf("p99 %v, want about 20 ms; all %+v", d, l)
	}
	// Each keeps the ten behind it waiting: 20 ms in 100 ms, a fifth.
	waited := int64(0)
	for _, b := range numbers(t, res).Total.Histograms.E2E.Distribution() {
		if b.From >= int64(4*time.Millisecond) {
			waited += b.Count
		}
	}
	if share := float64(waited) / float64(l.E2E.Count); share < 0.10 {
		t.Errorf("%.0f %% waited for more than 4 ms, want 16 %%", 100*share)
	}
}

func TestClosedLoop(t *testing.T) {
	s := plan(t, "loop=closed", "producers.in_flight=10", "phases.*.duration=150ms", "phases.*.rate=1")
	res := execute(t, s, loopback.Behaviour{}, nil)
	m := numbers(t, res)
	if len(res.Violations) > 0 || len(res.Invalid) > 0 || res.Counts.Sent < 1000 || res.Loop != "closed" {
		t.Errorf("counts %+v, violations %v, invalid %v", res.Counts, res.Violations, res.Invalid)
	}
	if p := m.Phases[1]; p.Offered != 0 || p.Delivered < 1000 || p.Latency.Lag.Count != 0 || p.Latency.E2E.Count == 0 {
		t.Errorf("phase %+v", p)
	}
}

func TestEveryCodec(t *testing.T) {
	for _, codec := range []string{"raw", "cbor", "json", "msgpack"} {
		res := execute(t, plan(t, "producers.codec="+codec, "phases.*.duration=60ms", "keys.count=3"), loopback.Behaviour{}, nil)
		if c := res.Counts; len(res.Violations) > 0 || c.Delivered != c.Sent || c.Sent == 0 {
			t.Errorf("%s: counts %+v, violations %v, errors %v", codec, c, res.Violations, res.Errors)
		}
	}
}

func TestTraceIsReplayed(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString("#portask-trace 1\n")
	for i := range 100 {
		fmt.Fprintf(&b, "%d,%d,%x\n", i*1_000_000, 100+i, i%4)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.trace"), []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	s := plan(t, "phases.1.arrival=trace", "phases.1.file=x.trace", "phases.1.speed=2", "phases.1.duration=45ms")
	s.Dir = dir
	res := execute(t, s, loopback.Behaviour{}, nil)
	m := numbers(t, res)
	// At twice the speed 45 ms are the first 90 messages; the warm-up has 200.
	if p := m.Phases[1]; math.Round(p.Offered*p.Seconds) != 90 || len(res.Violations) > 0 || res.Counts.Delivered != 290 {
		t.Errorf("offered %v for %v s, counts %+v, violations %v", p.Offered, p.Seconds, res.Counts, res.Violations)
	}
	s.Phases[1].File = "none"
	if _, err := New(t.Context(), Config{Scenario: s, Driver: loopback.Open(loopback.Behaviour{})}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a trace that is not there: %v", err)
	}
}

// Payloads of every kind are verified: lines of a file, sizes of each
// distribution.
func TestPayloads(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"lines.jsonl": "{\"a\":1}\n{\"b\":22}\n", "sizes.csv": "60,1\n600,1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, set := range [][]string{
		{"payload.source=lines.jsonl", "payload.split=line"},
		{"payload.source=lines.jsonl", "payload.distribution=empirical", "payload.sizes=sizes.csv"},
		{"payload.distribution=lognormal"}, {"payload.distribution=zipf"}, {"payload.source=compressed"},
	} {
		s := plan(t, append(set, "phases.*.duration=30ms")...)
		s.Dir = dir
		res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Corpus = nil })
		if c := res.Counts; len(res.Violations) > 0 || c.Delivered != c.Sent || c.Sent == 0 {
			t.Errorf("%q: counts %+v, violations %v", set, c, res.Violations)
		}
		switch {
		case strings.Contains(set[1%len(set)], "line") && (res.Payload.Size != "lines" || res.Payload.MeanBytes > 60):
			t.Errorf("%q: payload %+v", set, res.Payload)
		case strings.Contains(set[0], "compressed") && res.Payload.Zstd1 > 1.6: // headers of small values compress
			t.Errorf("%q: payload %+v", set, res.Payload)
		}
	}
}

// The same seed sends the same messages in the same lanes at the same times.
func TestSameSeedSameStream(t *testing.T) {
	stream := func(seed string) []string {
		s := plan(t, "seed="+seed, "phases.1.arrival=poisson", "keys.count=20", "keys.skew=1.2", "phases.*.duration=50ms", "producers.count=2")
		rec := &recording{Driver: loopback.Open(loopback.Behaviour{})}
		execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Driver = rec })
		return rec.sent
	}
	a, b, c := stream("5"), stream("5"), stream("6")
	if len(a) < 100 || !slices.Equal(a, b) {
		t.Errorf("%d and %d messages with the same seed; equal %v", len(a), len(b), slices.Equal(a, b))
	}
	if slices.Equal(a, c) {
		t.Error("another seed sent the same")
	}
}

func TestUnsupportedIsTyped(t *testing.T) {
	for _, mode := range []string{"group", "queue"} {
		_, err := New(t.Context(), Config{Scenario: plan(t, "consumers.delivery="+mode), Driver: loopback.Open(loopback.Behaviour{})})
		if u := driver.AsUnsupported(err); u == nil || !strings.Contains(u.What, mode) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	d := loopback.Open(loopback.Behaviour{})
	s := scenario.Default()
	s.Phases = nil
	for name, cfg := range map[string]Config{
		"no scenario": {Driver: d}, "no driver": {Scenario: scenario.Default()}, "an invalid scenario": {Scenario: s, Driver: d},
		"no such process": {Scenario: plan(t), Driver: d, TargetPID: 1 << 30},
		"no such payload": {Scenario: plan(t, "payload.source=nonsense"), Driver: d},
		"no such topic":   {Scenario: plan(t, "topics.0.existing=true"), Driver: d},
	} {
		if _, err := New(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// An interrupted run is drained and judged, and says so.
func TestInterruptedRun(t *testing.T) {
	r, err := New(t.Context(), Config{Scenario: plan(t, "phases.1.duration=1h"), Driver: loopback.Open(loopback.Behaviour{})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cfg.Progress = func(Snapshot) { cancel() }
	res, err := r.Execute(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Interrupted || res.ExitStatus() != 3 || res.Measured != nil || res.Counts.Delivered != res.Counts.Sent || res.Counts.Sent < 100 {
		t.Errorf("interrupted %v, status %d, counts %+v", res.Interrupted, res.ExitStatus(), res.Counts)
	}
}

// The real thing, over its socket: several topics, keys, documents, compression,
// every ack level.
func TestPortask(t *testing.T) {
	b := launchtest.Start(t)
	for _, ack := range []string{"none", "accepted", "durable"} {
		t.Run("ack="+ack, func(t *testing.T) {
			t.Parallel()
			d, err := portask.Open(t.Context(), b.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			s := plan(t, "producers.ack="+ack, "producers.codec=cbor", "producers.compression=threshold:zstd", "keys.count=100", "limits.drain=20s")
			s.Topics = append(s.Topics, scenario.Topic{Name: "second", Partitions: 2, Visibility: "durable", Share: 2})
			res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Driver, c.TargetPID, c.RunID = d, b.PID(), 0 })
			c := res.Counts
			if len(res.Violations) > 0 || !res.Complete || c.Sent != 1000 || c.Acked != c.Sent || c.Delivered != c.Sent {
				t.Errorf("counts %+v, violations %v, invalid %v, errors %v", c, res.Violations, res.Invalid, res.Errors)
			}
			if res.System.System != "portask" || res.System.Version == "" || res.Target == nil || res.Target.RSSBytes == 0 || res.Wire.Compression == 0 {
				t.Errorf("system %+v, target %+v, wire %+v", res.System, res.Target, res.Wire)
			}
			if ack != "none" && res.Durability == driver.Nothing {
				t.Errorf("durability %q", res.Durability)
			}
		})
	}
}

// Each shipped scenario of a load without faults runs, at small scale.
func TestShippedScenarios(t *testing.T) {
	for _, name := range scenario.Shipped() {
		s, err := scenario.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if s.Kind != scenario.KindLoad || len(s.Faults) > 0 { // packages conns and fault test those
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range s.Phases {
				p := &s.Phases[i]
				p.Duration = min(p.Duration, 100*time.Millisecond)
				for _, rate := range []*float64{&p.Rate, &p.To, &p.Amplitude, &p.Base} {
					*rate /= 10
				}
				p.Period = min(p.Period, p.Duration)
			}
			s.Objectives = nil
			s.Producers.InFlight = 20
			res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Corpus = nil })
			c := res.Counts
			if len(res.Violations) > 0 || !res.Complete || c.Sent == 0 || c.Delivered != c.Sent {
				t.Errorf("counts %+v, violations %v, errors %v", c, res.Violations, res.Errors)
			}
		})
	}
}
