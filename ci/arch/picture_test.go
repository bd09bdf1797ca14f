package arch

import (
	"slices"
	"strings"
	"testing"
)

// picture is the policy: each package of the repository and what it may
// import of the repository. A line is "package: imports". A name that ends in
// "/..." stands for the packages below it too. A package without a line is an
// error, so a new package begins with a decision about its place.
//
// Tests may import more: see testsMay.
const picture = `
	broker/fault:
	broker/message:               broker/fault broker/message/id
	broker/mempool:               broker/fault
	broker/message/id:
	broker/bus:                   broker/fault
	broker/compression:           broker/fault broker/message
	broker/compression/adaptive:  broker/compression broker/fault broker/message
	broker/serialization:         broker/fault broker/message
	broker/config/document:
	broker/config:                broker/config/document broker/fault
	broker/sysmetrics:            broker/fault
	broker/monitor/latency:
	broker/wire:                  broker/fault broker/message
	broker/internal/vfs:          broker/fault

	broker/storage:               broker/fault broker/message
	broker/storage/storagetest:   broker/storage broker/fault broker/message
	broker/storage/memlog:        broker/storage broker/mempool broker/fault broker/message
	broker/storage/disklog:       broker/storage broker/fault broker/message broker/internal/vfs

	broker/partition:             broker/storage broker/bus broker/mempool broker/monitor/latency broker/message broker/fault
	broker/topic:                 broker/partition broker/storage broker/mempool broker/wire broker/message broker/message/id broker/fault

	broker/server/evloop:         broker/mempool broker/fault
	broker/server:                broker/server/evloop broker/topic broker/partition broker/storage broker/bus broker/mempool broker/monitor/latency broker/wire broker/compression broker/message broker/fault
	broker/monitor:               broker/server broker/server/evloop broker/topic broker/partition broker/storage broker/mempool broker/monitor/latency broker/sysmetrics broker/compression broker/compression/adaptive broker/wire broker/message broker/fault
	broker/monitor/top:           broker/monitor

	broker/client:                broker/wire broker/compression broker/compression/adaptive broker/sysmetrics broker/serialization broker/mempool broker/message broker/message/id broker/fault

	broker/cmd/portask:           broker/...

	loadgen/...:                  loadgen/... broker/client broker/config/document broker/message broker/fault broker/wire broker/compression broker/serialization broker/sysmetrics
	loadgen/peers/...:            loadgen/... broker/message broker/compression broker/sysmetrics

	ci/...:                       ci/... broker/compression broker/compression/adaptive broker/message broker/sysmetrics loadgen/report/plot
`

// testsMay is what a test may import beyond its package's line: the broker's
// tests may start the whole product, also on an engine. loadgen and ci see a
// deployment from outside in their tests too.
const testsMay = `
	broker/...:  broker/...
	loadgen/...:
	ci/...:
`

type rule struct {
	pkg   string
	allow []string
}

func parseRules(t *testing.T, text string) []rule {
	t.Helper()
	var rules []rule
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		pkg, allow, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("rule %q: no colon", line)
		}
		rules = append(rules, rule{pkg, strings.Fields(allow)})
	}
	return rules
}

func matches(pattern, path string) bool {
	if head, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == head || strings.HasPrefix(path, head+"/")
	}
	return pattern == path
}

// find returns the most specific rule for path.
func find(rules []rule, path string) *rule {
	var best *rule
	for i := range rules {
		if r := &rules[i]; matches(r.pkg, path) && (best == nil || len(r.pkg) > len(best.pkg)) {
			best = r
		}
	}
	return best
}

func allowed(r *rule, path string) bool {
	return r != nil && slices.ContainsFunc(r.allow, func(p string) bool { return matches(p, path) })
}

// violations holds packages against the picture; each entry is one sentence.
func violations(pkgs []Package, rules, tests []rule) []string {
	var out []string
	for _, p := range pkgs {
		r := find(rules, p.Path)
		if r == nil {
			out = append(out, p.Path+": not in the picture; give it a line")
			continue
		}
		for _, imp := range p.Imports {
			if Own(imp) && !allowed(r, imp) {
				out = append(out, p.Path+" imports "+imp)
			}
		}
		for _, imp := range p.TestImports {
			if Own(imp) && imp != p.Path && !allowed(r, imp) && !allowed(find(tests, p.Path), imp) {
				out = append(out, p.Path+" imports "+imp+" in a test")
			}
		}
	}
	return out
}

func TestDependencyPicture(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	pkgs, err := Packages(root, "broker", "loadgen", "ci")
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) == 0 {
		t.Fatal("no packages found")
	}
	for _, v := range violations(pkgs, parseRules(t, picture), parseRules(t, testsMay)) {
		t.Error(v)
	}
}

// Engines implement the storage contract, and only the command chooses one.
func TestEnginesStandBehindTheContract(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	pkgs, err := Packages(root, "broker", "loadgen", "ci")
	if err != nil {
		t.Fatal(err)
	}
	engine := func(path string) bool {
		rest, ok := strings.CutPrefix(path, "broker/storage/")
		return ok && strings.HasSuffix(rest, "log")
	}
	engines := 0
	for _, p := range pkgs {
		if engine(p.Path) {
			engines++
			if !slices.Contains(p.Imports, "broker/storage") {
				t.Errorf("%s does not import broker/storage", p.Path)
			}
		}
		if p.Path == "broker/cmd/portask" {
			continue
		}
		for _, imp := range p.Imports {
			if engine(imp) {
				t.Errorf("%s imports the engine %s", p.Path, imp)
			}
		}
	}
	if engines < 2 {
		t.Errorf("found %d engines; is the naming rule of this test still true?", engines)
	}
}

// The check itself: planted violations are found, and nothing else.
func TestPictureFindsPlantedViolations(t *testing.T) {
	rules := parseRules(t, "a/x:\na/y: a/x\nb/...: b/... a/x\n")
	tests := parseRules(t, "a/...: a/...\nb/...:\n")
	// Own knows the real roots only.
	rename := func(s string) string { return strings.NewReplacer("a/", "broker/", "b/", "ci/").Replace(s) }
	for _, rs := range [][]rule{rules, tests} {
		for i := range rs {
			rs[i].pkg = rename(rs[i].pkg)
			for k := range rs[i].allow {
				rs[i].allow[k] = rename(rs[i].allow[k])
			}
		}
	}
	got := violations([]Package{
		{Path: "broker/x", Imports: []string{"fmt", "broker/y"}, TestImports: []string{"broker/y"}},
		{Path: "broker/y", Imports: []string{"broker/x"}},
		{Path: "broker/z"},
		{Path: "ci/deep/er", Imports: []string{"broker/x", "ci/other"}, TestImports: []string{"broker/y"}},
	}, rules, tests)
	want := []string{
		"broker/x imports broker/y",
		"broker/z: not in the picture; give it a line",
		"ci/deep/er imports broker/y in a test",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
