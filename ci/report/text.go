package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/portask/portask/ci/verdict"
)

// rowsMax is how many benchmarks the text shows; one screen. Those that
// failed, are open or moved most come first, the rest is counted.
const rowsMax = 24

// Text prints one screen. Where the verdict is INCONCLUSIVE, the last lines are
// the names of what is open.
func Text(w io.Writer, v *verdict.Verdict) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s  %s", v.Decision, sides(v, "->"))
	line("%s; %s, of which %s measuring; seed %d", counted(v), seconds(v.Seconds), seconds(v.MeasureSeconds), v.Seed)
	for _, r := range v.Reasons {
		line("  %s", r)
	}
	rows := compared(v.Entries)
	if len(rows) > 0 {
		width := 20
		for _, e := range rows[:min(len(rows), rowsMax)] {
			width = min(max(width, len([]rune(e.Bench.String()))), 64)
		}
		line("")
		line("%-*s %8s %19s %7s %9s  %s", width, "benchmark", "effect", "interval", "rounds", "head", "decision")
		for i, e := range rows {
			if i == rowsMax {
				line("  and %d more, none of them failed or open", len(rows)-i)
				break
			}
			line("%-*s %8s %19s %7d %9s  %s", width, middle(e.Bench.String(), width), percent(e.Effect.Effect),
				percent(e.Effect.Low)+" to "+percent(e.Effect.High), e.Effect.Rounds, cost(e.HeadNs), decision(e))
			explain(line, e.Top, e.Notes)
		}
	}
	for _, s := range skipped(v) {
		line("%s", s)
	}
	if len(v.Controls) > 0 {
		line("")
		for _, c := range compared(v.Controls) {
			line("control %-20s %8s %19s %7d %9s  %s", c.Bench.Name, percent(c.Effect.Effect), percent(c.Effect.Low)+" to "+percent(c.Effect.High), c.Effect.Rounds, "", c.Decision)
		}
	}
	if len(v.Counters) > 0 {
		line("")
		shown := moved(v)
		line("counters: %d equal", len(v.Counters)-len(shown))
		for _, c := range shown {
			line("  %-12s %s %s -> %s %s (%s; limit +%.1f %%) %s", c.Decision, c.Name, digits(c.Base), digits(c.Head), c.Unit, change(c), 100*c.Limit, c.Reason)
			explain(line, c.Top, c.Notes)
		}
	}
	if len(v.Objectives) > 0 {
		line("")
		unmet := notMet(v)
		line("objectives: %d enforced, %d short of their target", len(v.Objectives), len(unmet))
		for _, o := range v.Objectives {
			if o.Decision == verdict.Fail || o.Decision == verdict.Invalid || o.Decision == verdict.Inconclusive {
				line("  %-12s %s: %s %s (%s to %s), bound %s. %s", o.Decision, o.Name, digits(o.Value), o.Unit, digits(o.Low), digits(o.High), objectiveBound(o, o.Bound), o.Reason)
			}
		}
		for _, o := range unmet {
			line("  NOT MET      %s: %s %s, target %s, enforced %s", o.Name, digits(o.Value), o.Unit, objectiveBound(o, *o.Target), objectiveBound(o, o.Bound))
		}
	}
	for _, wv := range v.Waivers {
		use := "not used"
		if wv.Used {
			use = "used"
		}
		line("waiver, %s: %s up to %+.1f %%: %s (%.10s)", use, wv.Name, 100*wv.Max, wv.Reason, wv.Commit)
	}
	line("")
	line("machine: %s", environment(v))
	if out, all := dropped(v); out > 0 {
		line("pairs dropped, both sides together: %d of %d", out, all)
	}
	if v.Decision == verdict.Inconclusive {
		line("INCONCLUSIVE:")
		for _, name := range v.Open() {
			line("%s", name)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// decision adds to the word what matters about it.
func decision(e verdict.Entry) string {
	s := string(e.Decision)
	if e.Waived != nil {
		s += ", waived: " + e.Waived.Reason
	}
	if e.Changed {
		s += ", its own source differs"
	}
	if e.Commits > 1 {
		s += fmt.Sprintf(", for %d gates running", e.Commits)
	}
	return s
}

// explain prints functions and notes below a row.
func explain(line func(string, ...any), top []verdict.Function, notes []string) {
	for i, f := range top {
		if i == 3 {
			break
		}
		line("    %s", FunctionLine(f))
	}
	for i, n := range notes {
		if i == 6 {
			line("    and %d notes more in the report", len(notes)-i)
			break
		}
		line("    %s", n)
	}
}

// FunctionLine is "cpu of pkg.F: 120 -> 180 ns/op (+60 ns, 5.1 sigma)".
func FunctionLine(f verdict.Function) string {
	unit := functionUnit(f.Kind)
	sign, by := "+", f.Head-f.Base
	if by < 0 {
		sign, by = "-", -by
	}
	s := fmt.Sprintf("%s of %s: %s -> %s %s/op (%s%s", f.Kind, f.Name, digits(f.Base), digits(f.Head), unit, sign, digits(by))
	if exact(f.Kind) {
		return s + ")"
	}
	return fmt.Sprintf("%s %s, %.1f sigma)", s, unit, f.Sigmas)
}

// exact tells of kinds of a Function that are counted, not sampled.
func exact(kind string) bool { return kind == "instructions" || kind == "objects" }

// functionUnit of a Function's kind, in text of its own.
func functionUnit(kind string) string {
	switch kind {
	case "alloc":
		return "B"
	case "instructions":
		return "Ir"
	case "objects":
		return "objects"
	}
	return "ns"
}

// skipped groups what was not compared by its reason.
func skipped(v *verdict.Verdict) []string {
	names := map[string][]string{}
	var order []string
	for _, e := range v.Entries {
		if e.Decision != verdict.Skipped {
			continue
		}
		reason := e.Reason
		switch {
		case e.Identical:
			reason = "the same program on both sides"
		case e.New:
			reason = "new, no base to compare with"
		}
		if names[reason] == nil {
			order = append(order, reason)
		}
		names[reason] = append(names[reason], e.Bench.String())
	}
	var out []string
	for _, r := range order {
		n := names[r]
		if len(n) > 4 {
			n = append(n[:3:3], fmt.Sprintf("and %d more", len(names[r])-3))
		}
		out = append(out, fmt.Sprintf("not compared, %s: %s", r, strings.Join(n, ", ")))
	}
	return out
}

// Explanation prints all functions and notes of an explanation.
func Explanation(w io.Writer, top []verdict.Function, notes []string) error {
	var b strings.Builder
	for _, f := range top {
		fmt.Fprintf(&b, "  %s\n", FunctionLine(f))
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
