// Package check holds the adaptive policy against its rivals on rows that it was
// not trained on.
package check

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/policy/fit"
	"github.com/portask/portask/ci/policy/rows"
	"github.com/portask/portask/ci/policy/sim"
)

// Result is one evaluation: scores of stationary and drifting streams, the
// adaptive policy first, then the trained table, then the others.
type Result struct {
	Stationary, Cold, Drift []sim.Score
	Streams, DriftStreams   int
	Batches                 int // in each stationary stream
	TrainFiles, CheckFiles  int
}

// coldBatches is the length of streams that show what the first batches cost.
const coldBatches = 16

// Evaluate scores artefact a on the check rows, beside a table trained on the
// training rows. all adds every static choice.
func Evaluate(train, check []rows.Row, a *adaptive.Artefact, all bool) (Result, error) {
	t, c := sim.Arrange(train), sim.Arrange(check)
	if len(t.Files) == 0 || len(c.Files) == 0 {
		return Result{}, fmt.Errorf("rows of %d files to train on and %d to check on", len(t.Files), len(c.Files))
	}
	policies := []sim.Policy{sim.Adaptive(a), sim.Table(t, false), sim.Table(t, true)}
	if all {
		policies = append(policies, sim.Threshold(), sim.CPURule())
		policies = append(policies, sim.Static()...)
	}
	stationary, drift := c.Stationary(sim.StreamBatches), c.Drifting()
	if len(stationary) == 0 {
		return Result{}, errors.New("no file to check on has a batch of any size")
	}
	return Result{
		Stationary: sim.Run(c, stationary, policies),
		Cold:       sim.Run(c, c.Stationary(coldBatches), policies[:3]),
		Drift:      sim.Run(c, drift, policies),
		Streams:    len(stationary), DriftStreams: len(drift), Batches: sim.StreamBatches,
		TrainFiles: len(t.Files), CheckFiles: len(c.Files),
	}, nil
}

// Split parts rows into those for training and those for checking.
func Split(all []rows.Row) (train, check []rows.Row) {
	for _, r := range all {
		if r.Check() {
			check = append(check, r)
		} else {
			train = append(train, r)
		}
	}
	return train, check
}

// RowsFile is where the recorded rows are, from the repository's root.
const RowsFile = "benchdata/policy/rows.csv.gz"

// Recorded evaluates a on the rows of a file that are held out from training.
func Recorded(name string, a *adaptive.Artefact) (Result, error) {
	all, _, err := rows.Open(name)
	if err != nil {
		return Result{}, err
	}
	fit.Sort(all)
	train, held := Split(all)
	return Evaluate(train, held, a, true)
}

// Folds of cross validation.
const Folds = 4

func fold(r *rows.Row) int {
	n, err := strconv.ParseUint(r.File, 16, 64)
	if err != nil {
		return 0
	}
	return int(n>>40) % Folds
}

// CrossValidate scores a model on training rows alone: four times it is fitted to
// three quarters of the files and scored on the other. The constants of the policy
// are chosen by this.
func CrossValidate(train []rows.Row, m adaptive.Model, reference [2]float64) (out []Result, err error) {
	for k := range Folds {
		var in, held []rows.Row
		for _, r := range train {
			if fold(&r) == k {
				held = append(held, r)
			} else {
				in = append(in, r)
			}
		}
		b, err := fit.Artefact(in, m, adaptive.Provenance{}, reference)
		if err != nil {
			return nil, err
		}
		a, err := adaptive.Parse(b)
		if err != nil {
			return nil, err
		}
		r, err := Evaluate(in, held, a, false)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// Unseen returns the rows of files that a was not trained on.
func Unseen(all []rows.Row, a *adaptive.Artefact) (out []rows.Row) {
	for _, r := range all {
		if !slices.ContainsFunc(a.Provenance.Corpus, func(s string) bool { return len(s) >= len(r.File) && s[len(s)-len(r.File):] == r.File }) {
			out = append(out, r)
		}
	}
	return out
}
