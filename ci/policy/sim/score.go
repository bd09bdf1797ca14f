package sim

import (
	"runtime"
	"slices"
	"sync"
)

// Score is how a policy did over streams. Regrets are parts: 0.03 is 3 %.
type Score struct {
	Policy                      string
	Mean, P95, Worst, WorstCell float64
	Cell, Stream                string  // the worst ones
	VsRaw, WorstVsRaw           float64 // mean and worst of cost over that of raw, less 1
	Switches                    float64 // for each batch
	Regrets                     []float64
	Cells                       []CellScore
}

// CellScore is a cell's mean regret.
type CellScore struct {
	Cell string
	Mean float64
}

// Run scores policies over streams, on all processors. The result does not depend
// on their number. Without streams there are no figures but the policies' names.
func Run(d *Data, streams []Stream, policies []Policy) []Score {
	if len(streams) == 0 {
		scores := make([]Score, len(policies))
		for i := range policies {
			scores[i].Policy = policies[i].Name
		}
		return scores
	}
	type result struct {
		regret, raw float64
		switches    int
	}
	results := make([][]result, len(streams))
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				s := &streams[i]
				o := d.outcomes(s.Batches)
				oracle, raw := 0.0, 0.0
				for k := range o {
					oracle += o[k].cost[o[k].best]
					raw += o[k].cost[Raw]
				}
				for _, p := range policies {
					cost, switches := p.run(d, s, o)
					results[i] = append(results[i], result{cost/oracle - 1, cost/raw - 1, switches})
				}
			}
		})
	}
	for i := range streams {
		next <- i
	}
	close(next)
	wg.Wait()

	scores := make([]Score, len(policies))
	for p := range policies {
		sc := &scores[p]
		*sc = Score{Policy: policies[p].Name, WorstVsRaw: -1, Worst: -1, WorstCell: -1}
		batches := 0
		cellAt, sum, n := map[string]int{}, []float64{}, []float64{}
		for i := range streams {
			r := results[i][p]
			s := &streams[i]
			batches += len(s.Batches)
			sc.Mean += r.regret
			sc.VsRaw += r.raw
			sc.WorstVsRaw = max(sc.WorstVsRaw, r.raw)
			sc.Switches += float64(r.switches)
			if r.regret > sc.Worst {
				sc.Worst, sc.Stream = r.regret, s.Cell+" class="+s.Batches[0].Row.Class
			}
			sc.Regrets = append(sc.Regrets, r.regret)
			c, ok := cellAt[s.Cell]
			if !ok {
				c = len(sum)
				cellAt[s.Cell] = c
				sum, n = append(sum, 0), append(n, 0)
				sc.Cells = append(sc.Cells, CellScore{Cell: s.Cell})
			}
			sum[c] += r.regret
			n[c]++
		}
		k := float64(len(streams))
		sc.Mean /= k
		sc.VsRaw /= k
		sc.Switches /= float64(batches)
		slices.Sort(sc.Regrets)
		sc.P95 = sc.Regrets[len(streams)*95/100]
		for c := range sc.Cells {
			sc.Cells[c].Mean = sum[c] / n[c]
			if sc.Cells[c].Mean > sc.WorstCell {
				sc.WorstCell, sc.Cell = sc.Cells[c].Mean, sc.Cells[c].Cell
			}
		}
	}
	return scores
}
