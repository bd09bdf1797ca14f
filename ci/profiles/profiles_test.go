package profiles

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/portask/portask/ci/arch"
)

// What is committed is what the manifest says, the build's profiles are the
// kept ones, and none names the machine that took it.
func TestCommittedProfiles(t *testing.T) {
	root, err := arch.Root()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadManifest(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(root); err != nil {
		t.Error(err)
	}
	of := map[string]int{}
	for _, f := range m.Files {
		if !strings.HasSuffix(f.Path, ".pb.gz") && !strings.HasSuffix(f.Path, ".pgo") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(f.Path)))
		if err != nil {
			continue // Check said so
		}
		p, err := profile.ParseData(b)
		if err != nil {
			t.Errorf("%s: %v", f.Path, err)
			continue
		}
		if err := p.CheckValid(); err != nil {
			t.Errorf("%s: %v", f.Path, err)
		}
		for _, fn := range p.Function {
			if path.IsAbs(fn.Filename) {
				t.Errorf("%s names the file %s", f.Path, fn.Filename)
				break
			}
		}
		for _, mp := range p.Mapping {
			if path.IsAbs(mp.File) {
				t.Errorf("%s names the binary %s", f.Path, mp.File)
			}
		}
		if path.Ext(f.Path) == ".pgo" {
			of[f.Of]++
			n, _ := samples(p)
			if n != f.Samples || n < 500 {
				t.Errorf("%s: %d samples; the manifest says %d, and 500 are the least that is worth a build", f.Path, n, f.Samples)
			}
			for _, s := range p.Sample {
				if len(s.Label)+len(s.NumLabel) > 0 {
					t.Errorf("%s has labels, which no compiler reads", f.Path)
					break
				}
			}
		}
	}
	for _, c := range Commands {
		if of[c.Name] != 1 {
			t.Errorf("%d profiles for the build of %s, want 1", of[c.Name], c.Name)
		}
	}
}

func TestCheckFindsEachViolation(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	m := &Manifest{Version: 1}
	for _, c := range Commands {
		write(c.Default(), "p")
		write(c.Kept(), "p")
		m.Files = append(m.Files, File{Path: c.Kept(), SHA256: digest([]byte("p")), Bytes: 1})
	}
	if err := m.Check(root); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text, want string }{
		{Commands[0].Default(), "q", "differ"},
		{Commands[1].Kept(), "q", "the manifest says"},
		{"profiles/baseline/x/cpu.pb.gz", "x", "not in the manifest"},
	} {
		before, _ := os.ReadFile(filepath.Join(root, c.name))
		write(c.name, c.text)
		if err := m.Check(root); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s changed: %v, want %q", c.name, err, c.want)
		}
		if before != nil {
			write(c.name, string(before))
		} else if err := os.Remove(filepath.Join(root, c.name)); err != nil {
			t.Fatal(err)
		}
	}
	m.Files = append(m.Files, File{Path: "profiles/top/gone.txt"})
	if err := m.Check(root); err == nil || !strings.Contains(err.Error(), "gone.txt") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestCleanedProfilesForTheCompiler(t *testing.T) {
	build := func(label string) *profile.Profile {
		m := &profile.Mapping{ID: 1, File: "/srv/build/bin/portask", BuildID: "abc", HasFunctions: true}
		f := &profile.Function{ID: 1, Name: "main.run", Filename: "/srv/build/main.go", StartLine: 3}
		l := &profile.Location{ID: 1, Mapping: m, Address: 16, Line: []profile.Line{{Function: f, Line: 5}}}
		return &profile.Profile{
			SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
			PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10e6, DurationNanos: 1e9, TimeNanos: 99,
			Sample:  []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{2, 20e6}, Label: map[string][]string{"stage": {label}}}},
			Mapping: []*profile.Mapping{m}, Function: []*profile.Function{f}, Location: []*profile.Location{l}, Comments: []string{"host x"},
		}
	}
	a, b := build("a"), build("b")
	clean(a)
	clean(b)
	merged, err := forPGO([]*profile.Profile{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if n, seconds := samples(merged); n != 4 || seconds != 0.04 || len(merged.Sample) != 1 {
		t.Errorf("%d samples, %v s in %d stacks; want 4, 0.04, 1", n, seconds, len(merged.Sample))
	}
	if a.Sample[0].Label == nil {
		t.Error("merging took the labels of the kept profile")
	}
	first, err := encode(merged)
	if err != nil {
		t.Fatal(err)
	}
	again, err := forPGO([]*profile.Profile{a, b})
	if err != nil {
		t.Fatal(err)
	}
	second, err := encode(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same profiles give different bytes")
	}
	if s := merged.String(); strings.Contains(s, "/srv") || strings.Contains(s, "host x") || strings.Contains(s, "abc") {
		t.Errorf("it tells where it was taken:\n%s", s)
	}
}

func TestRatioOfPairedTurns(t *testing.T) {
	r := GainRow{Base: []float64{1, 2, 4}, Head: []float64{0.9, 1.8, 3.6}} // a machine that slows down twofold a turn
	mean, low, high := r.Ratio()
	if mean < 0.8999 || mean > 0.9001 || high-low > 1e-6 {
		t.Errorf("%v (%v to %v), want 0.9 without spread", mean, low, high)
	}
	// ln ratios -0.1, 0, 0.1: mean 0, standard error 0.1/sqrt(3), t of 2 degrees 4.303.
	r = GainRow{Base: []float64{1, 1, 1}, Head: []float64{0.904837, 1, 1.105171}}
	if mean, low, high = r.Ratio(); mean < 0.9999 || mean > 1.0001 || low < 0.779 || low > 0.7813 || high < 1.28 || high > 1.2831 {
		t.Errorf("%v (%v to %v), want 1 (0.780 to 1.282)", mean, low, high)
	}
}
