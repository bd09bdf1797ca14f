package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// runFlags are the flags of `loadgen run`.
type runFlags struct {
	target   targetFlags
	scenario scenarioFlags
	outputFlags
	agentFlags
	decisions string
}

// decisionBytes bounds the file of --decision-log. A batch takes some 50 bytes: it is
// enough for 5 million, which at 64 KiB are 350 GB.
const decisionBytes = 256 << 20

func (p *Program) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [FILE | NAME]",
		Short: "Run a scenario: produce and consume, verify every message, tell latencies",
		Long: `Run a scenario: produce and consume, verify every message, tell latencies.

A scenario is a file or one that loadgen brings along (loadgen scenarios); without one it is made from the flags. Flags
change settings of the scenario, --set any of them (docs/scenarios.md).

In an open loop messages are due at times fixed in advance and latency counts from then. The dispatch lag, the
generator's own lateness, is printed with every result; a run whose lag is more than a tenth of what it reports, that
misses its rate, or whose work leaves no processor, is INVALID (exit status 3) and prints no latencies. In a closed loop
each producer waits for answers; its latencies are service times.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.scenario.open(scenarioName(args), cmd.Flags())
			if err != nil {
				return err
			}
			if f.decisions != "" {
				if err := f.mayRecord(s); err != nil {
					return err
				}
			}
			if len(f.agents) > 0 {
				return f.runShared(cmd.Context(), p, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if s.Kind == scenario.KindConnections {
				cf := connsFlags{target: f.target, keep: f.keep, output: f.output, jsonFile: f.jsonFile, quiet: f.quiet}
				return cf.run(cmd.Context(), p, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return f.run(cmd.Context(), p, s, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.target.add(p, c)
	f.scenario.add(c.Flags())
	f.outputFlags.add(c.Flags())
	f.agentFlags.add(c.Flags())
	c.Flags().StringVar(&f.decisions, "decision-log", "", "record what producers with adaptive compression decide to this file, for perflab policy replay; at most 256 MiB")
	return c
}

// mayRecord refuses --decision-log where no producer of this process could decide.
func (f *runFlags) mayRecord(s *scenario.Scenario) error {
	c := s.Producers.CompressionPolicy()
	switch {
	case f.target.driver != portask.Kind.Name:
		return fmt.Errorf("--decision-log: producers of %s do not decide how to compress; those of %s do", f.target.driver, portask.Kind.Name)
	case len(f.agents) > 0:
		return errors.New("--decision-log excludes --agents: producers decide in the agents' processes")
	case s.Kind == scenario.KindConnections:
		return errors.New("--decision-log: the scenario has no producers")
	case !c.Auto && c.Policy.Strategy != compression.Adaptive:
		return fmt.Errorf("--decision-log: producers.compression is %s: want adaptive, or auto with a deployment that advises it", s.Producers.Compression)
	}
	return nil
}

// decisionLog opens the file of --decision-log, if it was given. done is to be called
// once the driver is closed.
func (f *runFlags) decisionLog() (done func() error, err error) {
	if f.decisions == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(f.decisions)
	if err != nil {
		return nil, fmt.Errorf("--decision-log: %w", err)
	}
	w := &keptError{w: file}
	f.target.decisions = w
	return func() error {
		if err := errors.Join(w.err, file.Close()); err != nil {
			return fmt.Errorf("--decision-log: %w", err)
		}
		return nil
	}, nil
}

// keptError remembers the first error of a writer.
type keptError struct {
	w   io.Writer
	err error
}

func (k *keptError) Write(b []byte) (n int, err error) {
	if n, err = k.w.Write(b); k.err == nil {
		k.err = err
	}
	return n, err
}

// scenarioFlags are short ways to say what --set says. Without a file the
// scenario is a warm-up and one measured phase.
type scenarioFlags struct {
	settings []string
	warmup   time.Duration
	duration time.Duration
	sloP99   time.Duration
	sloRate  float64
	topic    string
	name     string
	size     string
	text     []byte // of the scenario, instead of a file's
}

// shorthands are flags that set settings, with their documentation.
var shorthands = []struct{ flag, path, doc string }{
	{"partitions", "topics.*.partitions", "partitions of the new topic"},
	{"visibility", "topics.*.visibility", "visibility of the new topic: ack (as --ack), accepted or durable"},
	{"producers", "producers.count", "producers, each with a connection"},
	{"consumers", "consumers.count", "consumers, each with a connection"},
	{"mode", "loop", "open (a schedule) or closed (as fast as answers come)"},
	{"arrival", "phases.*.arrival", "rate over time: constant or poisson; others need --set"},
	{"rate", "phases.*.rate", "messages a second in all"},
	{"payload", "payload.source", "what bodies are made of: json, text, random, entropy:0.3, modules, a directory, ..."},
	{"ack", "producers.ack", "none, accepted or durable"},
	{"codec", "producers.codec", "raw, cbor, json or msgpack"},
	{"compression", "producers.compression", "never, always or threshold, and an algorithm: threshold:zstd; or auto or adaptive"},
	{"batch-bytes", "producers.batch", "size at which a batch is sent"},
	{"linger", "producers.linger", "how long a batch may wait to fill, or client"},
	{"in-flight", "producers.in_flight", "messages of a producer that may be unanswered, closed mode"},
	{"quantum", "limits.quantum", "shortest sleep of the pacer"},
	{"drain", "limits.drain", "how long to wait without progress for what is outstanding"},
	{"seed", "seed", "of payloads, keys and arrivals"},
}

func (f *scenarioFlags) add(fs *pflag.FlagSet) {
	for _, s := range shorthands {
		fs.String(s.flag, "", s.doc+" (--set "+s.path+")")
	}
	fs.StringVar(&f.size, "size", "", "bytes of a value, or a range 200..4000 (--set payload.size)")
	fs.StringVar(&f.topic, "topic", "", "existing topic, instead of new ones")
	fs.DurationVar(&f.duration, "duration", 0, "how long to send, warm-up included; with a FILE: of each measured phase")
	fs.DurationVar(&f.warmup, "warmup", time.Second, "beginning that is verified but not measured, at most half of --duration; with a FILE: of each phase that is not measured")
	fs.StringVar(&f.name, "scenario", "", "name of the run in results (--set name)")
	fs.DurationVar(&f.sloP99, "slo-p99", 0, "end-to-end p99 above which the exit status is 2")
	fs.Float64Var(&f.sloRate, "slo-rate", 0, "delivered messages a second below which the exit status is 2")
	fs.StringArrayVar(&f.settings, "set", nil, "setting of the scenario, path=value; wins over other flags")
}

// scenarioName is the FILE or NAME of a command line; empty: none.
func scenarioName(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// open reads the scenario and applies the flags that were given.
func (f *scenarioFlags) open(name string, fs *pflag.FlagSet) (*scenario.Scenario, error) {
	var set []scenario.Setting
	add := func(flag, path, value string) {
		set = append(set, scenario.Setting{Path: path, Value: value, From: "--" + flag})
	}
	for _, s := range shorthands {
		if x := fs.Lookup(s.flag); x.Changed {
			add(s.flag, s.path, x.Value.String())
		}
	}
	if f.size != "" {
		add("size", "payload.size", f.size)
	}
	if f.name != "" {
		add("scenario", "name", f.name)
	}
	if f.topic != "" {
		add("topic", "topics.0.name", f.topic)
		add("topic", "topics.0.existing", "true")
	}
	more, err := parseSettings(f.settings)
	if err != nil {
		return nil, err
	}
	var s *scenario.Scenario
	switch {
	case f.text != nil:
		s, err = scenario.Parse(name, f.text, append(set, more...)...)
	case name == "":
		set = append(f.lengths(fs), set...)
		s, err = scenario.With(append(set, more...)...)
	default:
		s, err = scenario.Open(name, append(set, more...)...)
	}
	if err != nil {
		return nil, err
	}
	if name != "" {
		for i := range s.Phases {
			p := &s.Phases[i]
			switch {
			case p.Measured && fs.Changed("duration"):
				p.Duration = f.duration
			case !p.Measured && fs.Changed("warmup"):
				p.Duration = f.warmup
			}
		}
	}
	if f.sloP99 > 0 {
		s.Objectives = append(s.Objectives, scenario.Objective{Metric: "e2e_p99", AtMost: f.sloP99})
	}
	if f.sloRate > 0 {
		s.Objectives = append(s.Objectives, scenario.Objective{Metric: "delivered_rate", AtLeast: f.sloRate})
	}
	return s, s.Validate()
}

// lengths are the settings for --duration and --warmup without a file.
func (f *scenarioFlags) lengths(fs *pflag.FlagSet) []scenario.Setting {
	total := 10 * time.Second
	if fs.Changed("duration") {
		total = f.duration
	}
	warm := min(f.warmup, total/2)
	return []scenario.Setting{
		{Path: "phases.0.duration", Value: max(warm, 10*time.Millisecond).String(), From: "--warmup"},
		{Path: "phases.1.duration", Value: (total - warm).String(), From: "--duration"},
	}
}

func (f *runFlags) run(ctx context.Context, p *Program, s *scenario.Scenario, stdout, stderr io.Writer) (err error) {
	if err := f.check(ctx); err != nil {
		return err
	}
	recorded, err := f.decisionLog()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, recorded()) }()
	screen := f.screen(fmt.Sprintf("%s on %s, ack %s", s.Name, f.target.driver, s.Producers.Ack), stderr)
	defer screen.End()
	g, err := f.target.rig(ctx, p, s, screen.Event)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close(err)) }()
	if f.admin, err = g.admin(f.admin); err != nil {
		return err
	}
	cfg := g.config(s)
	cfg.Keep = f.keep
	cfg.Progress = screen.Update
	rec, err := f.record(ctx, p, s, g)
	if err != nil {
		return err
	}
	cfg.OnInterval = rec.interval
	r, err := load.New(ctx, cfg)
	if err != nil {
		rec.abandon()
		return err
	}
	res, err := r.Execute(ctx)
	screen.End()
	if err != nil {
		rec.abandon()
		return err
	}
	// What cannot be written does not hide the verdict, whose exit status wins.
	return errors.Join(Verdict(res), rec.finish(res, stdout))
}

func writeFile(name string, flag int, write func(io.Writer) error) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|flag, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// Verdict turns a result into an error with its exit status, nil if all is
// well.
func Verdict(res *load.Result) error {
	status := res.ExitStatus()
	if status == 0 {
		return nil
	}
	problems := append(append([]load.Problem{}, res.Violations...), res.Invalid...)
	if status == 2 {
		problems = res.Missed
	}
	var texts []string
	for _, p := range problems {
		texts = append(texts, p.String())
	}
	return &StatusError{status, errors.New(strings.Join(texts, "; "))}
}
