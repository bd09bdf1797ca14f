// Command perflab is the regression laboratory's command. It starts servers
// and clients as processes, measures them, and holds what it measured against
// configs/slo.yaml.
//
// Exit status: 0 all bounds hold, and what a gate left open does not hinder it;
// 1 wrong use, or the measurement failed; 2 something failed or a bound was
// missed; 3 a gate is invalid: a control differed, or nothing was compared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// command is one subcommand. run parses its own flags.
type command struct {
	name, short string
	run         func(ctx context.Context, args []string) error
	// starts: it starts programs, and gets a temporary directory for all of them.
	// Those that others start and may kill have none.
	starts bool
}

// version is set by the linker.
var version = "unknown"

// commands is filled in main, not in a variable's initialiser, because usage
// refers to it.
var commands []command

func main() {
	commands = []command{
		{"gate", "is the head slower than its base? rounds, rules, a verdict and a report", runGate, true},
		{"selftest", "the gate on heads of known behaviour: false alarms and power, with exact bounds", runSelftest, true},
		{"baseline", "the accepted revision and figures, or accept a verdict's", runBaseline, false},
		{"run", "benchmarks of two revisions in turns: raw samples and estimates, no verdict", runRun, true},
		{"counters", "allocations per batch, counted by the broker's benchmarks", runCounters, true},
		{"ratios", "throughput, CPU and system calls beside the calibration kernel's", runRatios, true},
		{"objectives", "everything that configs/slo.yaml bounds, judged; ends with what is not met", runObjectives, true},
		{"yardstick", "figures of the kernels that run inside a process", runYardstick, false},
		{"conns", "memory of idle subscribed connections", runConns, true},
		{"start", "time to start on existing data", runStart, true},
		{"monitor", "what monitoring costs the broker", runMonitor, true},
		{"explain", "where two revisions of one benchmark differ: functions, allocations, compiler", runExplain, true},
		{"report", "a gate's report again, from its directory", runReport, true},
		{"history", "what gates measured over time, and where levels changed", runHistory, false},
		{"archive", "enter what is new in benchdata/ into its manifest", runArchive, false},
		{"profile", "take the profiles of profiles/ and both default.pgo", runProfile, true},
		{"pgo", "what a profile gains: two builds in turns", runPGO, true},
		{"policy", "train, check and replay the adaptive compression policy", runPolicy, false},
		{"kernel", "serve as the calibration kernel (started by the other subcommands)", runKernel, false},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, done := whileRead(ctx)
	err := done(dispatch(ctx, os.Args[1:]))
	stop()
	var own *status
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, &own):
		fmt.Fprintln(os.Stderr, "perflab:", err)
		os.Exit(own.code)
	default:
		fmt.Fprintln(os.Stderr, "perflab:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(os.Stdout)
		return nil
	}
	for _, c := range commands {
		if c.name == args[0] {
			if !c.starts {
				return c.run(ctx, args[1:])
			}
			remove, err := privateTemp()
			if err != nil {
				return err
			}
			return errors.Join(c.run(ctx, args[1:]), remove())
		}
	}
	usage(os.Stderr)
	return fmt.Errorf("unknown subcommand %q", args[0])
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: perflab SUBCOMMAND [flags]; perflab SUBCOMMAND -h tells the flags")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.short)
	}
}

// flags returns an empty set that reports its errors instead of exiting.
func flags(name string) *flag.FlagSet { return flag.NewFlagSet("perflab "+name, flag.ContinueOnError) }
