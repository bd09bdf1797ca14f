package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portask/portask/ci/lab"
)

func runMonitor(ctx context.Context, args []string) error {
	fs := flags("monitor")
	turns := fs.Int("turns", 5, "turns of off and on, in random order")
	profiles := fs.Int("profiles", 6, "profiled runs; they are merged")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the order")
	dir := fs.String("dir", "", "directory for the servers' data (default: the system's temporary directory)")
	var o lab.MonitoringLoad
	fs.IntVar(&o.Rate, "rate", 100_000, "messages a second")
	fs.DurationVar(&o.Measured, "measured", 16*time.Second, "length of one run")
	fs.DurationVar(&o.Every, "scrape", 15*time.Second, "time between two scrapes of /metrics; 0 for none")
	fs.Int64Var(&o.WarmBytes, "warm-bytes", 256<<20, "bytes that go through before")
	fs.IntVar(&o.BatchMessages, "batch", 64, "messages a batch")
	fs.IntVar(&o.MessageBytes, "size", 1024, "bytes of a message")
	top := fs.Bool("top", false, "print the profile's lines")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *turns < 1 || o.Rate < 1 || *profiles < 0 {
		return errors.New("monitor: --turns and --rate must be at least 1, --profiles not negative")
	}
	l, err := lab.New(*dir)
	if err != nil {
		return err
	}
	fmt.Printf("%d messages a second of %d B, %d a batch, ack and visibility accepted; %d turns, order seed %d; scraped every %v\n",
		o.Rate, o.MessageBytes, o.BatchMessages, *turns, *seed, o.Every)
	res, err := l.Monitoring(ctx, *turns, *profiles, *seed, o, func(r lab.MonitoringRun) {
		word := "off"
		if r.On {
			word = "on"
		}
		fmt.Printf("monitoring %-3s  %7.0f msg/s  broker %.3f CPU s per million messages, %4.1f %% of a core, RSS %.1f MiB, %d scrapes\n",
			word, float64(r.Messages)/r.Seconds, r.ServerCPU, 100*r.Cores, float64(r.RSS)/(1<<20), r.Scrapes)
	})
	if err != nil {
		return err
	}
	fmt.Printf("CPU per message, on / off, by turn: %s\n", lab.NewSpread(res.Ratio))
	if *profiles == 0 {
		return nil
	}
	fmt.Printf("share of monitoring in a CPU profile of the broker: %.2f %% of %v\n", 100*res.Share, res.Profiled.Round(time.Millisecond))
	if *top {
		fmt.Print(res.Top)
	}
	return nil
}
