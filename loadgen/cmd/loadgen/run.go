package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/report"
)

// generatedBytes is the pool of a generated payload kind: larger than a core's
// caches, so that producing is not faster than in life.
const generatedBytes = 8 << 20

// runFlags are the flags of `loadgen run` that are not fields of load.Config.
type runFlags struct {
	mode, arrival, ack, visibility string
	size, payload, compression     string
	linger                         time.Duration
	keep                           bool
	output, jsonFile, benchFile    string
	scenario                       string
	labels                         []string
	sloP99                         time.Duration
	sloRate                        float64
	quiet                          bool
}

func runCommand() *cobra.Command {
	var cfg load.Config
	var f runFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Produce and consume at a rate, verify every message, tell latencies",
		Long: `Produce and consume at a rate, verify every message, tell latencies.

In open mode messages are due at times fixed in advance and latency counts from then. The dispatch lag, the
generator's own lateness, is printed with every result; a run whose lag is more than a tenth of what it reports, or
that misses its rate, is INVALID (exit status 3). In closed mode each producer waits for answers; its latencies are
service times.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), cfg, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := c.Flags()
	fs.StringVar(&cfg.Addr, "addr", defaultAddress, "address of the broker")
	fs.StringVar(&cfg.Topic, "topic", "", "existing topic (default: a new one, deleted at the end)")
	fs.BoolVar(&f.keep, "keep", false, "do not delete the new topic")
	fs.IntVar(&cfg.Partitions, "partitions", 4, "partitions of the new topic")
	fs.StringVar(&f.visibility, "visibility", "", "visibility of the new topic, accepted or durable (default: as --ack)")
	fs.IntVar(&cfg.Producers, "producers", 2, "producers, each with a connection")
	fs.IntVar(&cfg.Consumers, "consumers", 2, "consumers, each with a connection")
	fs.StringVar(&f.mode, "mode", "open", "open (a schedule) or closed (as fast as answers come)")
	fs.StringVar(&f.arrival, "arrival", "constant", "constant or poisson")
	fs.Float64Var(&cfg.Rate, "rate", 10_000, "messages a second in all, open mode")
	fs.DurationVar(&cfg.Duration, "duration", 10*time.Second, "how long to send")
	fs.DurationVar(&cfg.Warm, "warmup", time.Second, "beginning that is verified but not measured")
	fs.StringVar(&f.size, "size", "1024", "bytes of a value, or a range 200..4000")
	fs.StringVar(&f.payload, "payload", "random", "directory of files, \"modules\" (test data of Go modules), or one of "+strings.Join(corpus.Kinds, ", ")+", entropy:0.3")
	fs.StringVar(&f.ack, "ack", "durable", "none, accepted or durable")
	fs.StringVar(&f.compression, "compression", "never", "never, always or threshold, and an algorithm: threshold:zstd")
	fs.IntVar(&cfg.BatchBytes, "batch-bytes", 64<<10, "size at which a batch is sent")
	fs.DurationVar(&f.linger, "linger", -1, "how long a batch waits to fill (default: the client's)")
	fs.IntVar(&cfg.InFlight, "in-flight", 4096, "unanswered messages of a producer, closed mode")
	fs.DurationVar(&cfg.Quantum, "quantum", 0, "shortest sleep of the pacer (default 50us)")
	fs.Uint64Var(&cfg.Seed, "seed", 1, "of payloads and arrivals")
	fs.IntVar(&cfg.TargetPID, "pid", 0, "process of the broker, for its CPU and memory")
	fs.StringVarP(&f.output, "output", "o", "table", "table or json, on standard output")
	fs.StringVar(&f.jsonFile, "json", "", "file for the result as JSON")
	fs.StringVar(&f.benchFile, "bench", "", "file for the result in the Go benchmark format; appended to")
	fs.StringVar(&f.scenario, "scenario", "adhoc", "name of the run in the benchmark format")
	fs.StringArrayVar(&f.labels, "label", nil, "configuration line for the benchmark format, key=value")
	fs.DurationVar(&cfg.Drain, "drain", 15*time.Second, "how long to wait without progress for what is outstanding")
	fs.DurationVar(&f.sloP99, "slo-p99", 0, "end-to-end p99 above which the exit status is 2")
	fs.Float64Var(&f.sloRate, "slo-rate", 0, "delivered messages a second below which the exit status is 2")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	return c
}

func run(ctx context.Context, cfg load.Config, f runFlags, stdout, stderr io.Writer) error {
	if f.output != "table" && f.output != "json" {
		return fmt.Errorf("--output %q: want table or json", f.output)
	}
	describe, err := f.apply(ctx, &cfg)
	if err != nil {
		return err
	}
	if !f.quiet {
		p := newProgress(stderr)
		defer p.end()
		cfg.Progress = func(s load.Snapshot) { p.line(report.Progress(s)) }
		p.line("payloads: " + describe)
	}
	r, err := load.New(ctx, cfg)
	if err != nil {
		return err
	}
	res, err := r.Execute(ctx)
	if err != nil {
		return err
	}
	if err := f.write(res, describe, stdout); err != nil {
		return err
	}
	return f.verdict(res)
}

// apply parses what load.Config holds in its own types. describe says what the
// payloads are.
func (f *runFlags) apply(ctx context.Context, cfg *load.Config) (describe string, err error) {
	cfg.Mode, cfg.Arrival, cfg.Linger = load.Mode(f.mode), load.Arrival(f.arrival), f.linger
	if cfg.Ack, err = message.ParseAckLevel(f.ack); err != nil {
		return "", err
	}
	cfg.Visibility = max(cfg.Ack, message.AckAccepted)
	if f.visibility != "" {
		if cfg.Visibility, err = message.ParseAckLevel(f.visibility); err != nil {
			return "", err
		}
	}
	if cfg.Policy, err = parsePolicy(f.compression); err != nil {
		return "", err
	}
	lo, hi, err := parseSize(f.size)
	if err != nil {
		return "", err
	}
	files, err := payloads(ctx, f.payload, cfg.Seed)
	if err != nil {
		return "", err
	}
	id := rand.Uint64()
	if cfg.Topic == "" {
		cfg.Topic, cfg.Create, cfg.Delete = fmt.Sprintf("loadgen-%016x", id), true, !f.keep
	}
	cfg.Source, err = payload.New(id, cfg.Seed, lo, hi, corpus.Pool(files))
	return corpus.Describe(files), err
}

// payloads reads or generates the pool.
func payloads(ctx context.Context, what string, seed uint64) ([]corpus.File, error) {
	if what == "modules" {
		return corpus.FromModules(ctx), nil
	}
	if info, err := os.Stat(what); err == nil && info.IsDir() {
		return corpus.FromDir(what)
	}
	f, err := corpus.Generate(what, generatedBytes, seed)
	if err != nil {
		return nil, fmt.Errorf("--payload: no directory, and %w", err)
	}
	return []corpus.File{f}, nil
}

// parseSize reads "1024" or "200..4000".
func parseSize(s string) (lo, hi int, err error) {
	from, to, isRange := strings.Cut(s, "..")
	if !isRange {
		to = from
	}
	if lo, err = strconv.Atoi(from); err == nil {
		hi, err = strconv.Atoi(to)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("--size %q: want a number of bytes, or a range 200..4000", s)
	}
	return lo, hi, nil
}

// parsePolicy reads "never", "threshold" or "always:lz4".
func parsePolicy(s string) (compression.Policy, error) {
	strategy, algorithm, named := strings.Cut(s, ":")
	p := compression.DefaultPolicy()
	var err error
	if p.Strategy, err = compression.ParseStrategy(strategy); err != nil {
		return p, fmt.Errorf("--compression %q: %w", s, err)
	}
	if named {
		if p.Algorithm, err = message.ParseAlgorithm(algorithm); err != nil {
			return p, fmt.Errorf("--compression %q: %w", s, err)
		}
	}
	return p, nil
}

func (f *runFlags) write(res *load.Result, describe string, stdout io.Writer) error {
	var err error
	if f.output == "json" {
		err = report.JSON(stdout, res)
	} else {
		err = report.Table(stdout, res)
	}
	if err != nil {
		return err
	}
	if f.jsonFile != "" {
		if err := writeFile(f.jsonFile, os.O_TRUNC, func(w io.Writer) error { return report.JSON(w, res) }); err != nil {
			return err
		}
	}
	if f.benchFile == "" {
		return nil
	}
	keys := map[string]string{}
	for _, l := range f.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return fmt.Errorf("--label %q: want key=value", l)
		}
		keys[k] = v
	}
	return writeFile(f.benchFile, os.O_APPEND, func(w io.Writer) error {
		return report.WriteBench(w, res, report.Bench{
			Scenario: f.scenario, Payload: describe, Size: f.size, Commit: version, Machine: sysmetrics.ThisMachine(), Keys: keys,
		})
	})
}

func writeFile(name string, flag int, write func(io.Writer) error) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|flag, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// verdict turns a result into an exit status: data before validity before
// objectives, since an invalid run cannot miss one.
func (f *runFlags) verdict(res *load.Result) error {
	if s := res.ExitStatus(); s != 0 {
		return &statusError{s, errors.New(strings.Join(append(res.Violations, res.Invalid...), "; "))}
	}
	if p99 := time.Duration(res.E2E.P99); f.sloP99 > 0 && p99 > f.sloP99 {
		return &statusError{2, fmt.Errorf("end-to-end p99 %v, objective %v", p99, f.sloP99)}
	}
	if res.Delivered < f.sloRate {
		return &statusError{2, fmt.Errorf("%.0f messages a second delivered, objective %.0f", res.Delivered, f.sloRate)}
	}
	return nil
}
