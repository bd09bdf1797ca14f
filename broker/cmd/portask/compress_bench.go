package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/fault"
)

// benchFlags are those of `portask compress bench`.
type benchFlags struct {
	split      string
	sizes      []string
	algorithms []string
	levels     []string
	dictionary string
	spend      time.Duration
	limit      int64
}

func newCompressBench(g *globals) *cobra.Command {
	o := benchFlags{limit: 64 << 20}
	cmd := &cobra.Command{
		Use:   "bench FILE...",
		Short: "Print what each algorithm costs and saves on your data",
		Long: `Print what each algorithm costs and saves on your data: for bodies of each size, as a producer's batches are, the
ratio and the time to encode and decode a byte. "-" is stdin.

The files are cut into bodies of each size; with --split lines a body has whole lines only, as a batch has whole
messages. Sizes of which the files have fewer than two bodies are left out. The row zstd-dictionary is measured with a
dictionary trained on every second body, and all rows on the others; it needs 32 bodies of at most 16 KiB, or
--dictionary.

A row with * is one that no other row beats in both ratio and encoding. -o benchfmt prints the format of Go benchmarks,
which benchstat reads.`,
		Args:        filesArgs,
		Annotations: map[string]string{outputsAnnotation: "benchfmt"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), g, args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.split, "split", "size", "cut bodies at their size, or after whole lines")
	f.StringSliceVar(&o.sizes, "size", []string{"1KiB", "4KiB", "16KiB", "64KiB", "256KiB"}, "sizes of bodies, at most 4MiB")
	f.StringSliceVar(&o.algorithms, "algorithm", coderNames, "rows of the table")
	f.StringSliceVar(&o.levels, "level", []string{"fastest", "balanced", "smallest"}, "levels of each")
	f.StringVar(&o.dictionary, "dictionary", "", "dictionary `FILE` for the row zstd-dictionary, instead of training one")
	f.DurationVar(&o.spend, "time", 50*time.Millisecond, "for each row and direction, at most 10s; every body is done once at least")
	f.Var(sizeFlag{n: &o.limit}, "limit", "largest sum of all files, at most 1GiB")
	return cmd
}

// Bounds of a run, for a known time and memory.
const (
	benchSizeMax  = 4 << 20 // largest batch
	benchBytes    = 1 << 20 // measured of each size
	benchBodies   = 1 << 10 // measured of each size
	benchTimeMax  = 10 * time.Second
	benchLimitMax = 1 << 30
	trainLargest  = 16 << 10 // bodies above have no use for a dictionary
	trainLeast    = 2 * compression.TrainSamplesMin
	trainTogether = 32 << 20 // bytes of samples handed to the training, which thins them further
)

// bench is a finished run.
type bench struct {
	Files  []string    `json:"files"`
	Bytes  int64       `json:"bytes"`
	Split  string      `json:"split"`
	System benchSystem `json:"system"`
	Sizes  []benchSize `json:"sizes"`
	Cells  []*cell     `json:"cells"`
}

type benchSystem struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	CPU        string `json:"cpu,omitempty"`
	Processors int    `json:"processors"`
	Go         string `json:"go"`
}

// benchSize is what is the same for all rows of a size.
type benchSize struct {
	SizeBytes  int     `json:"size_bytes"`
	Bodies     int     `json:"bodies"`
	Bytes      int64   `json:"bytes"`
	Estimate   float64 `json:"estimated_ratio"` // of the bodies' samples, the geometric mean
	Dictionary int     `json:"dictionary_bytes,omitempty"`
	Without    string  `json:"without_dictionary,omitempty"` // why there is none
}

func (o *benchFlags) run(ctx context.Context, g *globals, files []string, stdin io.Reader, stdout, stderr io.Writer) error {
	sizes, levels, err := o.check()
	if err != nil {
		return err
	}
	var given *compression.Dictionary
	if o.dictionary != "" {
		if given, err = readDictionary(o.dictionary); err != nil {
			return err
		}
	}
	d, err := readData(files, stdin, o.limit)
	if err != nil {
		return err
	}
	run := &bench{Files: files, Bytes: d.bytes, Split: o.split, System: benchSystem{
		runtime.GOOS, runtime.GOARCH, cpuName(), runtime.NumCPU(), runtime.Version(),
	}}
	progress := newStatus(stderr)
	defer progress.clear()
	for i, size := range sizes {
		bodies := d.bodies(size, o.split == "lines")
		if len(bodies) < 2 {
			continue
		}
		s := benchSize{SizeBytes: size}
		dict := given
		if dict == nil && slices.Contains(o.algorithms, zstdDictionary) {
			progress.show("training a dictionary for %s", document.FormatSize(int64(size)))
			var rest [][]byte
			dict, rest, err = trainFor(size, bodies)
			switch {
			case err == nil:
				bodies = rest
			case errors.Is(err, fault.Invalid):
				s.Without = err.Error()
			default:
				return err
			}
		}
		if dict != nil {
			s.Dictionary = len(dict.Bytes())
		}
		bodies = spread(bodies, benchBodies, benchBytes)
		s.describe(bodies)
		run.Sizes = append(run.Sizes, s)
		for _, name := range o.algorithms {
			if name == zstdDictionary && dict == nil {
				continue
			}
			for _, level := range levels {
				progress.show("%s, %s %s: size %d of %d", document.FormatSize(int64(size)), name, level, i+1, len(sizes))
				c, err := newCoder(name, level, dict)
				if err != nil {
					return err
				}
				measured, err := measure(ctx, c, bodies, o.spend)
				if err != nil {
					return err
				}
				measured.SizeBytes = size
				run.Cells = append(run.Cells, measured)
			}
		}
	}
	progress.clear()
	if len(run.Cells) == 0 {
		return fault.New(fault.Invalid, "compress bench").WithField("FILE").
			WithDetail("%s give no two bodies of any --size with --split %s", sizeText(d.bytes), o.split)
	}
	switch g.output {
	case "benchfmt":
		return run.benchfmt(stdout)
	case "json":
		return g.print(stdout, run, nil, nil)
	}
	return run.table(stdout)
}

// check reads the flags that are lists and bounds the others.
func (o *benchFlags) check() (sizes []int, levels []compression.Level, err error) {
	if err := splitFlag(o.split, "size", "lines"); err != nil {
		return nil, nil, err
	}
	for _, s := range o.sizes {
		n, err := parseSize(s)
		if err != nil || n < 16 || n > benchSizeMax {
			return nil, nil, usagef("--size %q: want 16B to 4MiB", s)
		}
		sizes = append(sizes, int(n))
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	for _, s := range o.levels {
		l, err := compression.ParseLevel(s)
		if err != nil || s == "" {
			return nil, nil, usagef("--level %q: want fastest, balanced or smallest", s)
		}
		levels = append(levels, l)
	}
	for _, a := range o.algorithms {
		if !slices.Contains(coderNames, a) {
			return nil, nil, usagef("--algorithm %q: want %s", a, joinOr(coderNames))
		}
	}
	if len(sizes) == 0 || len(levels) == 0 || len(o.algorithms) == 0 {
		return nil, nil, usagef("--size, --level and --algorithm want one value at least")
	}
	if o.spend <= 0 || o.spend > benchTimeMax {
		return nil, nil, usagef("--time %v: want more than 0 and at most %v", o.spend, benchTimeMax)
	}
	if o.limit < 1 || o.limit > benchLimitMax {
		return nil, nil, usagef("--limit %s: want 1B to 1GiB", document.FormatSize(o.limit))
	}
	return sizes, levels, nil
}

// trainFor trains a dictionary on every second body and returns the others.
func trainFor(size int, bodies [][]byte) (*compression.Dictionary, [][]byte, error) {
	if size > trainLargest || len(bodies) < trainLeast {
		return nil, nil, fault.New(fault.Invalid, "train").WithField("bodies").
			WithDetail("a dictionary is for bodies of at most %s, %d of them at least", document.FormatSize(trainLargest), trainLeast)
	}
	var train, rest [][]byte
	for i, b := range bodies {
		if i%2 == 0 {
			train = append(train, b)
		} else {
			rest = append(rest, b)
		}
	}
	b, err := compression.TrainDictionary(spread(train, len(train), trainTogether), compression.TrainOptions{})
	if err != nil {
		return nil, nil, err
	}
	d, err := compression.ParseDictionary(b)
	return d, rest, err
}

// describe fills in what is known without compressing anything.
func (s *benchSize) describe(bodies [][]byte) {
	s.Bodies = len(bodies)
	var logs float64
	for _, b := range bodies {
		s.Bytes += int64(len(b))
		logs += logRatio(b)
	}
	s.Estimate = expMean(logs, len(bodies))
}

// cpuName is the processor's name where the system tells it.
func cpuName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// benchfmt writes the run in the format of Go benchmarks: two lines a row.
func (r *bench) benchfmt(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\n", r.System.OS, r.System.Arch)
	if r.System.CPU != "" {
		fmt.Fprintf(&b, "cpu: %s\n", r.System.CPU)
	}
	fmt.Fprintf(&b, "go: %s\nsplit: %s\n", r.System.Go, r.Split)
	for _, c := range r.Cells {
		each := float64(c.Bytes) / float64(c.Bodies)
		for _, do := range []struct {
			name   string
			ns     float64
			rounds int
		}{{"encode", c.EncodeNs, c.EncodeLoops}, {"decode", c.DecodeNs, c.DecodeLoops}} {
			fmt.Fprintf(&b, "BenchmarkCompress/algorithm=%s/level=%s/size=%s/do=%s\t%d\t%.1f ns/op\t%.2f MB/s\t%.4f ns/B\t%.4f ratio\n",
				c.Algorithm, c.Level, document.FormatSize(int64(c.SizeBytes)), do.name,
				do.rounds*c.Bodies, do.ns*each, 1e3/do.ns, do.ns, c.Ratio)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
