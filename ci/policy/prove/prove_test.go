package prove

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/ci/lab"
)

// machine gives each choice a rate and a size that do not change.
type machine struct {
	runs  []string
	burns int
}

func (m *machine) RunLink(_ context.Context, s lab.LinkScenario) (lab.LinkRun, error) {
	m.runs = append(m.runs, s.Name+"/"+s.Compression)
	r := lab.LinkRun{Rate: 1000, P99: 1e6, BrokerCPU: 1, GeneratorCPU: 3, WirePerMsg: 1000}
	switch s.Compression {
	case "always:zstd":
		r.WirePerMsg, r.GeneratorCPU, r.Rate = 300, 5, 2000
	case "always:snappy":
		r.P99, r.GeneratorCPU = 0.5e6, 4
	case Adaptive:
		r.WirePerMsg, r.GeneratorCPU, r.Rate = 295, 5, 2100
	}
	return r, nil
}

func TestProof(t *testing.T) {
	m := new(machine)
	choices, err := ParseChoices("")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proof{Rounds: 3, Choices: choices, Scenarios: Scenarios(2 * time.Second)}
	burn := func(_ context.Context, percent int) (func(), error) {
		if percent != 80 {
			t.Errorf("burners of %d %%", percent)
		}
		m.burns++
		return func() { m.burns-- }, nil
	}
	if err := p.Measure(t.Context(), m, burn, io.Discard); err != nil {
		t.Fatal(err)
	}
	if m.burns != 0 || len(m.runs) != 3*5*(1+len(Static)) {
		t.Fatalf("%d burners left, %d runs", m.burns, len(m.runs))
	}
	// The choices take turns, so that none is always the first.
	if m.runs[0] == m.runs[5*(1+len(Static))] {
		t.Errorf("both rounds begin with %s", m.runs[0])
	}
	if _, err := ParseChoices("adaptive,always:all"); err == nil {
		t.Error("a choice that there is not was taken")
	}
	var slow, busy *Comparison
	var tails []Comparison
	all := p.Compare()
	for i := range all {
		switch c := &all[i]; c.Scenario + " " + c.Figure {
		case "slow-link cost":
			slow = c
		case "busy-cpu cost":
			busy = c
		case "busy-cpu p99":
			tails = append(tails, *c)
		}
	}
	// 6 + 2·295e6/8e6 = 79.75 against 6 + 2·300e6/8e6 = 81.
	if slow == nil || slow.Best != "always:zstd" || slow.Ratio < 0.98 || slow.Ratio > 0.99 || !slow.Reached || slow.Low != slow.High {
		t.Errorf("slow link: %+v", slow)
	}
	// On loopback bytes cost nothing and CPU is what counts: 6·5 against 4·5.
	if busy == nil || busy.Best != "never" || busy.Ratio < 1.49 || busy.Ratio > 1.51 || busy.Reached {
		t.Errorf("busy CPU: %+v", busy)
	}
	// The cheapest choice has another p99 than the best one.
	if len(tails) != 2 || tails[0].Best != "never" || tails[0].Alone || tails[1].Best != "always:snappy" || !tails[1].Alone {
		t.Errorf("p99 under a busy CPU: %+v", tails)
	}
	var page bytes.Buffer
	if err := p.Markdown(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| slow-link | cost | always:zstd, the cheapest |", "## random:", "| always:brotli | 1000 |"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
