package objectives

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/perf/benchfmt"

	"github.com/portask/portask/ci/internal/slo"
)

// peersFile holds comparisons with other systems as loadgen kept them. The gate
// does not run them: it would need those systems and minutes more. Their figures
// are as old as the file, whose lines name commit and machine.
const peersFile = "benchdata/peers.txt"

// rival is a promise about another system at a durability.
type rival struct {
	objective  string
	name       string // target in the file
	durability string
	unit       string
}

var rivals = []rival{
	{"times-jetstream-page-cache", "nats-jetstream@os", "os", "msg/s"},
	{"times-jetstream-synced", "nats-jetstream@disk", "disk", "msg/s"},
	{"times-nats-core", "nats-core@nothing", "nothing", "msg/s"},
	{"cpu-over-jetstream", "nats-jetstream@os", "os", "cpu-ns/msg"},
	{"cpu-over-nats-core", "nats-core@nothing", "nothing", "cpu-ns/msg"},
	{"cpu-over-redis", "redis@os", "os", "cpu-ns/msg"},
	{"p99-over-jetstream", "nats-jetstream@os", "os", "e2e-p99-ns"},
	{"p99-over-jetstream-fast", "nats-jetstream-fast@os", "os", "e2e-p99-ns"},
	{"p99-over-redis", "redis@os", "os", "e2e-p99-ns"},
	{"p99-over-nats-core", "nats-core@nothing", "nothing", "e2e-p99-ns"},
}

// peers reads the comparison at the highest rate: of the ratios within each
// turn, in which the systems ran one after the other, the median.
func (s *session) peers(context.Context) error {
	f, err := os.Open(filepath.Join(s.Root, peersFile))
	if err != nil {
		return err
	}
	defer f.Close()
	type cell struct{ target, turn, unit string }
	figures := make(map[cell]float64)
	reader := benchfmt.NewReader(f, peersFile)
	for reader.Scan() {
		switch r := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return r
		case *benchfmt.Result:
			if r.GetConfig("point") != "max" {
				continue
			}
			for _, v := range r.Values {
				value, unit := v.Value, v.Unit
				if v.OrigUnit != "" {
					value, unit = v.OrigValue, v.OrigUnit
				}
				figures[cell{r.GetConfig("target"), r.GetConfig("turn"), unit}] = value
			}
		}
	}
	if err := reader.Err(); err != nil {
		return fmt.Errorf("%s: %w", peersFile, err)
	}
	for _, v := range rivals {
		var ratios []float64
		for c, theirs := range figures {
			if c.target != v.name || c.unit != v.unit || theirs == 0 {
				continue
			}
			if ours, ok := figures[cell{"portask@" + v.durability, c.turn, c.unit}]; ok {
				ratios = append(ratios, ours/theirs)
			}
		}
		if len(ratios) < 3 {
			return fmt.Errorf("%s: %d turns at point max have %s of portask@%s and %s, want at least 3", peersFile, len(ratios), v.unit, v.durability, v.name)
		}
		value, _, _ := slo.Interval(ratios)
		s.count(v.objective, value)
	}
	s.printf("%s: %d promises about other systems, from the runs that are kept there", peersFile, len(rivals))
	return nil
}
