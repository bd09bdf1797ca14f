package baseline

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/ci/verdict"
)

var hash = strings.Repeat("0123456789", 4)

func passed() *verdict.Verdict {
	return &verdict.Verdict{
		Decision: verdict.Pass, Started: time.Unix(1e9, 5), Head: verdict.Revision{Commit: hash},
		Counters: []verdict.Counter{
			{Name: "allocs/op broker/wire.Encode", Unit: "allocs/op", Base: 5, Head: 4, Limit: 0.005, Decision: verdict.Pass},
			{Name: "syscalls/msg", Unit: "syscalls/msg", Head: 0.25, Limit: 0.01, Decision: verdict.Pass},
			{Name: "Ir", Decision: verdict.Skipped},
		},
		Objectives: []verdict.Objective{
			{Name: "throughput", Unit: "ratio", Value: 0.9, Bound: 0.8},
			{Name: "p99", Unit: "ratio", Value: 3, Bound: 5, Upper: true},
		},
	}
}

func TestAcceptedFiguresComeBack(t *testing.T) {
	f, err := Of(passed())
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "below", "baseline.json")
	if err := f.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Figures) != 4 || got.Revision != hash || !got.Accepted.Equal(time.Unix(1e9, 0)) {
		t.Fatalf("%+v", got)
	}
	for i := range got.Figures {
		if got.Figures[i] != f.Figures[i] {
			t.Errorf("%+v, want %+v", got.Figures[i], f.Figures[i])
		}
	}
	if none, err := ReadFile(name + "x"); none != nil || err != nil {
		t.Errorf("%v %v of no file", none, err)
	}
}

func TestWhatCannotBeAccepted(t *testing.T) {
	for _, change := range []func(*verdict.Verdict){
		func(v *verdict.Verdict) { v.Decision = verdict.Fail },
		func(v *verdict.Verdict) { v.Decision = verdict.Invalid },
		func(v *verdict.Verdict) { v.Head.Dirty = true },
		func(v *verdict.Verdict) { v.Head.Commit = "HEAD" },
	} {
		v := passed()
		change(v)
		if f, err := Of(v); err == nil {
			t.Errorf("accepted %+v", f)
		}
	}
}

func TestRatchet(t *testing.T) {
	f, err := Of(passed())
	if err != nil {
		t.Fatal(err)
	}
	none := func(string, float64) *verdict.Waiver { return nil }
	for _, c := range f.Check(passed(), none) {
		if c.Decision != verdict.Pass {
			t.Errorf("equal: %+v", c)
		}
	}
	worse := passed()
	worse.Counters[0].Head = 6                // two more allocations, half as many again
	worse.Counters[1].Head = 0.4              // less than counts of two runs tell
	worse.Objectives[0].Bound = 0.7           // loosened
	worse.Objectives[1].Bound = 4             // tightened
	worse.Counters[2].Decision = verdict.Pass // counted for the first time
	worse.Objectives = append(worse.Objectives, verdict.Objective{Name: "new", Bound: 1})
	worse.Counters = append(worse.Counters, verdict.Counter{Name: "B/op broker/wire.Encode", Unit: "B/op", Head: 1e9, Decision: verdict.Pass}) // not of the ratchet
	asked := map[string]float64{}
	got := f.Check(worse, func(name string, effect float64) *verdict.Waiver {
		asked[name] = effect
		if name == "throughput" {
			return &verdict.Waiver{Name: name}
		}
		return nil
	})
	var failed, waived []string
	for _, c := range got {
		if c.Decision == verdict.Fail {
			failed = append(failed, c.Name)
			if c.Waived != nil {
				waived = append(waived, c.Name)
			}
		}
	}
	if strings.Join(failed, ",") != "accepted allocs/op broker/wire.Encode,accepted bound of throughput" || strings.Join(waived, ",") != "accepted bound of throughput" {
		t.Errorf("failed %q, waived %q", failed, waived)
	}
	if asked["broker/wire.Encode"] != 0.5 || len(asked) != 2 {
		t.Errorf("waivers asked for: %v", asked)
	}
	// A check does not become a figure of the next one.
	worse.Counters = append(worse.Counters, got...)
	if n := len(figures(worse)); n != 6 {
		t.Errorf("%d figures, want 6", n)
	}
}

func TestReadRefuses(t *testing.T) {
	for _, s := range []string{
		"", "{}", `{"version":2,"revision":"` + hash + `"}`, `{"version":1,"revision":"HEAD"}`, `{"version":1,"revision":"--option"}`,
		`{"version":1,"revision":"` + hash + `","figures":[{"name":"b"},{"name":"a"}]}`,
		`{"version":1,"revision":"` + hash + `","figures":[{"name":"a"},{"name":"a"}]}`,
		`{"version":1,"revision":"` + hash + `","figures":[{"name":""}]}`,
		`{"version":1,"revision":"` + hash + `","figures":[{"name":"a","limit":2}]}`,
		strings.Repeat(" ", bytesMax+1),
	} {
		if f, err := Read(strings.NewReader(s)); err == nil {
			t.Errorf("%.60s: %+v", s, f)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"revision":"` + hash + `","figures":[{"name":"a","value":1e308,"limit":0.5},{"name":"b"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, c := range g.Worsened(g, func(string, float64) *verdict.Waiver { return nil }) {
			if c.Decision != verdict.Pass {
				t.Errorf("worse than itself: %+v", c)
			}
		}
	})
}

// repository makes commits 1 to 3 on a line and one beside them.
func repository(t *testing.T) (dir string, run func(args ...string) string) {
	t.Helper()
	dir = t.TempDir()
	run = func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "-q", "-b", "main")
	for _, m := range []string{"one", "two\n\nperf-accept: a 5% because of this", "three"} {
		run("commit", "-q", "--allow-empty", "-m", m)
	}
	run("checkout", "-q", "-b", "side", "HEAD~2")
	run("commit", "-q", "--allow-empty", "-m", "beside")
	run("checkout", "-q", "main")
	return dir, run
}

func TestChoose(t *testing.T) {
	dir, run := repository(t)
	first, second, side := run("rev-parse", "HEAD~2"), run("rev-parse", "HEAD~1"), run("rev-parse", "side")
	for _, c := range []struct {
		name, head   string
		accepted     *File
		base, origin string
		err          error
	}{
		{"nothing accepted", "HEAD", nil, second, "first parent", nil},
		{"an ancestor", "HEAD", &File{Revision: first}, first, "baseline", nil},
		{"the head itself", "HEAD", &File{Revision: run("rev-parse", "HEAD")}, second, "first parent", nil},
		{"beside the line", "HEAD", &File{Revision: side}, second, "first parent", nil},
		{"of another repository", "HEAD", &File{Revision: hash}, second, "first parent", nil},
		{"the first commit", first, nil, "", "", ErrNoBase},
	} {
		base, origin, err := Choose(t.Context(), dir, c.head, c.accepted)
		if base != c.base || origin != c.origin || !errors.Is(err, c.err) {
			t.Errorf("%s: %s %s %v", c.name, base, origin, err)
		}
	}
	if _, _, err := Choose(t.Context(), dir, "--all", nil); err == nil || errors.Is(err, ErrNoBase) {
		t.Errorf("an option as head: %v", err)
	}
	messages, err := Messages(t.Context(), dir, first, "HEAD")
	if err != nil || len(messages) != 2 || messages[1].Commit != second || !strings.Contains(messages[1].Text, "perf-accept: a 5%") || !strings.HasPrefix(messages[0].Text, "three") {
		t.Errorf("%+v, %v", messages, err)
	}
}

func TestAt(t *testing.T) {
	dir, run := repository(t)
	if f, err := At(t.Context(), dir, "HEAD"); f != nil || err != nil {
		t.Errorf("%v %v where there is none", f, err)
	}
	f := &File{Revision: hash, Figures: []Figure{{Name: "a", Value: 1}}}
	if err := f.WriteFile(filepath.Join(dir, filepath.FromSlash(Path))); err != nil {
		t.Fatal(err)
	}
	run("add", ".")
	run("commit", "-q", "-m", "accept")
	got, err := At(t.Context(), dir, "HEAD")
	if err != nil || got == nil || got.Figures[0].Value != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
