package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/scenario"
)

func testScenario(t *testing.T, settings ...string) *scenario.Scenario {
	t.Helper()
	var set []scenario.Setting
	for _, x := range settings {
		path, value, _ := strings.Cut(x, "=")
		set = append(set, scenario.Setting{Path: path, Value: value})
	}
	s, err := scenario.With(set...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Shares add up to the scenario, and can be written and read.
func TestSplit(t *testing.T) {
	s := testScenario(t, "topics.0.partitions=6", "producers.count=7", "consumers.count=4", "phases.main.rate=900", "seed=3")
	s.Objectives = append(s.Objectives, scenario.Objective{Metric: "delivered_rate", AtLeast: 800})
	shares, err := Split(s, 3)
	if err != nil {
		t.Fatal(err)
	}
	producers, consumers, rate := 0, 0, 0.0
	seeds := map[uint64]bool{}
	for _, x := range shares {
		producers += x.Producers.Count
		consumers += x.Consumers.Count
		rate += x.Phases[1].Rate
		seeds[x.Seed] = true
		back, err := scenario.Parse("x", x.YAML())
		if err != nil || back.Hash() != x.Hash() {
			t.Errorf("%v:\n%s", err, x.YAML())
		}
		if len(x.Objectives) != 0 {
			t.Error("a share has an objective of the whole")
		}
	}
	if producers != 7 || consumers != 4 || rate != 900 || len(seeds) != 3 || !seeds[3] || s.Phases[1].Rate != 900 {
		t.Errorf("%d producers, %d consumers, rate %v, seeds %v", producers, consumers, rate, seeds)
	}
	for want, settings := range map[string][]string{
		"producers.count: 2 for 3":     {"topics.0.partitions=3", "consumers.count=3"},
		"topics.0.partitions: 4 for 3": {"producers.count=3", "consumers.count=3"},
		"consumers.count: 2 for 3":     {"topics.0.partitions=3", "producers.count=3"},
		"agents have no files":         {"topics.0.partitions=3", "producers.count=3", "consumers.count=3", "payload.source=/etc/passwd"},
	} {
		if _, err := Split(testScenario(t, settings...), 3); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(TokenVariable, "")
	if _, err := Token(""); err == nil {
		t.Error("no token was accepted")
	}
	for n, ok := range map[int]bool{0: false, 15: false, 16: true, 4096: true, 4097: false, 10_000: false} {
		name := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(name, []byte(strings.Repeat("x", n)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := Token(name); (err == nil) != ok || ok && len(b) != n {
			t.Errorf("%d bytes: %d, %v", n, len(b), err)
		}
	}
	t.Setenv(TokenVariable, " 0123456789abcdef ")
	if b, err := Token(""); err != nil || string(b) != "0123456789abcdef" {
		t.Errorf("%q, %v", b, err)
	}
}
