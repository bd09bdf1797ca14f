package scenario

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/loadgen/driver"
)

// check reports what is wrong with settings that are right each by itself. src
// knows where they were given.
func (s *Scenario) check(src *source) {
	src.meaningless("", s.table())
	s.checkLists(src)
	if s.Kind == KindConnections {
		s.checkConnections(src)
		return
	}
	s.checkPhases(src)
	s.checkObjectives(src)
	s.checkFaults(src)
	lanes := s.Producers.Count * s.Partitions()
	if s.Partitions() > PartitionsMax {
		src.bad("topics", "%d partitions in all: want at most %d", s.Partitions(), PartitionsMax)
	}
	if lanes > 1<<20 {
		src.bad("producers.count", "%d producers and %d partitions: want at most %d lanes", s.Producers.Count, s.Partitions(), 1<<20)
	}
	existing := false
	for i := range s.Topics {
		existing = existing || s.Topics[i].Existing
	}
	if s.Consumers.Count > s.Partitions() && !existing && s.Consumers.Delivery != string(driver.Queue) {
		src.bad("consumers.count", "%d consumers for %d partitions: want at most one each", s.Consumers.Count, s.Partitions())
	}
	if k := &s.Keys; k.Count > 0 && k.Hot >= k.Count {
		src.bad("keys.hot", "%d of %d keys: want fewer than all", k.Hot, k.Count)
	}
	if s.Payload.Source == "" {
		src.bad("payload.source", "is empty")
	}
	if s.Payload.Split == SplitSize && s.Payload.Distribution == Empirical && s.Payload.Sizes == "" {
		src.bad("payload.sizes", "distribution empirical needs it: the file of sizes")
	}
	if d := s.Duration(); d > day {
		src.bad("phases", "%s in all: want at most 1d", document.FormatDuration(d))
	}
}

// meaningless reports settings that were given where they have no meaning.
func (src *source) meaningless(prefix string, table []entry) {
	for _, e := range table {
		path := prefix + e.name
		switch {
		case e.only != nil && !e.only() && e.v == nil:
			if src.mentioned(path) {
				src.bad(path, "has a meaning only with %s", e.when)
			}
		case e.table != nil:
			src.meaningless(path+".", e.table)
		case e.list != nil:
			for i := range e.list.len() {
				src.meaningless(path+"."+strconv.Itoa(i)+".", e.list.at(i))
			}
		case e.only != nil && !e.only():
			_, inFile := src.lines[path]
			// With a * all take it that can: a rate is of no use to a trace.
			if inFile || src.flags[path] != "" && !src.many[path] {
				src.bad(path, "has a meaning only with %s", e.when)
			}
		}
	}
}

// mentioned reports whether a table or list was given, or something in it.
func (src *source) mentioned(path string) bool {
	if _, ok := src.lines[path]; ok {
		return true
	}
	for p := range src.flags {
		if strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}

func (s *Scenario) checkLists(src *source) {
	if len(s.Topics) == 0 {
		src.bad("topics", "is empty: want at least one topic")
	}
	if len(s.Phases) == 0 {
		src.bad("phases", "is empty: want at least one phase")
	}
	names := map[string]bool{}
	for i := range s.Topics {
		if t := &s.Topics[i]; names[t.Name] {
			src.bad("topics."+strconv.Itoa(i)+".name", "%s is there twice", document.Quoted(t.Name))
		} else {
			names[t.Name] = true
		}
	}
	clear(names)
	for i := range s.Phases {
		if p := &s.Phases[i]; names[p.Name] {
			src.bad("phases."+strconv.Itoa(i)+".name", "%s is there twice: each phase needs a name of its own", document.Quoted(p.Name))
		} else {
			names[p.Name] = true
		}
	}
}

func (s *Scenario) checkPhases(src *source) {
	measured := false
	for i := range s.Phases {
		p := &s.Phases[i]
		at := "phases." + strconv.Itoa(i)
		measured = measured || p.Measured
		if s.Loop == ClosedLoop {
			continue
		}
		need := func(ok bool, name, why string) {
			if !ok {
				src.bad(at+"."+name, "arrival %s needs it: %s", p.Arrival, why)
			}
		}
		switch p.Arrival {
		case "bursts":
			need(p.On > 0, "on", "the length of a burst")
			need(p.Off > 0, "off", "the time between bursts")
			if p.Base > p.Rate {
				src.bad(at+".base", "%s: want at most the rate in bursts, %s", formatFloat(p.Base), formatFloat(p.Rate))
			}
		case "sine":
			need(p.Period > 0, "period", "the length of a wave")
			need(p.Amplitude > 0, "amplitude", "how far the rate swings")
			if p.Amplitude > p.Rate {
				src.bad(at+".amplitude", "%s: want at most the rate, %s", formatFloat(p.Amplitude), formatFloat(p.Rate))
			}
		case "ramp", "staircase":
			need(p.To > 0, "to", "the rate at the end")
			if p.Arrival == "staircase" {
				need(p.Steps > 0, "steps", "the number of levels")
			}
		case "trace":
			need(p.File != "", "file", "the trace")
		}
	}
	if !measured && len(s.Phases) > 0 {
		src.bad("phases", "none is measured")
	}
}

func (s *Scenario) checkObjectives(src *source) {
	for i := range s.Objectives {
		o := &s.Objectives[i]
		at := "objectives." + strconv.Itoa(i)
		switch {
		case o.Metric == "":
			src.bad(at+".metric", "is missing: want one of them")
		case o.isRate() && o.AtLeast == 0:
			src.bad(at+".at_least", "is missing")
		case !o.isRate() && o.AtMost == 0:
			src.bad(at+".at_most", "is missing")
		}
		if o.Phase == "" {
			continue
		}
		found := false
		for k := range s.Phases {
			if p := &s.Phases[k]; p.Name == o.Phase {
				found = true
				if !p.Measured {
					src.bad(at+".phase", "%s is not measured", document.Quoted(o.Phase))
				}
			}
		}
		if !found {
			names := make([]string, len(s.Phases))
			for k := range s.Phases {
				names[k] = s.Phases[k].Name
			}
			src.bad(at+".phase", "no phase is called %s", document.Quoted(o.Phase))
			src.problems[len(src.problems)-1].Nearest = document.Nearest(o.Phase, names)
		}
	}
}

// Path makes a path of the scenario one that can be opened.
func (s *Scenario) Path(name string) string {
	if filepath.IsAbs(name) || s.Dir == "" {
		return name
	}
	if at := filepath.Join(s.Dir, name); exists(at) {
		return at
	}
	return name
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
