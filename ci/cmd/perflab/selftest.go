package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/selftest"
)

// runSelftest runs gates on heads of known behaviour, or goes on doing so, and
// writes the table.
func runSelftest(ctx context.Context, args []string) error {
	fs := flags("selftest")
	repo := fs.String("repo", ".", "directory of the repository")
	rev := fs.String("rev", "HEAD", "revision that is base and, changed, head")
	dir := fs.String("dir", "benchdata/selftest", "directory of the campaign, below the repository; what is there counts")
	suites := fs.String("suites", "configs/bench.yaml", "file of suites, below the repository")
	suite := fs.String("suite", "selftest", "suite of that file: one benchmark an entry")
	aa := fs.Int("aa", 20, "A/A gates in all")
	inject := fs.String("inject", "5%", "slowdown of the injections")
	n := fs.Int("injections", 60, "gates with that slowdown in all")
	counters := fs.Int("counters", 20, "gates with each of: an allocation, a system call, a sleep")
	simulate := fs.Int("simulate", 500, "gates simulated from the recorded rounds")
	seed := fs.Uint64("seed", 20, "of the campaign")
	budget := fs.Duration("budget", 2*time.Minute, "for the rounds of one gate")
	limit := fs.Duration("for", 0, "begin no gate after this time; 0 is no limit")
	out := fs.String("report", "reports/selftest.md", "the table, below the repository")
	cache := fs.String("cache", "", "directory for linked programs (default: perflab in the user's cache)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	number, ok := strings.CutSuffix(*inject, "%")
	percent, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(percent >= 1) || percent > 100 {
		return fmt.Errorf("selftest: --inject is %q, want 1%% to 100%%", *inject)
	}
	for _, f := range []int{*aa, *n, *counters, *simulate} {
		if f < 0 || f > 100_000 {
			return errors.New("selftest: numbers of gates must be 0 to 100000")
		}
	}
	top, err := exec.CommandContext(ctx, "git", "-C", *repo, "rev-parse", "--show-toplevel", "--verify", "--end-of-options", *rev+"^{commit}").Output()
	lines := strings.Fields(strings.ReplaceAll(string(top), "--end-of-options", ""))
	if err != nil || len(lines) != 2 {
		return fmt.Errorf("selftest: %s has no revision %q: %w", *repo, *rev, err)
	}
	root := lines[0]
	file, err := bench.Load(filepath.Join(root, filepath.FromSlash(*suites)))
	if err != nil {
		return err
	}
	o := selftest.Options{
		Repo: root, Commit: lines[1], Dir: filepath.Join(root, filepath.FromSlash(*dir)), Percent: percent, Seed: *seed, Budget: *budget,
		Plan:     bench.Plan{Slice: file.Slice, Pairs: file.Pairs, RoundMax: file.RoundMax, Layouts: file.Layouts, Cache: *cache},
		Want:     map[selftest.Kind]int{selftest.AA: *aa, selftest.CPU: *n, selftest.Alloc: *counters, selftest.Syscall: *counters, selftest.Tail: *counters},
		Progress: func(l string) { fmt.Println(l) },
	}
	if o.Plan.Suite, err = file.Suite(*suite); err != nil {
		return err
	}
	if *limit > 0 {
		o.Until = time.Now().Add(*limit)
	}
	ran := selftest.Run(ctx, o)
	// What there is goes into the table even if the campaign was interrupted.
	gates, err := selftest.ReadGates(o.Dir)
	if err != nil {
		return errors.Join(ran, err)
	}
	var simulated *selftest.Simulated
	if *simulate > 0 && ran == nil {
		if simulated, err = selftest.Simulate(ctx, o.Dir, *simulate, *seed); err != nil {
			return err
		}
		fmt.Println(simulated)
	}
	var b bytes.Buffer
	if err := selftest.Table(&b, gates, simulated); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(*out)), b.Bytes(), 0o666); err != nil {
		return err
	}
	if ran != nil {
		return ran
	}
	missing := selftest.Missing(gates)
	for _, m := range missing {
		fmt.Println("NOT MET", m)
	}
	if simulated != nil && simulated.Failed+simulated.Invalid > 0 {
		fmt.Println(simulated)
	}
	if len(missing) > 0 {
		return &status{2, "selftest: not all requirements hold"}
	}
	return nil
}
