package selftest

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/portask/portask/ci/internal/jsonl"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// Files of a campaign in its directory. Both only grow.
const (
	GatesFile  = "gates.jsonl"
	RoundsFile = "rounds.jsonl"
)

// Version of their lines.
const Version = 1

// States of a gate's line. A gate that was begun and not done was interrupted.
const (
	begun = "begun"
	done  = "done"
)

// Gate is one line of GatesFile.
type Gate struct {
	Version int       `json:"version"`
	State   string    `json:"state"`
	ID      string    `json:"id"`
	Kind    Kind      `json:"kind"`
	Bench   string    `json:"bench,omitempty"` // empty for the whole suite
	Percent float64   `json:"percent,omitempty"`
	Seed    uint64    `json:"seed"`
	Commit  string    `json:"commit"`
	When    time.Time `json:"when"`

	Decision verdict.Decision `json:"decision,omitempty"`
	// Right: an AA gate did not fail and was not invalid; another found what was
	// injected, by the means meant for it.
	Right     bool    `json:"right,omitempty"`
	Reason    string  `json:"reason,omitempty"`
	Effect    float64 `json:"effect,omitempty"` // as estimated, of the benchmark
	Rounds    int     `json:"rounds,omitempty"`
	Disturbed int     `json:"disturbed,omitempty"`
	Seconds   float64 `json:"seconds,omitempty"`
	Load      float64 `json:"load,omitempty"`
	CPU       string  `json:"cpu,omitempty"`
}

// Recorded is one line of RoundsFile: a round of an AA gate.
type Recorded struct {
	Version int          `json:"version"`
	Gate    string       `json:"gate"`
	Bench   sample.Bench `json:"bench"`
	Metric  string       `json:"metric"`
	Control bool         `json:"control"`
	Layouts [2]int       `json:"layouts"`
	// CPU and Wall are the log-ratios of the pairs, to five digits.
	CPU  []float64 `json:"cpu"`
	Wall []float64 `json:"wall"`
}

// Bounds of what is read back.
const (
	lineMax  = 1 << 20
	linesMax = 1_000_000
	pairsMax = 1000
)

// ReadGates returns the gates of a campaign: the last line of each, so that an
// interrupted gate is one that was only begun.
func ReadGates(dir string) ([]Gate, error) {
	var gates []Gate
	at := make(map[string]int)
	err := jsonl.ReadFile(filepath.Join(dir, GatesFile), lineMax, linesMax, func(b []byte) error {
		var g Gate
		if err := json.Unmarshal(b, &g); err != nil {
			return err
		}
		if g.Version != Version || g.ID == "" || g.State != begun && g.State != done {
			return fmt.Errorf("version %d, id %.40q, state %.40q", g.Version, g.ID, g.State)
		}
		i, ok := at[g.ID]
		switch {
		case !ok:
			at[g.ID] = len(gates)
			gates = append(gates, g)
		case gates[i].State == done:
			return fmt.Errorf("gate %q is done already", g.ID)
		default:
			gates[i] = g
		}
		return nil
	})
	return gates, err
}

// ReadRounds returns the recorded rounds of the gates that keep.
func ReadRounds(dir string, keep func(gate string) bool) ([]Recorded, error) {
	var all []Recorded
	err := jsonl.ReadFile(filepath.Join(dir, RoundsFile), lineMax, linesMax, func(b []byte) error {
		var r Recorded
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		if r.Version != Version || len(r.CPU) != len(r.Wall) || len(r.CPU) > pairsMax || r.Metric != sample.CPU.String() && r.Metric != sample.Wall.String() {
			return fmt.Errorf("version %d, %d and %d pairs, metric %.40q", r.Version, len(r.CPU), len(r.Wall), r.Metric)
		}
		if keep(r.Gate) {
			all = append(all, r)
		}
		return nil
	})
	return all, err
}

// record turns the rounds of a gate into lines.
func record(id string, series []sample.Series) []Recorded {
	var out []Recorded
	digits := func(v float64) float64 { return math.Round(v*1e5) / 1e5 }
	for i := range series {
		s := &series[i]
		for _, round := range s.Rounds {
			r := Recorded{Version: Version, Gate: id, Bench: s.Bench, Metric: s.Metric.String(), Control: s.Control, Layouts: round.Seeds}
			for _, p := range round.Pairs {
				c, w := p.LogRatio(sample.CPU), p.LogRatio(sample.Wall)
				if !math.IsNaN(c) && !math.IsNaN(w) && len(r.CPU) < pairsMax {
					r.CPU, r.Wall = append(r.CPU, digits(c)), append(r.Wall, digits(w))
				}
			}
			out = append(out, r)
		}
	}
	return out
}
