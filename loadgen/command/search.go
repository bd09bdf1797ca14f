package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report/folder"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/search"
)

// searchFlags are the flags of `loadgen search`.
type searchFlags struct {
	target   targetFlags
	scenario scenarioFlags
	options  search.Options
	quantile map[string]*time.Duration // by its name in metrics
	latency  string
	probe    time.Duration
	jsonFile string
	dir      string
	quiet    bool

	fromGiven bool // otherwise options.From is brought between Min and Max
}

func (p *Program) searchCommand() *cobra.Command {
	f := searchFlags{quantile: map[string]*time.Duration{}}
	c := &cobra.Command{
		Use:   "search --p99 1ms [FILE | NAME]",
		Short: "Find the highest rate that is sustained under an objective",
		Long: `Find the highest rate that is sustained under an objective.

The scenario's topics, clients and payloads are run at one rate after the other. A probe passes if the latency keeps the
objective, 99 % of the offered rate is delivered while it lasts, the backlog does not grow, and no message is lost or given
up. The bracket is found by doubling and cut in three by probes in random order, three a rate near the edge; the value is
then confirmed, and the rate above it refuted, by fresh probes.

Where the generator is the limit the search ends and says so (exit status 3): there is no number then. A late generator
makes latencies look worse than they are; a probe that passes all the same has passed. Exit status 2: not even the lowest
rate is sustained; 4: a message was lost, duplicated, reordered or corrupt.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.scenario.open(scenarioName(args), cmd.Flags())
			if err != nil {
				return err
			}
			f.fromGiven = cmd.Flags().Changed("from")
			return f.run(cmd.Context(), p, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.target.add(p, c)
	f.scenario.add(c.Flags())
	fs := c.Flags()
	for _, q := range []struct{ flag, metric string }{{"p50", "p50"}, {"p90", "p90"}, {"p99", "p99"}, {"p999", "p99_9"}} {
		d := new(time.Duration)
		f.quantile[q.metric] = d
		fs.DurationVar(d, q.flag, 0, "the most that this quantile of the latency may be; without any, the scenario's own objectives")
	}
	fs.StringVar(&f.latency, "latency", "e2e", "which latency: e2e (to the verified delivery), ack, or service")
	fs.Float64Var(&f.options.From, "from", 1000, "first rate, messages a second")
	fs.Float64Var(&f.options.Min, "min", 10, "lowest rate")
	fs.Float64Var(&f.options.Max, "max", 10e6, "highest rate")
	fs.Float64Var(&f.options.Resolution, "resolution", 0.05, "step between rates near the value, as a part of it")
	fs.IntVar(&f.options.ProbesMax, "probes", 60, "most probes")
	fs.DurationVar(&f.probe, "probe", 5*time.Second, "measured part of a probe; --warmup comes before it")
	fs.StringVar(&f.jsonFile, "json", "", "file for the result as JSON")
	fs.StringVar(&f.dir, "out", "", "directory for search.json and report.html, with the hockey stick")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	return c
}

// objectives are those of the flags, or the scenario's.
func (f *searchFlags) objectives(s *scenario.Scenario) ([]scenario.Objective, error) {
	var all []scenario.Objective
	for _, q := range []string{"p50", "p90", "p99", "p99_9"} {
		if d := *f.quantile[q]; d != 0 {
			all = append(all, scenario.Objective{Metric: f.latency + "_" + q, AtMost: d})
		}
	}
	if len(all) == 0 {
		for _, o := range s.Objectives {
			if o.AtMost > 0 {
				o.Phase = ""
				all = append(all, o)
			}
		}
		return all, nil
	}
	check := scenario.Default()
	check.Objectives = all
	return all, check.Validate()
}

func (f *searchFlags) run(ctx context.Context, p *Program, s *scenario.Scenario, stdout, stderr io.Writer) (err error) {
	objectives, err := f.objectives(s)
	if err != nil {
		return err
	}
	if err := Writable("--json", f.jsonFile); err != nil {
		return err
	}
	line, event := events(stderr, f.quiet)
	defer line.end()
	g := &rig{}
	prober := &search.Prober{
		Scenario: s, Objectives: objectives, Warmup: max(f.scenario.warmup, 10*time.Millisecond), Duration: f.probe,
		Config: func(s *scenario.Scenario) load.Config { return g.config(s) },
	}
	if err := prober.Validate(); err != nil {
		return err
	}
	if !f.fromGiven {
		f.options.From = max(min(f.options.From, f.options.Max), f.options.Min)
	}
	if _, err := search.New(f.options); err != nil {
		return err
	}
	if g, err = f.target.rig(ctx, p, s, event); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close(err)) }()
	f.options.Seed = s.Seed
	res, err := search.Run(ctx, f.options, prober.Probe, func(x search.Point) { event(x.Line()) })
	if err != nil {
		return err
	}
	res.Objective, res.Scenario, res.Hash, res.System = prober.Objective(), s.Name, s.Hash(), g.driver.Name()
	// What cannot be written does not hide the verdict, whose exit status wins.
	return errors.Join(searchVerdict(res), f.write(res, p, stdout))
}

func (f *searchFlags) write(res *search.Result, p *Program, stdout io.Writer) error {
	if err := res.Table(stdout); err != nil {
		return err
	}
	if f.jsonFile != "" {
		err := writeFile(f.jsonFile, os.O_TRUNC, func(w io.Writer) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(res)
		})
		if err != nil {
			return err
		}
	}
	if f.dir != "" {
		if err := folder.FinishSearch(f.dir, res, evidence.Describe(p.Version)); err != nil {
			return err
		}
	}
	return nil
}

func searchVerdict(res *search.Result) error {
	if status := res.ExitStatus(); status != 0 {
		text := res.String()
		if res.Violated() {
			text = fmt.Sprintf("messages were lost, duplicated, reordered or corrupt; %s", text)
		}
		return &StatusError{status, errors.New(text)}
	}
	return nil
}
