package check

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/policy/fit"
	"github.com/portask/portask/ci/policy/rows"
	"github.com/portask/portask/ci/policy/sim"
)

var root = filepath.Join("..", "..", "..")

func kept(t *testing.T) ([]rows.Row, string) {
	t.Helper()
	all, hash, err := rows.Open(filepath.Join(root, RowsFile))
	if err != nil {
		t.Fatal(err)
	}
	fit.Sort(all)
	return all, hash
}

// The artefact that the broker embeds is what the kept rows give, byte for byte.
func TestEmbeddedArtefactIsThatOfTheRows(t *testing.T) {
	all, hash := kept(t)
	train, held := Split(all)
	a := adaptive.Embedded()
	if a.Provenance.Rows != hash {
		t.Fatalf("it was fitted to rows %.16s, kept are %.16s: run perflab policy train -fit-only", a.Provenance.Rows, hash)
	}
	b, err := fit.Artefact(train, fit.Model, a.Provenance, a.Reference)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(root, "broker", "compression", "adaptive", "artefact.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Error("fitting gives another artefact: run perflab policy train -fit-only")
	}
	if got := Unseen(held, a); len(got) != len(held) {
		t.Errorf("the artefact was trained on %d of the %d rows to check on", len(held)-len(got), len(held))
	}
	if got := Unseen(train, a); len(got) != 0 {
		t.Errorf("provenance lacks the files of %d rows", len(got))
	}
}

// A small evaluation: the numbers are those of hand and are the same again, and
// nothing is better than hindsight.
func TestEvaluate(t *testing.T) {
	all, _ := kept(t)
	train, held := Split(all)
	var some []rows.Row
	for _, r := range held {
		if r.Size == adaptive.Sizes[1] {
			some = append(some, r)
		}
	}
	first, err := Evaluate(train, some, adaptive.Embedded(), true)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Evaluate(train, some, adaptive.Embedded(), true)
	if err != nil {
		t.Fatal(err)
	}
	var a, b strings.Builder
	first.Print(&a)
	second.Print(&b)
	if a.String() != b.String() {
		t.Errorf("two evaluations differ:\n%s\n%s", a.String(), b.String())
	}
	for _, scores := range [][]sim.Score{first.Stationary, first.Drift, first.Cold} {
		for _, s := range scores {
			if s.Regrets[0] < -1e-9 || s.Mean > s.WorstCell || s.P95 > s.Worst {
				t.Errorf("%s: least %v, mean %v, p95 %v, worst cell %v, worst %v", s.Policy, s.Regrets[0], s.Mean, s.P95, s.WorstCell, s.Worst)
			}
		}
	}
	if v := first.Values(); len(v) != len(Names()) || v[0].Value != first.Stationary[0].Mean {
		t.Errorf("values %+v", v)
	}
	dir := t.TempDir()
	if err := first.Plots(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"adaptive-regret.svg", "adaptive-drift.svg"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(b)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s is no XML: %v", name, err)
			}
		}
	}
}
