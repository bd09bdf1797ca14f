package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/ci/verdict"
)

// The table of a Markdown file can be made from what a gate measured.
func TestReadmeFromVerdict(t *testing.T) {
	dir := t.TempDir()
	readme, report := filepath.Join(dir, "README.md"), filepath.Join(dir, "verdict.json")
	slo := filepath.Join("..", "..", "..", "configs", "slo.yaml")
	text := "before\n" + tableBegin + "| objective | measured | at | enforced | target |\n| --- | --- | --- | --- | --- |\n" + tableEnd + "after\n"
	if err := os.WriteFile(readme, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	v := &verdict.Verdict{Decision: verdict.Pass, Head: verdict.Revision{Commit: "0123456789abcdef"},
		Objectives: []verdict.Objective{{Name: "message-creation", Value: 47, Low: 46, High: 48, Turns: 12, Decision: verdict.Pass}}}
	f, err := os.Create(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := runObjectives(t.Context(), []string{"--slo", slo, "--readme", readme, "--from", report}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n", "`message-creation`", "0123456", "after\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is missing in\n%s", want, b)
		}
	}
	if err := runObjectives(t.Context(), []string{"--slo", slo, "--from", report}); err == nil {
		t.Error("--from without --readme")
	}
}
