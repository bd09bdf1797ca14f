// Package command holds the commands that loadgen has only with its peers: peer,
// which starts a server, and compare. Their programs are loadgen's, with the
// drivers of NATS and Redis.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/command"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/peers/compare"
	"github.com/portask/portask/loadgen/peers/server"
	"github.com/portask/portask/loadgen/report/benchfmt"
	"github.com/portask/portask/loadgen/scenario"
)

// Commands are what this module adds; version is the program's.
func Commands(version string) []*cobra.Command {
	return []*cobra.Command{peerCommand(), compareCommand(version), natsCommand()}
}

// natsCommand makes the program a nats-server, which is how it starts one.
func natsCommand() *cobra.Command {
	return &cobra.Command{
		Use: server.NATSCommand, Short: "Be nats-server, with its arguments", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error { return server.RunNATS(args) },
	}
}

// serverFlags say how servers are started.
type serverFlags struct{ portask, dir string }

func (f *serverFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.portask, "portask", "", "broker to start (default: portask beside this program, or in the path)")
	c.Flags().StringVar(&f.dir, "dir", "", "directory in which the servers' own are made, and removed (default: the system's for temporary files)")
}

func (f *serverFlags) options() (server.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return server.Options{}, err
	}
	o := server.Options{Dir: f.dir, Program: self, Portask: f.portask}
	if o.Portask == "" {
		o.Portask = filepath.Join(filepath.Dir(self), "portask")
		if _, err := os.Stat(o.Portask); err != nil {
			if o.Portask, err = exec.LookPath("portask"); err != nil {
				return o, errors.New("no portask beside this program or in the path; --portask says where it is")
			}
		}
	}
	return o, nil
}

func peerCommand() *cobra.Command {
	var f serverFlags
	durability := string(driver.OS)
	c := &cobra.Command{
		Use:   "peer SYSTEM",
		Short: "Start a server as compare does, and stop it with Ctrl-C",
		Long: `Start a server as compare does, as a process of its own on a free loopback port with an empty directory, say how
loadgen run reaches and measures it, and stop it with Ctrl-C. nats is short for nats-jetstream.

` + strings.Join(compare.Systems(), "\n"),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if name == "nats" {
				name = "nats-jetstream"
			}
			if !cmd.Flags().Changed("durability") && name == "nats-core" {
				durability = string(driver.Nothing)
			}
			d, err := compare.ParseDurability(durability)
			if err != nil {
				return err
			}
			t, err := compare.ParseTarget(name, d)
			if err != nil {
				return err
			}
			o, err := f.options()
			if err != nil && strings.HasPrefix(name, "portask") {
				return err
			}
			return peer(cmd.Context(), t, o, cmd.OutOrStdout())
		},
	}
	f.add(c)
	c.Flags().StringVar(&durability, "durability", durability, "what an answered message survives: nothing, memory, os or disk")
	return c
}

// stopTimeout bounds a server's graceful end.
const stopTimeout = 10 * time.Second

func peer(ctx context.Context, t compare.Target, o server.Options, out io.Writer) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "loadgen-peer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.Dir = dir
	s, err := t.Start(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: process %d on %s (%s), data in %s\n%s\n", t.Name, s.PID(), s.Addr(), s.How, dir, t.How(s))
	select {
	case <-s.Ended():
		return fmt.Errorf("%s ended by itself", t.Name)
	case <-ctx.Done():
		return s.Stop(stopTimeout)
	}
}

type compareFlags struct {
	serverFlags
	version             string
	targets, durability string
	unequal             bool
	points              string
	turns               int
	duration, warmup    time.Duration
	seed                uint64
	calm                float64
	calmWait            time.Duration
	set                 []string
	output              string
	jsonFile, benchFile string
	markdownFile        string
	quiet               bool
	realTime            bool
}

func compareCommand(version string) *cobra.Command {
	f := compareFlags{version: version}
	c := &cobra.Command{
		Use:   "compare [FILE | NAME]",
		Short: "Run one scenario against several systems in turn, at equal durability",
		Long: `Run one scenario against several systems in turn, each in a fresh server process, in random order within each turn,
and tell how many times as much each does, costs and takes as the first, with intervals.

Systems are compared at the same durability: what an answered message survives (nothing, memory: the process lives; os:
kill -9; disk: loss of power). Those that do not give it are left out, or refused if they were named; name@durability
together with --unequal compares what is not equal, and says so.

Points are loads: max is a closed loop as fast as answers come, a number is an open loop of so many messages a second.
A scenario of your own is run as it is, unless --points is given too.

` + strings.Join(compare.Systems(), "\n"),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.add(c)
	fs := c.Flags()
	fs.StringVar(&f.targets, "targets", "", "systems, separated by commas; ratios are to the first (default: all that give the durability)")
	fs.StringVar(&f.durability, "durability", string(driver.OS), "what an answered message survives: nothing, memory, os or disk")
	fs.BoolVar(&f.unequal, "unequal", false, "compare although durabilities differ")
	fs.StringVar(&f.points, "points", "max,10000", "loads, separated by commas: max, or messages a second")
	fs.IntVar(&f.turns, "turns", 6, "turns; fewer than 6 give no interval of 95 %")
	fs.DurationVar(&f.duration, "duration", 5*time.Second, "how long each point is measured")
	fs.DurationVar(&f.warmup, "warmup", time.Second, "beginning of each run that is verified but not measured")
	fs.Uint64Var(&f.seed, "seed", 1, "of the order within turns")
	fs.Float64Var(&f.calm, "calm", 0, "wait before each server's start until less than so many processors are in use; 0: do not wait")
	fs.DurationVar(&f.calmWait, "calm-wait", 2*time.Minute, "how long to wait for calm, in all")
	fs.StringArrayVar(&f.set, "set", nil, "setting of the scenario, path=value")
	fs.StringVarP(&f.output, "output", "o", "table", "table, markdown or json, on standard output")
	fs.StringVar(&f.jsonFile, "json", "", "file for the comparison as JSON")
	fs.StringVar(&f.markdownFile, "markdown", "", "file for the comparison as Markdown")
	fs.StringVar(&f.benchFile, "bench", "", "file for every run in the Go benchmark format; appended to")
	fs.BoolVar(&f.realTime, "real-time", true, "the generator at a real-time priority at points with a rate, if the system allows it: it shares the processors with the servers, and is late without")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	return c
}

func (f *compareFlags) run(cmd *cobra.Command, args []string) error {
	write := map[string]func(*compare.Report, io.Writer) error{
		"table": (*compare.Report).Text, "markdown": (*compare.Report).Markdown, "json": (*compare.Report).JSON,
	}
	if write[f.output] == nil {
		return fmt.Errorf("--output %q: want table, markdown or json", f.output)
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	o := compare.Options{Unequal: f.unequal, Turns: f.turns, Seed: f.seed, Calm: f.calm, CalmWait: f.calmWait, RealTime: f.realTime}
	var err error
	if o.Targets, err = f.parseTargets(); err != nil {
		return err
	}
	if o.Points, err = f.parsePoints(name, cmd.Flags().Changed("points")); err != nil {
		return err
	}
	if o.Server, err = f.options(); err != nil {
		return err
	}
	for flag, name := range map[string]string{"--json": f.jsonFile, "--markdown": f.markdownFile} {
		if err := command.Writable(flag, name); err != nil {
			return err
		}
	}
	if !f.quiet {
		o.Event = func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), s) }
	}
	if f.benchFile != "" {
		bench, err := os.OpenFile(f.benchFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
		if err != nil {
			return err
		}
		defer bench.Close()
		o.OnResult = f.writeBench(bench)
	}
	rep, err := compare.Compare(cmd.Context(), o)
	if rep == nil {
		return err
	}
	// What was run until an interruption is shown all the same.
	rep.Command, rep.Commit = "loadgen "+strings.Join(os.Args[1:], " "), f.version
	err = errors.Join(err, write[f.output](rep, cmd.OutOrStdout()),
		writeFile(f.jsonFile, rep.JSON), writeFile(f.markdownFile, rep.Markdown))
	if err != nil {
		return err
	}
	switch s := rep.ExitStatus(); s {
	case 4:
		return &command.StatusError{Status: s, Err: errors.New("a target lost messages, or delivered what was not sent")}
	case 3:
		return &command.StatusError{Status: s, Err: errors.New("a target has no valid run")}
	}
	return nil
}

func (f *compareFlags) parseTargets() ([]compare.Target, error) {
	d, err := compare.ParseDurability(f.durability)
	if err != nil {
		return nil, err
	}
	if f.targets == "" {
		return compare.AllTargets(d), nil
	}
	var ts []compare.Target
	for s := range strings.SplitSeq(f.targets, ",") {
		t, err := compare.ParseTarget(s, d)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

// parsePoints makes a scenario for each point. Without a file it is loadgen's
// default, one warm-up and one measured phase.
func (f *compareFlags) parsePoints(name string, asked bool) ([]compare.Point, error) {
	usesPoints := name == "" || asked
	// A setting of closed loops alone is for the point max.
	const ofMax = "producers.in_flight"
	var set []scenario.Setting
	closed := []scenario.Setting{{Path: "loop", Value: scenario.ClosedLoop}}
	for _, s := range f.set {
		x, err := scenario.ParseSetting(s)
		switch {
		case err != nil:
			return nil, err
		case usesPoints && (x.Path == "loop" || strings.HasPrefix(x.Path, "phases.")):
			return nil, fmt.Errorf("--set %s: the points say that", s)
		case usesPoints && x.Path == ofMax:
			closed = append(closed, x)
		default:
			set = append(set, x)
		}
	}
	open := func() (*scenario.Scenario, error) {
		if name == "" {
			return scenario.With(append([]scenario.Setting{{Path: "name", Value: "compare"}}, set...)...)
		}
		return scenario.Open(name, set...)
	}
	if !usesPoints {
		s, err := open()
		if err != nil {
			return nil, err
		}
		return []compare.Point{{Name: s.Name, Scenario: s}}, nil
	}
	var points []compare.Point
	for p := range strings.SplitSeq(f.points, ",") {
		s, err := open()
		if err != nil {
			return nil, err
		}
		s.Phases = scenario.Default().Phases
		s.Phases[0].Duration, s.Phases[1].Duration = f.warmup, f.duration
		s.Objectives = nil
		if p == "max" {
			x, err := scenario.With(closed...)
			if err != nil {
				return nil, err
			}
			s.Loop = scenario.ClosedLoop
			if len(closed) > 1 {
				s.Producers.InFlight = x.Producers.InFlight
			}
		} else {
			rate, err := strconv.ParseFloat(p, 64)
			if err != nil || rate <= 0 {
				return nil, fmt.Errorf("--points %q: want max, or messages a second", p)
			}
			s.Loop = scenario.OpenLoop
			s.Phases[0].Rate, s.Phases[1].Rate = rate, rate
		}
		if err := s.Validate(); err != nil {
			return nil, fmt.Errorf("point %s: %w", p, err)
		}
		points = append(points, compare.Point{Name: p, Scenario: s})
	}
	return points, nil
}

// writeBench writes a run, with what tells it from the others as configuration.
func (f *compareFlags) writeBench(w io.Writer) func(compare.Run, *load.Result) error {
	machine := sysmetrics.ThisMachine()
	return func(r compare.Run, res *load.Result) error {
		if !r.Valid() {
			return nil
		}
		return benchfmt.Write(w, res, benchfmt.Options{Commit: f.version, Machine: machine, Keys: map[string]string{
			"target": r.Target, "point": r.Point, "turn": strconv.Itoa(r.Turn), "order": strconv.Itoa(r.Order),
		}})
	}
}

func writeFile(name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
