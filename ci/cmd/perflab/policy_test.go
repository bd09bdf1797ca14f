package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression/adaptive"
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
