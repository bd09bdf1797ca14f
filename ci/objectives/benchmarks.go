package objectives

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/ci/internal/counters"
	"github.com/portask/portask/ci/yardstick"
)

// timed is a Go benchmark of the broker that is measured beside the arithmetic
// kernel.
type timed struct {
	objective string
	pkg       string // below the module broker
	bench     string
	unit      string
	exact     bool // a count: no kernel, the worst of all turns
}

var benchmarks = []timed{
	{"message-creation", "./message", "Create/from=pool/by=portask", "ns/op", false},
	{"cbor-encode-1kib", "./serialization", "Message/codec=cbor/op=encode/by=portask", "ns/op", false},
	{"cbor-encode-allocs", "./serialization", "Message/codec=cbor/op=encode/by=portask", "allocs/op", true},
	{"zstd-1kib-orders", "./compression", "Zstd/level=fastest/size=64KiB/payload=orders", "ns/KiB", false},
	{"zstd-1kib-prose", "./compression", "Zstd/level=fastest/size=64KiB/payload=prose", "ns/KiB", false},
	{"config-load", "./cmd/portask", "Load/format=yaml/way=load", "ns/op", false},
}

// program is a test binary and the directory it runs in.
type program struct{ file, dir string }

// build makes the test binary of each package of benchmarks, in a directory that
// remove removes.
func build(ctx context.Context, root string) (programs map[string]program, remove func(), err error) {
	tmp, err := os.MkdirTemp("", "perflab-objectives-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { os.RemoveAll(tmp) }
	programs = make(map[string]program)
	for _, b := range benchmarks {
		if _, ok := programs[b.pkg]; ok {
			continue
		}
		p := program{filepath.Join(tmp, strings.ReplaceAll(b.pkg[2:], "/", "-")+".test"), filepath.Join(root, "broker", b.pkg)}
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", p.file, b.pkg)
		cmd.Dir = filepath.Join(root, "broker")
		if out, err := cmd.CombinedOutput(); err != nil {
			remove()
			return nil, nil, fmt.Errorf("go test -c %s: %w: %s", b.pkg, err, bytes.TrimSpace(out))
		}
		programs[b.pkg] = p
	}
	return programs, remove, nil
}

const (
	// reading is the length of a kernel's measurement on either side of a
	// benchmark.
	reading = 20 * time.Millisecond
	// slice and sliceCount: a benchmark is timed many times over a span shorter
	// than the scheduler's quantum, and the lower quartile counts: on a machine
	// that runs five times as much as it has processors for, half of the slices are
	// interrupted, and the median would be that of the interruptions. Over 16 turns
	// on such a machine the lower quartile's ratio to the kernel had half of the
	// median's deviation, 6 to 26 %, and on a quiet one they are equal.
	slice      = time.Millisecond
	sliceCount = 25
)

// benchmarkTurn runs each benchmark once, in a process of its own, between two
// readings of the kernel.
func (s *session) benchmarkTurn(ctx context.Context) error {
	order := s.random.Perm(len(benchmarks))
	done := make(map[string]bool)
	for _, i := range order {
		name := benchmarks[i].bench
		if done[name] {
			continue
		}
		done[name] = true
		before := yardstick.MeasureArithmetic(reading)
		results, err := s.programs[benchmarks[i].pkg].run(ctx, name)
		if err != nil {
			return err
		}
		after := yardstick.MeasureArithmetic(reading)
		s.Kernels = append(s.Kernels, before, after)
		for _, b := range benchmarks {
			if b.bench != name {
				continue
			}
			values := results[name][b.unit]
			if len(values) == 0 {
				return fmt.Errorf("%s: benchmark %s printed no %s", b.pkg, b.bench, b.unit)
			}
			if b.exact {
				s.count(b.objective, slices.Max(values))
			} else {
				slices.Sort(values)
				s.sample(b.objective, values[len(values)/4]/((before.Ns+after.Ns)/2), false)
			}
		}
	}
	return nil
}

func (p program) run(ctx context.Context, bench string) (counters.Results, error) {
	var pattern []string
	for _, part := range strings.Split("Benchmark"+bench, "/") {
		pattern = append(pattern, "^"+part+"$")
	}
	cmd := exec.CommandContext(ctx, p.file, "-test.run=^$", "-test.bench="+strings.Join(pattern, "/"), "-test.benchmem",
		"-test.benchtime="+slice.String(), "-test.count="+strconv.Itoa(sliceCount), "-test.cpu=1")
	cmd.Dir = p.dir
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", bench, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return counters.Parse(&out)
}
