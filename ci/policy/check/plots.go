package check

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/portask/portask/loadgen/report/plot"

	"github.com/portask/portask/ci/policy/sim"
)

// style makes a drawing of package plot, which takes its colours from the page,
// stand alone, on light and dark.
const style = `<style>svg{background:#fff;font:12px sans-serif}text{fill:#333}.grid,.axis{stroke:#ccc;fill:none}` +
	`.hair{display:none}.s1{stroke:#0072b2}.s2{stroke:#d55e00}.s3{stroke:#009e73}.s4{stroke:#cc79a7}` +
	`.line,.s1,.s2,.s3,.s4{fill:none;stroke-width:2}text.s1,text.s2,text.s3,text.s4{stroke:none}text.s1{fill:#0072b2}text.s2{fill:#d55e00}text.s3{fill:#009e73}text.s4{fill:#cc79a7}</style>`

// Plots writes the distribution of regrets, stationary and drifting, as SVG.
func (r *Result) Plots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, x := range []struct {
		name, title string
		scores      []sim.Score
	}{
		{"adaptive-regret", "Regret of stationary streams", r.Stationary},
		{"adaptive-drift", "Regret of drifting streams", r.Drift},
	} {
		c := plot.Chart{
			Title: x.title,
			X:     plot.Axis{Max: 100, Title: x.title + ": percent of streams"},
			Y:     plot.Axis{Kind: plot.Log, Min: 0.1, Max: 1000, Title: "cost beyond the best in hindsight, %", Label: func(v float64) string { return fmt.Sprintf("%g %%", v) }},
		}
		for i, p := range []struct{ policy, name, dash string }{
			{"adaptive", "adaptive", ""}, {"trained table (size, load, link)", "table", "6 3"}, {"threshold", "threshold", "2 3"}, {"always snappy-fastest", "snappy", "8 3 2 3"},
		} {
			for k := range x.scores {
				s := &x.scores[k]
				if s.Policy != p.policy {
					continue
				}
				l := plot.Line{Name: p.name, Class: fmt.Sprintf("s%d", i+1), Dash: p.dash}
				for q := 1; q < 200; q++ {
					l.X = append(l.X, float64(q)/2)
					l.Y = append(l.Y, math.Max(100*s.Regrets[q*len(s.Regrets)/200], 0.1))
				}
				c.Lines = append(c.Lines, l)
			}
		}
		svg := c.SVG(720, 360)
		if at := strings.IndexByte(svg, '>'); at >= 0 {
			head := svg[:at]
			if !strings.Contains(head, "xmlns=") {
				head += ` width="720" height="360" xmlns="http://www.w3.org/2000/svg"`
			}
			svg = head + ">" + style + svg[at+1:]
		}
		if err := os.WriteFile(filepath.Join(dir, x.name+".svg"), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}
