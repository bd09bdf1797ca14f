package profiles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/ci/lab"
)

// Subjects of MeasureGain: the broker at two levels of acknowledgement,
// saturated by the lean clients, and the generator at a rate.
var Subjects = []string{"accepted", "durable", "loadgen"}

// GainOptions of MeasureGain.
type GainOptions struct {
	Root string
	Lab  *lab.Lab
	// Base and Head are the profiles of the two builds: "off", "committed", or
	// a directory with portask.pgo and loadgen.pgo.
	Base, Head string
	Turns      int // at least 2
	Seed       uint64
	Subjects   []string
	Version    string
	Progress   func(string)
}

// Gain is the cost of head against base, by subject.
type Gain struct {
	Base, Head string
	Version    string
	When       time.Time
	Machine    sysmetrics.Machine
	Seed       uint64
	Rows       []GainRow
}

// GainRow is one subject's. Figures are CPU seconds of the built command per
// million messages, a turn each; turns are paired.
type GainRow struct {
	Subject    string
	Base, Head []float64
}

// Ratio is the geometric mean of head/base over turns and its 95 % interval by
// Student's t. Below 1, head costs less.
func (r GainRow) Ratio() (mean, low, high float64) {
	n := float64(len(r.Base))
	var sum, square float64
	for i := range r.Base {
		l := math.Log(r.Head[i] / r.Base[i])
		sum += l
		square += l * l
	}
	m := sum / n
	if n < 2 {
		return math.Exp(m), 0, math.Inf(1)
	}
	se := math.Sqrt(max(0, square-n*m*m)/(n-1)) / math.Sqrt(n)
	half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(0.975) * se
	return math.Exp(m), math.Exp(m - half), math.Exp(m + half)
}

// Text is the table that is published.
func (g *Gain) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "profile-guided optimisation, %s against %s: CPU of the command per message, head/base, paired turns in random order (seed %d)\n", g.Head, g.Base, g.Seed)
	fmt.Fprintf(&b, "commit %s, %s; %s, %d cores, %s, %s\n\n", g.Version, g.When.Format("2006-01-02"), g.Machine.CPU, g.Machine.Cores, g.Machine.Kernel, g.Machine.Go)
	fmt.Fprintf(&b, "%-10s %5s %28s %28s   %s\n", "subject", "turns", "base, CPU s per million", "head, CPU s per million", "head/base and its 95 % interval")
	for _, r := range g.Rows {
		mean, low, high := r.Ratio()
		fmt.Fprintf(&b, "%-10s %5d %28s %28s   %.3f (%.3f to %.3f)\n", r.Subject, len(r.Base), lab.NewSpread(r.Base), lab.NewSpread(r.Head), mean, low, high)
	}
	return b.String()
}

// MeasureGain builds both commands with each side's profile and runs them in
// turns. It needs the go command.
func MeasureGain(ctx context.Context, o GainOptions) (*Gain, error) {
	if o.Turns < 2 {
		return nil, errors.New("at least 2 turns are needed")
	}
	dir, err := os.MkdirTemp("", "portask-pgo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var sides [2]*lab.Lab
	for i, choice := range []string{o.Base, o.Head} {
		sides[i] = &lab.Lab{Perflab: o.Lab.Perflab, Dir: o.Lab.Dir}
		for _, c := range Commands {
			pgo, err := o.profile(choice, c)
			if err != nil {
				return nil, err
			}
			binary := filepath.Join(dir, fmt.Sprintf("%s-%d", c.Name, i))
			cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-pgo="+pgo, "-o", binary, "./"+c.Main)
			cmd.Dir = o.Root
			if b, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("build %s with %s: %w: %s", c.Name, choice, err, bytes.TrimSpace(b))
			}
			if c.Name == "portask" {
				sides[i].Portask = binary
			} else {
				sides[i].Loadgen = binary
			}
		}
	}
	g := &Gain{Base: o.Base, Head: o.Head, Version: o.Version, When: time.Now().UTC(), Machine: sysmetrics.ThisMachine(), Seed: o.Seed}
	random := rand.New(rand.NewPCG(o.Seed, 0))
	rows := map[string]*GainRow{}
	for turn := range o.Turns {
		subjects := slices.Clone(o.Subjects)
		random.Shuffle(len(subjects), func(i, j int) { subjects[i], subjects[j] = subjects[j], subjects[i] })
		for _, s := range subjects {
			row := rows[s]
			if row == nil {
				row = &GainRow{Subject: s}
				rows[s] = row
			}
			var got [2]float64
			for _, side := range random.Perm(2) {
				// The other command is the base's on both sides.
				l := *sides[0]
				if s == "loadgen" {
					l.Loadgen = sides[side].Loadgen
				} else {
					l.Portask = sides[side].Portask
				}
				if got[side], err = cost(ctx, &l, s, dir); err != nil {
					return nil, fmt.Errorf("%s, turn %d: %w", s, turn, err)
				}
			}
			row.Base, row.Head = append(row.Base, got[0]), append(row.Head, got[1])
			if o.Progress != nil {
				o.Progress(fmt.Sprintf("turn %d %-9s base %.3f head %.3f CPU s per million", turn, s, got[0], got[1]))
			}
		}
	}
	for _, s := range o.Subjects {
		g.Rows = append(g.Rows, *rows[s])
	}
	return g, nil
}

func (o *GainOptions) profile(choice string, c Command) (string, error) {
	switch choice {
	case "off":
		return "off", nil
	case "committed":
		return filepath.Abs(filepath.Join(o.Root, filepath.FromSlash(c.Default())))
	}
	name, err := filepath.Abs(filepath.Join(choice, c.Name+".pgo"))
	if err == nil {
		_, err = os.Stat(name)
	}
	return name, err
}

// cost is the CPU seconds per million messages of one round of a subject.
func cost(ctx context.Context, l *lab.Lab, subject, dir string) (float64, error) {
	if subject != "loadgen" {
		v := lab.Accepted
		if subject == "durable" {
			v = lab.Durable
		}
		r, err := l.Round(ctx, v, lab.Load{Measured: 1500 * time.Millisecond})
		return r.ServerCPU, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	name := filepath.Join(dir, "run.json")
	args := append([]string{"run", "--quiet", "--seed", "1", "--warmup", "1s", "--duration", "4s", "--json", name, "--start-broker", l.Portask},
		Scenarios[len(Scenarios)-1].Args...)
	cmd := exec.CommandContext(ctx, l.Loadgen, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends the broker it started
	cmd.WaitDelay = 30 * time.Second
	// An invalid run has latencies that mean nothing; its CPU time means what
	// it says.
	if b, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 3 {
		return 0, fmt.Errorf("loadgen run: %w: %s", err, bytes.TrimSpace(b))
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	var d struct {
		Counts    struct{ Delivered int64 }
		Generator struct {
			CPU  float64 `json:"cpu_s"`
			Spin float64 `json:"spin_s"`
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if d.Counts.Delivered == 0 {
		return 0, errors.New("nothing was delivered")
	}
	return (d.Generator.CPU - d.Generator.Spin) * 1e6 / float64(d.Counts.Delivered), nil
}
