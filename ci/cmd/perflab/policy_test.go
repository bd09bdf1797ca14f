package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/policy/check"
	"github.com/portask/portask/ci/policy/rows"
)

func TestPolicyReplay(t *testing.T) {
	var b bytes.Buffer
	r := adaptive.NewRecorder(&b, adaptive.Embedded(), 1<<20)
	d := adaptive.New(adaptive.Embedded(), adaptive.Options{Topic: "orders", Producer: "p"})
	d.Record(r)
	for range 100 {
		x := d.DecideFrom(16<<10, adaptive.Features{})
		d.Observe(x.Token, 16<<10, 4<<10, 40_000, 0)
	}
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "decisions.log")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := runPolicy(context.Background(), []string{"replay", name}); err != nil {
		t.Fatal(err)
	}
	// A log of another artefact is refused.
	log := b.Bytes()
	log[len("PADL")+1] ^= 1
	if err := os.WriteFile(name, log, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := runPolicy(context.Background(), []string{"replay", name}); err == nil || !strings.Contains(err.Error(), "recorded with") {
		t.Errorf("%v", err)
	}
	for _, args := range [][]string{nil, {"replay"}, {"guess"}, {"replay", filepath.Join(t.TempDir(), "none")}, {"check", "--artefact", name}, {"train", "--loads", "200"}} {
		if err := runPolicy(context.Background(), args); err == nil {
			t.Errorf("perflab policy %q: no error", args)
		}
	}
}

// What an artefact's file is refused for is told with the file's name, by
// whichever subcommand reads it.
func TestPolicyArtefactIsNamed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "artefact.json")
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "--artefact", name}, {"replay", "--artefact", name, "log"}} {
		if err := runPolicy(t.Context(), args); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("perflab policy %q: error %v does not name the file", args, err)
		}
	}
}

// Rows that are too few to train on leave the artefact that was there; one file to
// check on is scored, but for drift, which takes two.
func TestPolicyOfFewRows(t *testing.T) {
	all, _, err := rows.Open(filepath.Join("..", "..", "..", check.RowsFile))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, some []rows.Row) string {
		var b bytes.Buffer
		if err := rows.Write(&b, some); err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	artefact := filepath.Join(dir, "artefact.json")
	if err := os.WriteFile(artefact, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	origin := filepath.Join("..", "..", "..", "benchdata", "policy", "rows.json")
	if _, err := os.Stat(origin); err != nil {
		t.Fatal(err)
	}
	err = runPolicy(t.Context(), []string{"train", "--fit-only", "--rows", write("one.csv.gz", all[:1]), "--origin", origin, "--artefact", artefact})
	if b, _ := os.ReadFile(artefact); err == nil || string(b) != "before" {
		t.Errorf("error %v, and the artefact is %.20q", err, b)
	}
	train, held := check.Split(all)
	file := held[0].File
	one := slices.DeleteFunc(slices.Clone(held), func(r rows.Row) bool { return r.File != file })
	r, err := check.Evaluate(train, one, adaptive.Embedded(), false)
	if err != nil || r.Streams == 0 || r.DriftStreams != 0 {
		t.Fatalf("one file: %d streams, %d of drift, error %v", r.Streams, r.DriftStreams, err)
	}
	var page bytes.Buffer
	r.Print(&page)
	if !strings.Contains(page.String(), "two files") {
		t.Errorf("it does not say that drift takes two files:\n%s", page.String())
	}
}
