package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/internal/vfs"
)

// verdict of one check.
type verdict string

const (
	good    verdict = "ok"
	warn    verdict = "warn"
	bad     verdict = "bad"
	unknown verdict = "unknown" // the system does not tell
)

// finding is one row of `portask doctor`.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Value   string  `json:"value"`
	// Advice is empty where nothing needs to be done.
	Advice string `json:"advice,omitempty"`
}

func newDoctor(g *globals) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the machine: descriptors, limits, disk sync speed, clock",
		Long: `Examine the machine a broker is to run on and say what to change. Each check has a verdict:
ok, warn (works, with less than the machine could give), bad (fix it first) or unknown (the system does not tell).
The exit code is 0 unless a check is bad.

The disk check writes and syncs a file of 4 KiB in the data directory for at most a second, and removes it.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := append([]finding{checkDescriptors()}, checkGroup()...)
			findings = append(findings, checkDisk(data)...)
			findings = append(findings, checkClockSource(), checkClockSync())
			rows := make([][]string, 0, len(findings))
			failed := 0
			for _, f := range findings {
				rows = append(rows, []string{f.Check, string(f.Verdict), f.Value, f.Advice})
				if f.Verdict == bad {
					failed++
				}
			}
			if err := g.print(cmd.OutOrStdout(), findings, []string{"CHECK", "VERDICT", "VALUE", "ADVICE"}, rows); err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("doctor: %d of %d checks are bad", failed, len(findings))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", ".", "data directory whose disk is examined")
	return cmd
}

// judgeDescriptors: a connection takes one descriptor, an open segment another.
// 65,536 is what most service managers give; 1,024, the old login default,
// stops a broker at a few hundred connections.
func judgeDescriptors(soft, hard uint64) finding {
	f := finding{Check: "descriptors", Verdict: good, Value: fmt.Sprintf("%d (hard limit %d)", soft, hard)}
	switch {
	case hard < 4096:
		f.Verdict = bad
	case hard < 65536:
		f.Verdict = warn
	}
	if f.Verdict != good {
		f.Advice = "each connection takes one: raise the hard limit (ulimit -Hn, LimitNOFILE=) to 65536 or more; portask raises the soft limit itself"
	}
	return f
}

// Bounds of the disk check: how long it may take and how often it syncs at
// most.
const (
	syncTimeMax  = time.Second
	syncCountMax = 500
)

// checkDisk measures syncs in dir through the same calls the broker makes.
func checkDisk(dir string) []finding {
	name := "disk sync"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return []finding{{Check: name, Verdict: bad, Value: err.Error(), Advice: "name a directory this user may write to with --data"}}
	}
	times, err := measureSyncs(vfs.OS(), filepath.Join(dir, fmt.Sprintf(".portask-doctor-%d", os.Getpid())))
	if err != nil {
		return []finding{{Check: name, Verdict: bad, Value: err.Error(), Advice: "the broker must be able to write and sync files here"}}
	}
	fsName, inMemory := fileSystem(dir)
	findings := []finding{judgeSyncs(times, fsName, inMemory)}
	if free, total, err := vfs.OS().Space(dir); err == nil {
		findings = append(findings, judgeSpace(free, total))
	}
	return findings
}

// measureSyncs returns the sorted times of write-and-sync of 4 KiB, written
// in place over zeros as the log does.
func measureSyncs(fsys vfs.FS, name string) (times []time.Duration, err error) {
	const block = 4096
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		f.Close()
		if rerr := fsys.Remove(name); err == nil {
			err = rerr
		}
	}()
	buf := make([]byte, block*16)
	if _, err := f.WriteAt(buf, 0); err != nil {
		return nil, err
	}
	if err := f.SyncAll(); err != nil {
		return nil, err
	}
	begin := time.Now()
	for i := range syncCountMax {
		buf[0] = byte(i)
		t := time.Now()
		if _, err := f.WriteAt(buf[:block], int64(i%16)*block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(t))
		if time.Since(begin) > syncTimeMax {
			break
		}
	}
	slices.Sort(times)
	return times, nil
}

// judgeSyncs. A group commit gathers everything that arrives during one sync,
// so throughput hardly depends on its time, but each durable answer waits for
// one to two of them: 2 ms is a plain SSD, 20 ms a spinning disk. No device
// syncs in 5 us.
func judgeSyncs(sorted []time.Duration, fsName string, inMemory bool) finding {
	p50, p99 := sorted[len(sorted)/2], sorted[len(sorted)*99/100]
	f := finding{Check: "disk sync", Verdict: good, Value: fmt.Sprintf("p50 %v, p99 %v (%s)", round(p50), round(p99), fsName)}
	switch {
	case inMemory:
		f.Verdict, f.Advice = warn, "this file system is memory: `durable` survives no power loss here; choose a directory on a disk"
	case p50 < 5*time.Microsecond:
		f.Verdict, f.Advice = warn, "no device is that fast: something below answers before data is safe; check the disk's or hypervisor's write cache"
	case p50 > 20*time.Millisecond:
		f.Verdict, f.Advice = bad, "each durable answer waits for one to two syncs: use a faster disk, or ack level accepted"
	case p50 > 2*time.Millisecond:
		f.Verdict, f.Advice = warn, "each durable answer waits for one to two syncs: an SSD with power-loss protection is 10 to 100 times faster"
	}
	return f
}

func round(d time.Duration) time.Duration {
	if d > time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(100 * time.Nanosecond)
}

// judgeSpace. The broker stops producing when the disk is nearly full.
func judgeSpace(free, total int64) finding {
	f := finding{Check: "disk space", Verdict: good, Value: fmt.Sprintf("%s free of %s", sizeText(free), sizeText(total))}
	if total > 0 && free < total/10 {
		f.Verdict, f.Advice = warn, "less than a tenth is free: the broker stops producing on a low disk; free space or lower the retention"
	}
	return f
}

// judgeClockSource: source is the kernel's name, cost the time of one reading.
// Sources that leave the processor (hpet, acpi_pm) cost a microsecond and
// serialise all cores.
func judgeClockSource(source string, cost time.Duration) finding {
	f := finding{Check: "clock source", Verdict: good, Value: fmt.Sprintf("%s, %d ns a reading", source, cost.Nanoseconds())}
	if cost > 500*time.Nanosecond {
		f.Verdict, f.Advice = warn, "reading the clock is slow: prefer tsc or the hypervisor's clock (kernel parameter clocksource=)"
	}
	return f
}

// clockCost times readings of the clock.
func clockCost() time.Duration {
	const readings = 20000
	begin := time.Now()
	for range readings {
		_ = time.Now()
	}
	return time.Since(begin) / readings
}
