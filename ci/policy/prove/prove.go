// Package prove sets adaptive compression beside every static choice on the real
// programs: broker, producer, consumer, and a link that is limited where the scenario
// says so. All choices of a scenario run in turn, round by round, so that what the
// machine does meanwhile happens to all; ratios are taken within a round.
//
// The cost of a message is what the policy minimises, from the outside:
//
//	CPU of producer, broker and consumer · price + bytes on the link / its rate
//
// in seconds for a million messages, with the price of CPU that the scenario's
// burners make, 1/(1 - their share), and the bytes counted to the broker and on to
// the consumer.
package prove

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/stat"
)

// Adaptive is the choice that is to be proved.
const Adaptive = "adaptive"

// Static are the choices it is set beside: all algorithms, tried on every batch, and
// none.
var Static = []string{"never", "always:snappy", "always:lz4", "always:zstd", "always:gzip", "always:brotli"}

// ParseChoices reads names with commas between them; none are all.
func ParseChoices(list string) ([]string, error) {
	all := append([]string{Adaptive}, Static...)
	if list == "" {
		return all, nil
	}
	some := strings.Split(list, ",")
	for _, s := range some {
		if !slices.Contains(all, s) {
			return nil, fmt.Errorf("%q is none of %s", s, strings.Join(all, ", "))
		}
	}
	return some, nil
}

// Scenario is one of the proof's.
type Scenario struct {
	lab.LinkScenario
	Title string `json:"title"`
	// Burn is the share of the processors, in percent, that others keep busy.
	Burn int `json:"burn_percent"`
	// Ahead: adaptive is to be better than the best static choice, not only near it.
	Ahead bool `json:"ahead"`
}

// Price of CPU in the scenario.
func (s *Scenario) Price() float64 { return min(1/(1-float64(s.Burn)/100), 10) }

// Scenarios are those of the proof; each run is measured for d. In the first of the
// two that change, one algorithm is nearly the best for both kinds; in the second, each
// has a level of its own.
func Scenarios(d time.Duration) []Scenario {
	base := lab.LinkScenario{InFlight: 2048, Warmup: min(d/3, 2*time.Second), Duration: d}
	with := func(name, title, payload string, link int64, burn, turn int, ahead bool) Scenario {
		s := base
		s.Name, s.Payload, s.LinkBytes, s.Turn = name, payload, link, turn
		return Scenario{LinkScenario: s, Title: title, Burn: burn, Ahead: ahead}
	}
	return []Scenario{
		with("slow-link", "idle CPU, slow link (8 MB/s), JSON", "json", 8e6, 0, 0, false),
		with("busy-cpu", "busy CPU (80 % burnt by others), fast link (loopback), JSON", "json", 0, 80, 0, false),
		with("changing", "JSON and random bytes in turns of 10,000, link of 16 MB/s", "json,random", 16e6, 0, 10_000, true),
		with("levels", "text and metrics in turns of 10,000, link of 4 MB/s", "text,metrics", 4e6, 0, 10_000, true),
		with("random", "incompressible bytes, link of 16 MB/s", "random", 16e6, 0, 0, false),
	}
}

// Run is one measurement.
type Run struct {
	Round int `json:"round"`
	// At is when it was done.
	At     time.Time   `json:"at"`
	Choice string      `json:"choice"`
	Result lab.LinkRun `json:"result"`
}

// Cost of a million messages in s.
func (r *Run) Cost(s *Scenario) float64 {
	x := &r.Result
	cost := (x.BrokerCPU + x.GeneratorCPU) * s.Price()
	if s.LinkBytes > 0 {
		cost += 2 * x.WirePerMsg * 1e6 / float64(s.LinkBytes)
	}
	return cost
}

// Proof is everything that was measured.
type Proof struct {
	Quick     bool       `json:"quick"`
	Rounds    int        `json:"rounds"`
	Machine   any        `json:"machine"`
	Commit    string     `json:"commit"`
	Choices   []string   `json:"choices"`
	Scenarios []Scenario `json:"scenarios"`
	Runs      [][]Run    `json:"runs"` // of each scenario
}

// Lab is what runs scenarios; *lab.Lab is the real one.
type Lab interface {
	RunLink(ctx context.Context, s lab.LinkScenario) (lab.LinkRun, error)
}

// Burner starts burners of a share of the processors; stop ends them.
type Burner func(ctx context.Context, percent int) (stop func(), err error)

// Measure fills p.Runs: rounds of all choices of all scenarios. The order of the
// choices turns with the round.
func (p *Proof) Measure(ctx context.Context, l Lab, burn Burner, log io.Writer) error {
	p.Runs = make([][]Run, len(p.Scenarios))
	for round := range p.Rounds {
		for i := range p.Scenarios {
			s := &p.Scenarios[i]
			if err := p.round(ctx, l, burn, log, i, s, round, p.Choices); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Proof) round(ctx context.Context, l Lab, burn Burner, log io.Writer, i int, s *Scenario, round int, choices []string) error {
	if s.Burn > 0 {
		stop, err := burn(ctx, s.Burn)
		if err != nil {
			return err
		}
		defer stop()
	}
	for k := range choices {
		c := choices[(k+round)%len(choices)]
		x := s.LinkScenario
		x.Compression = c
		r, err := l.RunLink(ctx, x)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", s.Name, c, err)
		}
		run := Run{Round: round, At: time.Now().UTC(), Choice: c, Result: r}
		p.Runs[i] = append(p.Runs[i], run)
		fmt.Fprintf(log, "%-10s round %d %-14s %8.0f msg/s  p99 %7.1f ms  CPU %6.2f s/M  %6.0f B/msg  cost %7.2f s/M\n", s.Name, round+1, c, r.Rate,
			r.P99/1e6, r.BrokerCPU+r.GeneratorCPU, r.WirePerMsg, run.Cost(s))
	}
	return nil
}

// figure is one of those that are compared; of all, less is better.
type figure struct {
	name string
	of   func(s *Scenario, r *Run) float64
}

var figures = []figure{
	{"cost", func(s *Scenario, r *Run) float64 { return r.Cost(s) }},
	{"time a message", func(_ *Scenario, r *Run) float64 { return 1 / r.Result.Rate }},
	{"p99", func(_ *Scenario, r *Run) float64 { return r.Result.P99 }},
}

// Comparison is adaptive against a static choice: the one with the least median of
// the figure (Alone), or the one with the least cost, which is what one who must
// choose would take.
type Comparison struct {
	Scenario string `json:"scenario"`
	Figure   string `json:"figure"`
	Best     string `json:"best"`
	// Alone: Best is the best of this figure, whatever it costs.
	Alone bool `json:"alone"`
	// Ratio is the median over the rounds of adaptive / best within a round: below 1
	// adaptive is better. Low and High are the least and the greatest: with n rounds
	// the true median lies between with a probability of 1 - 2^(1-n).
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	// Reached: within 5 %, or ahead where that is wanted.
	Reached bool `json:"reached"`
}

// within is how much worse than the best static choice adaptive may be.
const within = 1.05

// Compare compares every figure of every scenario with that of the cheapest static
// choice, and of the best one for this figure alone if that is another.
func (p *Proof) Compare() (all []Comparison) {
	for i := range p.Scenarios {
		s := &p.Scenarios[i]
		cheapest := ""
		for _, f := range figures {
			by := map[string][]float64{}
			for k := range p.Runs[i] {
				r := &p.Runs[i][k]
				by[r.Choice] = append(by[r.Choice], f.of(s, r))
			}
			best, least := "", math.Inf(1)
			for _, name := range Static {
				if m := stat.Median(by[name]); len(by[name]) > 0 && m < least {
					least, best = m, name
				}
			}
			if f.name == "cost" {
				cheapest = best
			}
			beside := []string{cheapest}
			if best != cheapest {
				beside = append(beside, best)
			}
			for _, against := range beside {
				c := Comparison{Scenario: s.Name, Figure: f.name, Best: against, Alone: against != cheapest}
				var ratios []float64
				for k, v := range by[Adaptive] {
					if k < len(by[against]) {
						ratios = append(ratios, v/by[against][k])
					}
				}
				if len(ratios) == 0 {
					continue
				}
				c.Ratio, c.Low, c.High = stat.Median(ratios), slices.Min(ratios), slices.Max(ratios)
				c.Reached = c.Ratio <= within
				if s.Ahead && f.name == "cost" {
					c.Reached = c.Ratio < 1
				}
				all = append(all, c)
			}
		}
	}
	return all
}

// Markdown writes the proof as a page.
func (p *Proof) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Adaptive compression beside every static choice\n\n")
	fmt.Fprintf(&b, "`perflab policy prove`, %d rounds, all choices of a scenario in turn within each; commit %s; %v. Real programs: a broker, and a\n", p.Rounds, p.Commit, p.Machine)
	fmt.Fprintf(&b, "loadgen with one producer and one consumer of 1 KiB messages that go as fast as answers come and verify each message.\n\n")
	b.WriteString("The cost of a million messages is the CPU of producer, broker and consumer, in seconds, times the price that CPU has under the\n" +
		"scenario's load (1/(1-share)), plus the seconds that their bytes take on the link, to the broker and on to the consumer. CPU is that\n" +
		"of whole runs: making and verifying messages is in it, for all choices alike.\n\n")
	if p.Quick {
		b.WriteString("This was a quick run: it shows that the harness works; its figures say little.\n\n")
	}
	b.WriteString("Each figure stands beside that of the static choice that costs least, and, where another is the best by this figure alone,\n" +
		"beside that one: no choice can be near the best throughput, the best tail and the least cost where these are three.\n\n" +
		"| scenario | figure | beside | adaptive / that | least to greatest | within 5 %, ahead where wanted |\n| --- | --- | --- | ---: | ---: | --- |\n")
	for _, c := range p.Compare() {
		word := "no"
		if c.Reached {
			word = "yes"
		}
		beside := c.Best + ", the cheapest"
		if c.Alone {
			beside = c.Best + ", the best by this alone"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.3f | %.3f to %.3f | %s |\n", c.Scenario, c.Figure, beside, c.Ratio, c.Low, c.High, word)
	}
	for i := range p.Scenarios {
		s := &p.Scenarios[i]
		fmt.Fprintf(&b, "\n## %s: %s\n\nMedians over the rounds.\n\n| choice | msg/s | p99 ms | CPU s/M | of it broker | bytes a message | cost s/M |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n", s.Name, s.Title)
		for _, choice := range p.Choices {
			of := func(f func(r *Run) float64) float64 {
				var x []float64
				for k := range p.Runs[i] {
					if r := &p.Runs[i][k]; r.Choice == choice {
						x = append(x, f(r))
					}
				}
				return stat.Median(x)
			}
			fmt.Fprintf(&b, "| %s | %.0f | %.1f | %.2f | %.2f | %.0f | %.2f |\n", choice, of(func(r *Run) float64 { return r.Result.Rate }),
				of(func(r *Run) float64 { return r.Result.P99 / 1e6 }), of(func(r *Run) float64 { return r.Result.BrokerCPU + r.Result.GeneratorCPU }),
				of(func(r *Run) float64 { return r.Result.BrokerCPU }), of(func(r *Run) float64 { return r.Result.WirePerMsg }), of(func(r *Run) float64 { return r.Cost(s) }))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
