package conns

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// Each limit that is too low is told, with the number it must have and how it
// is raised; those that suffice, or are not known, are not.
func TestLimits(t *testing.T) {
	ample := system{
		soft: 1 << 20, hard: 1 << 20, openFiles: 10, nrOpen: 1 << 20, fileMax: 1 << 40, fileUsed: 5000, portLow: 32768, portHigh: 60999, local: true,
		conntrackMax: 1 << 20, conntrackCount: 7, targetSoft: 1 << 20, targetOpen: 20,
	}
	const n = 100_000
	for name, tt := range map[string]struct {
		change func(*system)
		needs  uint64 // 0: nothing is wrong
		says   []string
	}{
		"ample":       {func(*system) {}, 0, nil},
		"not known":   {func(s *system) { *s = system{local: true} }, 0, nil},
		"soft":        {func(s *system) { s.soft = 1024 }, n + 10 + ownFiles, []string{"open files of this process", "ulimit -n 100074", "the limit is 1024"}},
		"hard":        {func(s *system) { s.soft, s.hard = 20_000, 20_000 }, n + 10 + ownFiles, []string{"limits.conf"}},
		"nr_open":     {func(s *system) { s.soft, s.hard, s.nrOpen = 20_000, 20_000, 20_000 }, n + 10 + ownFiles, []string{"fs.nr_open=100074"}},
		"target":      {func(s *system) { s.targetSoft = 20_000 }, n + 20 + ownFiles, []string{"the target's process", "ulimit -n 100084"}},
		"file-max":    {func(s *system) { s.fileMax = 150_000 }, 2*n + 5000 + 1024, []string{"sysctl -w fs.file-max=206024"}},
		"one end":     {func(s *system) { s.fileMax, s.local, s.portLow = 150_000, false, 1 }, n, []string{"ports"}},
		"conntrack":   {func(s *system) { s.conntrackMax = 65_536 }, n + 7, []string{"nf_conntrack_max=100007"}},
		"far, ports":  {func(s *system) { s.local = false }, n, []string{"ip_local_port_range"}},
		"some ports":  {func(s *system) { s.portLow, s.portHigh = 40_000, 40_999 }, 0, nil},
		"two at once": {func(s *system) { s.soft, s.conntrackMax = 5, 5 }, n + 10 + ownFiles, []string{"ulimit", "nf_conntrack_max"}},
	} {
		s := ample
		tt.change(&s)
		err := s.check(n, 0)
		var l *LimitError
		if tt.needs == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.As(err, &l) || l.Needs != tt.needs || !errors.Is(err, fault.ResourceExhausted) {
			t.Errorf("%s: %v, want %d", name, err, tt.needs)
			continue
		}
		for _, want := range tt.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want it to say %q", name, err, want)
			}
		}
	}
	// What is held already needs nothing more.
	s := ample
	s.soft = 50_000
	if err := s.check(n, 60_000); err != nil {
		t.Errorf("40,000 more with room for 50,000: %v", err)
	}
	if p := (&system{portLow: 40_000, portHigh: 40_999}).perSource(); p != 500 {
		t.Errorf("%d of 1000 ports are used by one address, want half", p)
	}
}

func TestSlope(t *testing.T) {
	r := Result{}
	for _, n := range Steps(18_000) {
		r.Points = append(r.Points, Point{Connections: n, RSSBytes: 5<<20 + int64(n)*200, OwnRSSBytes: 1<<20 + int64(n)*20})
	}
	r.fit()
	if math.Abs(r.Slope-200) > 1e-6 || math.Abs(r.Base-5<<20) > 1e-3 || math.Abs(r.OwnSlope-20) > 1e-6 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.Table(), "200 B of the target's memory, beside 5.00 MiB") {
		t.Errorf("table:\n%s", r.Table())
	}
	r.Points = r.Points[:1]
	if r.fit(); r.Slope != 0 || !strings.Contains(r.Table(), "not known") {
		t.Errorf("a slope of one point: %+v", r)
	}
	r.Points = []Point{{Connections: 1}, {Connections: 2}}
	if r.fit(); r.Slope != 0 {
		t.Errorf("a slope of an unknown target: %+v", r)
	}
	b, err := json.Marshal(Result{Points: []Point{{Connections: 7}}})
	if err != nil || !strings.Contains(string(b), `"connections":7,"rss_bytes":0`) || !strings.Contains(string(b), `"slope_bytes":0`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestSteps(t *testing.T) {
	if got := Steps(2000); !slices.Equal(got, []int{100, 500, 1000, 2000}) {
		t.Errorf("%v", got)
	}
	for _, n := range []int{1, 2, 3, 19, 100} {
		if err := CheckSteps(Steps(n)); err != nil {
			t.Errorf("%d: %v", n, err)
		}
	}
	for _, bad := range [][]int{nil, {0}, {5, 5}, {5, 4}, {Max + 1}} {
		if CheckSteps(bad) == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}
