package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/policy/measure"
	"github.com/portask/portask/ci/policy/prove"
)

func runPolicyProve(ctx context.Context, args []string) error {
	fs := flags("policy prove")
	rounds := fs.Int("rounds", 7, "rounds of all choices")
	length := fs.Duration("length", 6*time.Second, "how long each run is measured")
	quick := fs.Bool("quick", false, "one round of runs of 2 s, to see that it works: some three minutes")
	only := fs.String("only", "", "scenarios, with commas between them: slow-link, busy-cpu, changing, random; all if not given")
	choices := fs.String("choices", "", "what is compared, with commas between them: adaptive and static choices; all if not given")
	dir := fs.String("dir", "", "directory for the broker's data; the system's for temporary files if not given")
	out := fs.String("out", "reports/adaptive", "name of the reports, without .md and .json")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *quick {
		*rounds, *length = 1, 2*time.Second
	}
	if *rounds < 1 || *rounds > 100 || *length < time.Second || *length > 10*time.Minute {
		return errors.New("--rounds: want 1 to 100; --length: want 1s to 10m")
	}
	l, err := lab.New(*dir)
	if err != nil {
		return err
	}
	p := &prove.Proof{Quick: *quick, Rounds: *rounds, Machine: sysmetrics.ThisMachine(), Commit: commitOf(ctx)}
	for _, s := range prove.Scenarios(*length) {
		if *only == "" || strings.Contains(","+*only+",", ","+s.Name+",") {
			p.Scenarios = append(p.Scenarios, s)
		}
	}
	if len(p.Scenarios) == 0 {
		return fmt.Errorf("--only %q names no scenario", *only)
	}
	if p.Choices, err = prove.ParseChoices(*choices); err != nil {
		return fmt.Errorf("--choices: %w", err)
	}
	if err := p.Measure(ctx, l, burners, os.Stderr); err != nil {
		return err
	}
	b, err := json.MarshalIndent(struct {
		*prove.Proof
		Compared []prove.Comparison `json:"compared"`
	}{p, p.Compare()}, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*out+".json", append(b, '\n'), 0o644); err != nil {
		return err
	}
	f, err := os.Create(*out + ".md")
	if err != nil {
		return err
	}
	if err := errors.Join(p.Markdown(f), f.Close()); err != nil {
		return err
	}
	fmt.Println(*out+".md", *out+".json")
	return nil
}

// commitOf is the working tree's commit, "unknown" outside of one.
func commitOf(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// burners starts a process of this program that keeps the processors busy.
func burners(ctx context.Context, percent int) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "policy", "burn", "--share", strconv.Itoa(percent))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s policy burn: %w", filepath.Base(self), err)
	}
	return func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	}, nil
}

// runPolicyBurn keeps the processors busy until standard input ends, so that it does
// not outlive who started it.
func runPolicyBurn(ctx context.Context, args []string) error {
	fs := flags("policy burn")
	share := fs.Int("share", 80, "percent of the time, of all processors")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *share < 0 || *share > 100 {
		return fmt.Errorf("--share %d: want 0 to 100", *share)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		b := make([]byte, 64)
		for {
			if _, err := os.Stdin.Read(b); err != nil {
				return
			}
		}
	}()
	measure.Burn(ctx, *share)
	return nil
}
