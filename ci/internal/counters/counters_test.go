package counters

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/ci/internal/slo"
)

func TestParse(t *testing.T) {
	results, err := Parse(strings.NewReader(`goos: linux
pkg: example
BenchmarkBudgetProduce-2          2000   61000 ns/op   0.50 allocs/batch
BenchmarkBudgetProduce-2          2000   60000 ns/op   1.25 allocs/batch
BenchmarkBudgetDeliver/from=disk-2   2000   5000 ns/op   3 allocs/batch   4 allocs/op
PASS
ok  	example	0.5s
`))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		bench, unit string
		want        float64
		ok          bool
	}{
		{"BudgetProduce", "allocs/batch", 1.25, true},
		{"BudgetProduce", "ns/op", 61000, true},
		{"BudgetDeliver/from=disk", "allocs/batch", 3, true},
		{"BudgetDeliver", "allocs/batch", 0, false},
		{"BudgetProduce", "syscalls/batch", 0, false},
	}
	for _, tt := range tests {
		if got, ok := results.Max(tt.bench, tt.unit); got != tt.want || ok != tt.ok {
			t.Errorf("%s %s: %v %v, want %v %v", tt.bench, tt.unit, got, ok, tt.want, tt.ok)
		}
	}
}

func TestBudgetsHaveObjectives(t *testing.T) {
	f, err := slo.Load(filepath.Join("..", "..", "..", "configs", "slo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range Budgets {
		if o, ok := f.Find(b.Objective); !ok || o.Max == nil {
			t.Errorf("%s: no upper bound in configs/slo.yaml", b.Objective)
		}
	}
}
