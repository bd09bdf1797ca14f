package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/portask/portask/ci/verdict"
)

// Markdown prints the verdict for a pull request.
func Markdown(w io.Writer, v *verdict.Verdict) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("## %s %s", sign(v.Decision), v.Decision)
	line("")
	line("`%s`: %s. %s.", sides(v, "→"), counted(v), seconds(v.Seconds))
	line("")
	for _, r := range v.Reasons {
		line("- %s", escaped(r))
	}
	if rows := compared(v.Entries); len(rows) > 0 {
		line("")
		line("| benchmark | effect | interval | rounds | base | head | decision |")
		line("| --- | ---: | :---: | ---: | ---: | ---: | --- |")
		for _, e := range rows {
			line("| `%s` | %s | %s to %s | %d | %s | %s | %s |", strings.ReplaceAll(e.Bench.String(), "|", "\\|"), percent(e.Effect.Effect),
				percent(e.Effect.Low), percent(e.Effect.High), e.Effect.Rounds, cost(e.BaseNs), cost(e.HeadNs), escaped(decision(e)))
		}
		for _, e := range rows {
			if len(e.Top)+len(e.Notes) == 0 {
				continue
			}
			why(line, e.Bench.String(), e.Top, e.Notes)
		}
	}
	if s := skipped(v); len(s) > 0 {
		line("")
		for _, s := range s {
			line("- %s", escaped(s))
		}
	}
	if shown := moved(v); len(v.Counters) > 0 {
		line("")
		line("Counters: %d equal.", len(v.Counters)-len(shown))
		if len(shown) > 0 {
			line("")
			line("| counter | base | head | change | limit | decision |")
			line("| --- | ---: | ---: | ---: | ---: | --- |")
			for _, c := range shown {
				line("| `%s` | %s | %s | %s | +%.1f %% | %s |", strings.ReplaceAll(c.Name, "|", "\\|"), digits(c.Base), digits(c.Head), change(c), 100*c.Limit, c.Decision)
			}
			for _, c := range shown {
				if len(c.Top)+len(c.Notes) > 0 {
					why(line, c.Name, c.Top, c.Notes)
				}
			}
		}
	}
	if len(v.Objectives) > 0 {
		line("")
		line("| objective | measured | enforced | target | |")
		line("| --- | ---: | ---: | ---: | --- |")
		for _, o := range v.Objectives {
			target, word := "", string(o.Decision)
			if o.Target != nil {
				target = objectiveBound(o, *o.Target)
				if !o.Met {
					word += ", target NOT MET"
				}
			}
			line("| %s | %s %s | %s | %s | %s |", escaped(o.Name), digits(o.Value), o.Unit, objectiveBound(o, o.Bound), target, word)
		}
	}
	if len(v.Waivers) > 0 {
		line("")
		for _, wv := range v.Waivers {
			line("- waiver for `%s` up to %+.1f %%: %s", wv.Name, 100*wv.Max, escaped(wv.Reason))
		}
	}
	line("")
	line("<sub>%s. `%s`</sub>", environment(v), strings.ReplaceAll(v.Command, "`", "'"))
	if v.Decision == verdict.Inconclusive {
		line("")
		line("INCONCLUSIVE: `%s`", strings.Join(v.Open(), "`, `"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// why prints an explanation as a list below a name.
func why(line func(string, ...any), name string, top []verdict.Function, notes []string) {
	line("")
	line("`%s`:", strings.ReplaceAll(name, "`", "'"))
	line("")
	explain(func(format string, args ...any) {
		line("- `%s`", strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf(format, args...)), "`", "'"))
	}, top, notes)
}

// escaped keeps text that others wrote from becoming markup.
func escaped(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "`", "'", "\n", " ").Replace(s)
}

// sign is a shape for a decision: the colour says it only again.
func sign(d verdict.Decision) string {
	switch d {
	case verdict.Pass:
		return "✓"
	case verdict.Fail:
		return "✕"
	case verdict.Inconclusive:
		return "~"
	}
	return "?"
}
