package fleet

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

// ended is a run of two agents that went well, of a warm-up and one phase.
func ended(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{o: Options{Scenario: testScenario(t)}, topics: []driver.Topic{{Name: "x", Partitions: 4}}}
	for i, name := range []string{"a:1", "b:2"} {
		h := load.Histograms{E2E: pace.NewHistogram()}
		h.E2E.RecordValues(int64(1000*(i+1)), 100)
		p := load.Phase{Name: "main", Measured: true, Seconds: 9, Sent: 50, Offered: 50, Delivered: 50, HeldBackMax: int64(i), Histograms: h}
		m := &member{res: &load.Result{
			Schema: load.Schema, Complete: true, Counts: verify.Counts{Sent: 100, Acked: 100, Delivered: 100},
			Wire:     load.Wire{Batches: uint64(10 * (i + 1)), MessagesPerBatch: 10 / float64(i+1), Bytes: 1000, RawBytes: 2000},
			Measured: &load.Measured{Total: p, Phases: []load.Phase{{Name: "warm-up", Seconds: 1}, p}},
		}}
		m.Name, m.ClockError = name, int64(i+1)*1000
		f.members = append(f.members, m)
	}
	return f
}

func TestMerge(t *testing.T) {
	f := ended(t)
	f.o.Scenario.Objectives = []scenario.Objective{{Metric: "delivered_rate", AtLeast: 99}, {Metric: "e2e_p99", AtMost: 1500 * time.Nanosecond}}
	res := f.merge(time.Now(), nil, false)
	m := res.Measured
	if m == nil || res.Counts.Sent != 200 || m.Total.Delivered != 100 || m.Phases[1].Latency.E2E.Count != 200 || m.Phases[1].Latency.E2E.Max < 1990 || m.Total.HeldBackMax != 1 ||
		res.Wire.Batches != 30 || res.Wire.MessagesPerBatch < 6.6 || res.Wire.MessagesPerBatch > 6.7 || res.Wire.Compression != 2 || !strings.Contains(res.Notes[0], "2µs") {
		t.Errorf("%+v, %+v", res, m)
	}
	// Objectives are of all together: the rate is reached, the latency is not.
	if res.ExitStatus() != 2 || len(res.Missed) != 1 || res.Missed[0].Kind != "e2e_p99" {
		t.Errorf("status %d, missed %v", res.ExitStatus(), res.Missed)
	}
}

func TestMergedVerdicts(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil  func(a, b *member)
		status int
		kind   string
	}{
		"well":          {func(a, b *member) {}, 0, ""},
		"lost":          {func(a, b *member) { b.res, b.failed = nil, errors.New("EOF") }, 3, load.AgentLost},
		"late":          {func(a, b *member) { b.Late = int64(lateMax) + 1 }, 3, load.AgentLate},
		"clock":         {func(a, b *member) { b.ClockError = int64(clockMax) + 1 }, 3, load.ClockBound},
		"limit":         {func(a, b *member) { b.res.Invalid = []load.Problem{{Kind: load.DispatchLag, Text: "late"}} }, 3, load.DispatchLag},
		"violation":     {func(a, b *member) { b.res.Counts.Lost = 1 }, 4, ""},
		"both":          {func(a, b *member) { a.res.Counts.Duplicated = 1; b.res, b.failed = nil, errors.New("EOF") }, 4, load.AgentLost},
		"none is there": {func(a, b *member) { a.res, b.res = nil, nil }, 3, load.AgentLost},
	} {
		f := ended(t)
		tt.spoil(f.members[0], f.members[1])
		res := f.merge(time.Now(), nil, false)
		if res.ExitStatus() != tt.status || (res.Measured != nil) != res.Valid() || len(res.Agents) != 2 {
			t.Errorf("%s: status %d, %+v", name, res.ExitStatus(), res)
		}
		if tt.kind == "" {
			continue
		}
		found := false
		for _, p := range res.Invalid {
			found = found || p.Kind == tt.kind && strings.Contains(p.Text, "agent b:2")
		}
		if !found {
			t.Errorf("%s: invalid %v", name, res.Invalid)
		}
	}
}

// What an agent of another version tells is refused, not merged with loss.
func TestCheckResult(t *testing.T) {
	s := testScenario(t)
	good := func() *load.Result { return ended(t).members[0].res }
	if err := checkResult(good(), s); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*load.Result){
		"schema":   func(r *load.Result) { r.Schema++ },
		"phases":   func(r *load.Result) { r.Measured.Phases = r.Measured.Phases[:1] },
		"measured": func(r *load.Result) { r.Measured = nil },
	} {
		r := good()
		spoil(r)
		if checkResult(r, s) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
