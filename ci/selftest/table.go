package selftest

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/portask/portask/ci/stat"
	"github.com/portask/portask/ci/verdict"
)

// Required are the rows that must hold for the laboratory to be believed.
type Required struct {
	Kind  Kind
	Gates int
	// Right is the least share of gates that were right.
	Right float64
}

// Requirements are those of the project.
var Requirements = []Required{{AA, 20, 1}, {CPU, 60, 0.95}, {Alloc, 20, 1}, {Syscall, 20, 1}, {Tail, 20, 1}}

// row of the table.
type row struct {
	kind                     Kind
	begun, done, right, open int
	rounds                   int
	seconds                  []float64
	commits, machines        []string
	wrong                    []Gate
	byBench                  map[string][2]int // right, done
}

func rows(gates []Gate) map[Kind]*row {
	out := make(map[Kind]*row)
	for _, k := range Kinds {
		out[k] = &row{kind: k, byBench: make(map[string][2]int)}
	}
	for _, g := range gates {
		r := out[g.Kind]
		if r == nil {
			continue
		}
		r.begun++
		if g.State != done {
			continue
		}
		r.done++
		r.rounds += g.Rounds
		r.seconds = append(r.seconds, g.Seconds)
		n := r.byBench[g.Bench]
		n[1]++
		if g.Right {
			r.right++
			n[0]++
		} else {
			r.wrong = append(r.wrong, g)
		}
		r.byBench[g.Bench] = n
		if g.Decision == verdict.Inconclusive {
			r.open++
		}
		r.commits = append(r.commits, g.Commit)
		r.machines = append(r.machines, g.CPU)
	}
	return out
}

// Missing says which requirements do not hold, one sentence each.
func Missing(gates []Gate) []string {
	var out []string
	all := rows(gates)
	for _, q := range Requirements {
		r := all[q.Kind]
		switch {
		case r.done < q.Gates:
			out = append(out, fmt.Sprintf("%s: %d gates, %d are required", q.Kind, r.done, q.Gates))
		case float64(r.right) < q.Right*float64(r.done):
			out = append(out, fmt.Sprintf("%s: right in %d of %d, %.0f %% are required", q.Kind, r.right, r.done, 100*q.Right))
		}
	}
	return out
}

var titles = map[Kind]string{
	AA:      "A/A: the head does the same",
	CPU:     "%g %% more iterations' work in one benchmark",
	Alloc:   "one more allocation an operation",
	Syscall: "one more system call an operation",
	Tail:    "1 ms of sleep in 2 % of the operations",
}

// confidence of the exact intervals.
const confidence = 0.95

// Table writes the campaign as Markdown. simulated may be nil.
func Table(w io.Writer, gates []Gate, simulated *Simulated) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	all := rows(gates)
	line("# The gate, tested on itself")
	line("")
	line("Made by `perflab selftest` from `benchdata/selftest/`; `docs/laboratory.md` says how the gate decides. Each gate is")
	line("complete: copies, builds, screen, confirmation. Nothing was run again for its result; a gate that was interrupted")
	line("is counted as begun. Intervals are exact (Clopper and Pearson), two-sided, %.0f %%.", 100*confidence)
	line("")
	line("| what was done to the head | begun | complete | right | share | interval | inconclusive | rounds | median s |")
	line("| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |")
	percent := 5.0
	for _, g := range gates {
		if g.Kind == CPU {
			percent = g.Percent
		}
	}
	for _, k := range Kinds {
		r := all[k]
		title := titles[k]
		if k == CPU {
			title = fmt.Sprintf(title, percent)
		}
		if r.done == 0 {
			line("| %s | %d | 0 | | | | | | |", title, r.begun)
			continue
		}
		low, high := stat.ClopperPearson(r.right, r.done, confidence)
		line("| %s | %d | %d | %d | %.1f %% | %.1f to %.1f %% | %d | %d | %.0f |", title, r.begun, r.done, r.right,
			100*float64(r.right)/float64(r.done), 100*low, 100*high, r.open, r.rounds, stat.Median(r.seconds))
	}
	line("")
	line("Right means: an A/A gate neither failed nor was invalid; a slower head failed, by the benchmark or the counter that")
	line("the injection was meant for. An A/A gate runs the whole reduced suite with a control and counts system calls; the")
	line("others run one benchmark; those whose injection a counter finds have %.0f s for their rounds.", counterBudget.Seconds())
	if simulated != nil {
		alarms := simulated.Failed + simulated.Invalid
		low, high := stat.ClopperPearson(alarms, simulated.Gates, confidence)
		line("")
		line("%s (seed %d). False alarms: %.2f %%, interval %.2f to %.2f %%.", simulated, simulated.Seed, 100*float64(alarms)/float64(simulated.Gates), 100*low, 100*high)
		line("Simulated gates draw rounds of the real A/A gates, with the sides exchanged by a coin; tails that were not recorded")
		line("are not in them.")
	}
	line("")
	line("| benchmark | injected | right |")
	line("| --- | --- | ---: |")
	for _, k := range Kinds[1:] {
		r := all[k]
		var names []string
		for name := range r.byBench {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			line("| `%s` | %s | %d of %d |", name, k, r.byBench[name][0], r.byBench[name][1])
		}
	}
	var wrong []Gate
	var commits, machines []string
	for _, k := range Kinds {
		wrong = append(wrong, all[k].wrong...)
		commits = append(commits, all[k].commits...)
		machines = append(machines, all[k].machines...)
	}
	if len(wrong) > 0 {
		line("")
		line("Gates that were not right:")
		line("")
		for _, g := range wrong {
			line("- %s, seed %d, commit %.10s, load %.1f: %s. %s", g.ID, g.Seed, g.Commit, g.Load, g.Decision, g.Reason)
		}
	}
	line("")
	for i, c := range distinct(commits) {
		if i == 0 {
			b.WriteString("Commits: ")
		} else {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%.10s", c)
	}
	line("; processors: %s.", strings.Join(distinct(machines), ", "))
	missing := Missing(gates)
	line("")
	if len(missing) == 0 {
		line("All requirements hold: no false alarm in 20 A/A gates, 95 %% of 60 injected slowdowns, all of 20 of each counter.")
	} else {
		line("NOT MET:")
		line("")
		for _, m := range missing {
			line("- %s", m)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func distinct(all []string) []string {
	s := slices.Clone(all)
	slices.Sort(s)
	return slices.Compact(s)
}
