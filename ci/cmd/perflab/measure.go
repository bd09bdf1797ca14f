package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/lab"
)

// common are the flags of every measurement.
type common struct {
	slo, dir, keep string
}

func (c *common) register(fs *flag.FlagSet) {
	fs.StringVar(&c.slo, "slo", "configs/slo.yaml", "objectives to hold the figures against")
	fs.StringVar(&c.dir, "dir", "", "directory for the servers' data (default: the system's temporary directory)")
	fs.StringVar(&c.keep, "keep", "", "directory that receives the figures as JSON and in the Go benchmark format")
}

func (c *common) open() (*lab.Lab, *slo.Report, error) {
	f, err := slo.Load(c.slo)
	if err != nil {
		return nil, nil, err
	}
	l, err := lab.New(c.dir)
	return l, slo.NewReport(f, os.Stdout), err
}

// store keeps the result if that was asked for.
func (c *common) store(what string, result any, rounds []lab.Round) error {
	if c.keep == "" {
		return nil
	}
	base, err := lab.Keep(c.keep, what, version, result, rounds)
	if err == nil {
		fmt.Println("kept as", base+".*")
	}
	return err
}

func runRatios(ctx context.Context, args []string) error {
	fs := flags("ratios")
	var c common
	c.register(fs)
	turns := fs.Int("turns", 5, "turns of kernel, accepted and durable, in random order")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the order")
	var o lab.Load
	fs.DurationVar(&o.Measured, "measured", 2*time.Second, "length of what is measured of a round")
	fs.Int64Var(&o.WarmBytes, "warm-bytes", 1<<30, "bytes that go through before")
	fs.IntVar(&o.BatchMessages, "batch", 64, "messages a batch")
	fs.IntVar(&o.MessageBytes, "size", 1024, "bytes of a message")
	fs.IntVar(&o.WindowBytes, "window", 4<<20, "bytes sent and not acknowledged")
	calls := fs.Bool("syscalls", true, "count the broker's system calls in a phase of their own")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *turns < 1 {
		return errors.New("ratios: --turns must be at least 1")
	}
	l, report, err := c.open()
	if err != nil {
		return err
	}
	o.CountSyscalls = *calls
	fmt.Printf("one producer and one consumer process, %d messages of %d B a batch, %d turns, order seed %d\n", o.BatchMessages, o.MessageBytes, *turns, *seed)
	fmt.Println("portask/accepted: topic visibility accepted; portask/durable: topic visibility durable; kernel: bare calibration kernel")
	fmt.Println(lab.RoundHeader)
	res, err := l.Interleave(ctx, *turns, *seed, o, func(_ int, r lab.Round) { fmt.Println(lab.RoundLine(r)) })
	if err != nil {
		return err
	}
	share, profiled, err := l.KernelProfile(ctx, lab.Load{Measured: o.Measured, WarmBytes: o.WarmBytes, BatchMessages: o.BatchMessages, MessageBytes: o.MessageBytes, WindowBytes: o.WindowBytes})
	if err != nil {
		return err
	}
	fmt.Printf("%s  profiled, not in the ratios\n", lab.RoundLine(profiled))
	for _, v := range []lab.Variant{lab.Kernel, lab.Accepted, lab.Durable} {
		fmt.Printf("%-16s msg/s %s, server CPU s per million messages %s\n", v, res.Of(v, msgPerSec), res.Of(v, serverCPU))
	}
	required := []string{lab.ThroughputOverKernel, lab.CPUOverKernel, lab.DurableOverAccepted}
	if o.CountSyscalls {
		required = append(required, lab.SyscallsPerBatch)
	}
	for _, name := range required {
		if samples, ok := res.Samples[name]; ok { // else the report says that it was not measured
			report.Turns(name, slo.Figures(samples))
			fmt.Printf("     per turn: %s\n", res.Ratio[name])
		}
	}
	report.Count(lab.KernelShare, share)
	required = append(required, lab.KernelShare)
	if err := c.store("ratios", res, res.Rounds); err != nil {
		return err
	}
	return report.Err(required...)
}

func msgPerSec(r lab.Round) float64 { return r.MsgPerSec }
func serverCPU(r lab.Round) float64 { return r.ServerCPU }

func runConns(ctx context.Context, args []string) error {
	fs := flags("conns")
	var c common
	c.register(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, report, err := c.open()
	if err != nil {
		return err
	}
	res, err := l.IdleConnections(ctx, lab.ConnSteps)
	if err != nil {
		return err
	}
	for _, p := range res.Points {
		fmt.Printf("%6d idle subscribed connections: broker RSS %.2f MiB\n", p.Connections, float64(p.RSSBytes)/(1<<20))
	}
	report.Count(lab.IdleConnectionBytes, res.Slope)
	if err := c.store("conns", res, nil); err != nil {
		return err
	}
	return report.Err(lab.IdleConnectionBytes)
}

func runStart(ctx context.Context, args []string) error {
	fs := flags("start")
	var c common
	c.register(fs)
	logBytes := fs.Int64("bytes", 1<<30, "bytes of the log")
	repeat := fs.Int("repeat", 3, "starts after a clean stop, and as many after SIGKILL")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *repeat < 1 {
		return errors.New("start: --repeat must be at least 1")
	}
	l, report, err := c.open()
	if err != nil {
		return err
	}
	res, err := l.StartTime(ctx, *logBytes, *repeat)
	if err != nil {
		return err
	}
	clean, killed := lab.NewSpread(res.Clean), lab.NewSpread(res.Killed)
	fmt.Printf("seconds from exec to the first answer on %.2f GiB in the page cache: after a clean stop %s, after SIGKILL %s\n",
		float64(res.LogBytes)/(1<<30), clean, killed)
	report.Count(lab.Start1GiB, max(clean.Median, killed.Median))
	if err := c.store("start", res, nil); err != nil {
		return err
	}
	return report.Err(lab.Start1GiB)
}
