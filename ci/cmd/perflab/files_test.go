package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/ci/archive"
	"github.com/portask/portask/ci/baseline"
	"github.com/portask/portask/ci/history"
	"github.com/portask/portask/ci/ledger"
	"github.com/portask/portask/ci/profiles"
	"github.com/portask/portask/ci/report"
)

// Whatever file of the laboratory is damaged, the error names it, and the line
// or the field.
func TestDamagedFilesAreNamed(t *testing.T) {
	type run func(context.Context, []string) error
	readLedger := func(_ context.Context, args []string) error {
		_, err := ledger.ReadFile(args[0])
		return err
	}
	for _, c := range []struct {
		name, text string
		run        run
		args       []string // DIR and FILE stand for the directory and the file
		parts      []string // of the error
	}{
		{baseline.Path, "{\n\"version\": 1,\n\"revision\": 3\n}", runBaseline, []string{"--root", "DIR"}, []string{"line 3", "revision"}},
		{baseline.Path, "{\"version\": 1, \"revision\": \"short\"}", runBaseline, []string{"--root", "DIR"}, []string{"revision", "short"}},
		{baseline.Path, "{\n\"version\": 1,,\n", runBaseline, []string{"--root", "DIR"}, []string{"line 2"}},
		{"v/verdict.json", "{\n\n]", runBaseline, []string{"--root", "DIR", "--accept", "FILE"}, []string{"line 3"}},
		{"v/verdict.json", "{\"version\": 9}", runHistory, []string{"--add", "FILE"}, []string{"version 9"}},
		{"v/" + report.VerdictJSON, "{\n\"seed\": \"x\"}", runReport, []string{"--root", "DIR", "DIR/v"}, []string{"line 2", "seed"}},
		{history.Path, "\n{\"version\": 7}\n", runHistory, []string{"--file", "FILE"}, []string{"line 2", "version 7"}},
		{ledger.Path, "\n\n{\"version\": 1}\n", readLedger, []string{"FILE"}, []string{"line 3", "no commit"}},
		{archive.Dir + "/" + archive.ManifestName, "x 1\n", runArchive, []string{"--root", "DIR"}, []string{"line 1", "SHA256"}},
		{archive.Dir + "/" + archive.ManifestName, strings.Repeat("x", 5000), runArchive, []string{"--root", "DIR"}, []string{"line 1", "too long"}},
		{profiles.ManifestPath, "{\n\"version\": 1,\n\"files\": 1}", runProfile, []string{"--check", "--root", "DIR"}, []string{"line 3", "files"}},
		{"slo.yaml", "version: 2\nobjectives:\n  - nonsense: 1\n", runObjectives, []string{"--slo", "FILE"}, []string{"line 3", "nonsense"}},
		{"slo.yaml", "version: 2\nobjectives:\n  - name: a-b\n", runObjectives, []string{"--slo", "FILE"}, []string{"a-b", "lane"}},
		{"bench.yaml", "version: 1\nsuites:\n  ci: 3\n", runRun, []string{"--base", "HEAD", "--suite", "ci", "--suites", "FILE"}, []string{"line 3"}},
		{"bench.yaml", "version: 1\nsuites:\n  ci:\n  - package: ./x\n    metric: heat\n", runRun, []string{"--base", "HEAD", "--suite", "ci", "--suites", "FILE"}, []string{"suite ci, entry 1", "heat"}},
		{"bench.yaml", "", runRun, []string{"--base", "HEAD", "--suite", "ci", "--suites", "FILE"}, []string{"nothing"}},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, filepath.FromSlash(c.name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(c.text), 0o666); err != nil {
			t.Fatal(err)
		}
		var args []string
		for _, a := range c.args {
			args = append(args, strings.NewReplacer("DIR", dir, "FILE", file).Replace(a))
		}
		err := c.run(t.Context(), args)
		if err == nil {
			t.Errorf("%s with %.60q was accepted", c.name, c.text)
			continue
		}
		for _, part := range append(c.parts, file) {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s with %.60q: error %q does not name %q", c.name, c.text, err, part)
			}
		}
	}
}
