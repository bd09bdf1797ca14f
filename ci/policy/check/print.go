package check

import (
	"fmt"
	"io"

	"github.com/portask/portask/ci/policy/sim"
)

// Value is a figure that an objective of its name bounds.
type Value struct {
	Name  string
	Value float64
}

// Values are the figures that configs/slo.yaml bounds: those of the adaptive
// policy, and each over that of the trained table.
func (r *Result) Values() []Value {
	s, d := &r.Stationary[0], &r.Drift[0]
	t, td := &r.Stationary[1], &r.Drift[1]
	return []Value{
		{"policy-regret-mean", s.Mean},
		{"policy-regret-p95", s.P95},
		{"policy-regret-worst", s.Worst},
		{"policy-regret-worst-cell", s.WorstCell},
		{"policy-worst-against-raw", s.WorstVsRaw},
		{"policy-drift-worst-against-raw", d.WorstVsRaw},
		{"policy-drift-regret-mean", d.Mean},
		{"policy-drift-regret-worst-cell", d.WorstCell},
		{"policy-switches", s.Switches},
		{"policy-over-table", max(s.Mean/t.Mean, s.P95/t.P95, s.Worst/t.Worst, s.WorstCell/t.WorstCell,
			s.WorstVsRaw/t.WorstVsRaw, d.Mean/td.Mean, d.WorstCell/td.WorstCell)},
	}
}

// Names are those of Values.
func Names() (names []string) {
	none := make([]sim.Score, 2)
	for _, v := range (&Result{Stationary: none, Drift: none}).Values() {
		names = append(names, v.Name)
	}
	return names
}

// Print prints all tables.
func (r *Result) Print(w io.Writer) {
	fmt.Fprintf(w, "table trained on %d files, checked on %d others\n", r.TrainFiles, r.CheckFiles)
	fmt.Fprintf(w, "\nstationary: %d streams of %d batches; regret against the best encoder of each batch in hindsight\n", r.Streams, r.Batches)
	table(w, r.Stationary)
	fmt.Fprintf(w, "\nthe first %d batches alone\n", coldBatches)
	table(w, r.Cold)
	fmt.Fprintf(w, "\ndrifting: %d streams whose payload changes file every 64 batches, in some also load and link\n", r.DriftStreams)
	s, d := &r.Stationary[0], &r.Drift[0]
	if r.DriftStreams == 0 {
		fmt.Fprintln(w, "not scored: it takes two files of a size")
	} else {
		table(w, r.Drift)
	}
	fmt.Fprintf(w, "\nadaptive was worst in\n  stream     %s\n  cell       %s\n", s.Stream, s.Cell)
	if r.DriftStreams > 0 {
		fmt.Fprintf(w, "  drift      %s\n  drift cell %s\n", d.Stream, d.Cell)
	}
	fmt.Fprintln(w)
}

// table prints scores, a policy on a line.
func table(w io.Writer, scores []sim.Score) {
	fmt.Fprintf(w, "%-42s %9s %9s %10s %10s %9s %12s %9s\n", "", "mean", "p95", "worst", "worst cell", "vs raw", "worst vs raw", "switches")
	for i := range scores {
		s := &scores[i]
		fmt.Fprintf(w, "%-42s %8.2f%% %8.2f%% %9.1f%% %9.2f%% %+8.1f%% %+11.2f%% %9.4f\n", s.Policy,
			100*s.Mean, 100*s.P95, 100*s.Worst, 100*s.WorstCell, 100*s.VsRaw, 100*s.WorstVsRaw, s.Switches)
	}
}

// FoldsTable prints the means over folds of the adaptive policy and the tables.
func FoldsTable(w io.Writer, rs []Result) {
	for _, drift := range []bool{false, true} {
		var scores []sim.Score
		for p := range rs[0].Cold {
			var m sim.Score
			for _, r := range rs {
				s := r.Stationary[p]
				if drift {
					s = r.Drift[p]
				}
				n := float64(len(rs))
				m.Policy = s.Policy
				m.Mean += s.Mean / n
				m.P95 += s.P95 / n
				m.WorstCell += s.WorstCell / n
				m.VsRaw += s.VsRaw / n
				m.Switches += s.Switches / n
				m.Worst, m.WorstVsRaw = max(m.Worst, s.Worst), max(m.WorstVsRaw, s.WorstVsRaw)
			}
			scores = append(scores, m)
		}
		if drift {
			fmt.Fprintln(w, "drifting")
		}
		table(w, scores)
	}
}
