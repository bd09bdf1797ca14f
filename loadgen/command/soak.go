package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/soak"
)

// soakFlags are the flags of `loadgen soak`.
type soakFlags struct {
	target   targetFlags
	scenario scenarioFlags
	outputFlags
	length time.Duration
	slopes string
	stop   bool
	settle time.Duration
	window time.Duration
	least  time.Duration
}

// slopesFile is what --out calls the slopes.
const slopesFile = "soak.json"

func (p *Program) soakCommand() *cobra.Command {
	var f soakFlags
	c := &cobra.Command{
		Use:   "soak --for 24h [FILE | NAME]",
		Short: "Run for long and watch what grows: memory, descriptors, goroutines, latency",
		Long: `Run for long and watch what grows: memory, descriptors, goroutines, latency.

The scenario's first measured phase is run, at a constant rate, for the time given; every message is verified. An alarm is
a slope (Theil-Sen) that chance does not explain (Mann-Kendall), that goes on in the second half of the window, matters,
and stays; the exit status is then 2. Memory and descriptors come from the process if it is on this machine (--pid,
--start-broker), otherwise, as goroutines do, from the metrics of the admin listener (--admin).`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.scenario.open(scenarioName(args), cmd.Flags())
			if err != nil {
				return err
			}
			o := soak.Scale(f.length)
			for flag, to := range map[string]*time.Duration{"settle": &o.Settle, "window": &o.Window, "least": &o.Least} {
				if cmd.Flags().Changed(flag) {
					*to, _ = cmd.Flags().GetDuration(flag)
				}
			}
			return f.run(cmd.Context(), p, s, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.target.add(p, c)
	f.scenario.add(c.Flags())
	fs := c.Flags()
	f.outputFlags.add(fs)
	fs.DurationVar(&f.length, "for", 24*time.Hour, "how long, at most 24h")
	fs.DurationVar(&f.settle, "settle", time.Minute, "beginning that is not looked at, while caches fill (default: a tenth, at most 1m)")
	fs.DurationVar(&f.window, "window", 6*time.Hour, "how far back a slope is looked for")
	fs.DurationVar(&f.least, "least", 10*time.Minute, "what must be seen before there is a verdict (default: a third, at most 10m)")
	fs.BoolVar(&f.stop, "stop-on-alarm", false, "end the run with the first alarm")
	fs.StringVar(&f.slopes, "slopes", "", "file for the alarms and the series as JSON; in --out it is "+slopesFile)
	return c
}

func (f *soakFlags) run(ctx context.Context, p *Program, s *scenario.Scenario, o soak.Options, stdout, stderr io.Writer) (err error) {
	if err := errors.Join(f.check(ctx), Writable("--slopes", f.slopes)); err != nil {
		return err
	}
	if f.length < 10*time.Second || f.length > 24*time.Hour {
		return fmt.Errorf("--for %v: want 10s to 24h", f.length)
	}
	plan, note, err := soak.Plan(s, f.length)
	if err != nil {
		return err
	}
	screen := f.screen(fmt.Sprintf("soak of %s on %s, ack %s", s.Name, f.target.driver, s.Producers.Ack), stderr)
	defer screen.End()
	g, err := f.target.rig(ctx, p, plan, screen.Event)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close(err)) }()
	if note != "" {
		screen.Event(note)
	}
	if f.admin, err = g.admin(f.admin); err != nil {
		return err
	}
	var poll *soak.Poller
	if f.admin != "" {
		if poll, err = soak.NewPoller(ctx, metricsURL(f.admin)); err != nil {
			return fmt.Errorf("--admin: %w", err)
		}
	}
	rec, err := f.record(ctx, p, plan, g)
	if err != nil {
		return err
	}
	cfg := g.config(plan)
	cfg.Keep, cfg.Progress, cfg.OnInterval = f.keep, screen.Update, rec.interval
	res, err := soak.Run(ctx, cfg, o, poll, f.stop, func(a soak.Alarm) { screen.Event(a.String()) })
	screen.End()
	if err != nil {
		rec.abandon()
		return err
	}
	// What cannot be written does not hide the verdict, whose exit status wins.
	return errors.Join(soakVerdict(res), rec.finish(res.Run, stdout), f.write(res, stdout))
}

func (f *soakFlags) write(res *soak.Result, stdout io.Writer) error {
	if f.output != "json" {
		if err := res.Table(stdout); err != nil {
			return err
		}
	}
	files := []string{f.slopes}
	if f.dir != "" {
		files = append(files, filepath.Join(f.dir, slopesFile))
	}
	for _, name := range files {
		if name == "" {
			continue
		}
		if err := writeFile(name, os.O_TRUNC, res.JSON); err != nil {
			return err
		}
	}
	return nil
}

func soakVerdict(res *soak.Result) error {
	if status := res.ExitStatus(); status == 2 && len(res.Alarms) > 0 {
		var all []string
		for _, a := range res.Alarms {
			all = append(all, a.String())
		}
		for _, m := range res.Run.Missed {
			all = append(all, m.String())
		}
		return &StatusError{status, errors.New(strings.Join(all, "; "))}
	}
	return Verdict(res.Run)
}

// metricsURL is the page of metrics of an admin listener, host:port or a URL.
func metricsURL(admin string) string {
	if !strings.Contains(admin, "://") {
		admin = "http://" + admin
	}
	return strings.TrimSuffix(admin, "/") + "/metrics"
}
