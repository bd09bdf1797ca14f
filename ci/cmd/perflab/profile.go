package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/profiles"
)

// runProfile refreshes profiles/ and both default.pgo.
func runProfile(ctx context.Context, args []string) error {
	fs := flags("profile")
	root := fs.String("root", ".", "directory of the repository")
	check := fs.Bool("check", false, "take nothing; compare the files with the manifest")
	dir := fs.String("dir", "", "directory for the servers' data (default: the system's temporary directory)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *check {
		m, err := profiles.ReadManifest(*root)
		if err == nil {
			err = m.Check(*root)
		}
		if err == nil {
			fmt.Printf("%d profiles of %s are as their manifest says\n", len(m.Files), m.Commit)
		}
		return err
	}
	l, err := lab.New(*dir)
	if err != nil {
		return err
	}
	t := &profiles.Taker{Root: *root, Lab: l, Commit: version, Progress: func(s string) { fmt.Println(s) }}
	m, err := t.Take(ctx, profiles.Scenarios)
	if err != nil {
		return err
	}
	for _, r := range m.Runs {
		fmt.Printf("%-11s %9.0f msg/s, target %.2f CPU s per million messages\n", r.Scenario, r.MsgPerSec, r.TargetCPU)
	}
	for _, f := range m.Files {
		if f.Samples > 0 {
			fmt.Printf("%-40s %7d B %6d samples %6.1f CPU s\n", f.Path, f.Bytes, f.Samples, f.CPUSeconds)
		}
	}
	return nil
}

// runPGO measures what a profile gains, or what a fresh one gains over the
// committed one.
func runPGO(ctx context.Context, args []string) error {
	fs := flags("pgo")
	var o profiles.GainOptions
	fs.StringVar(&o.Root, "root", ".", "directory of the repository")
	fs.StringVar(&o.Base, "base", "off", "off, committed, or a directory with portask.pgo and loadgen.pgo")
	fs.StringVar(&o.Head, "head", "committed", "the same, for the other side")
	fs.IntVar(&o.Turns, "turns", 8, "turns of base and head, in random order")
	fs.Uint64Var(&o.Seed, "seed", 1, "of the order")
	dir := fs.String("dir", "", "directory for the servers' data (default: the system's temporary directory)")
	only := fs.String("only", strings.Join(profiles.Subjects, ","), "what is measured")
	keep := fs.String("keep", "", "file for the table")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for _, s := range strings.Split(*only, ",") {
		if !slices.Contains(profiles.Subjects, s) {
			return fmt.Errorf("--only %q: want some of %s", s, strings.Join(profiles.Subjects, ","))
		}
		o.Subjects = append(o.Subjects, s)
	}
	l, err := lab.New(*dir)
	if err != nil {
		return err
	}
	o.Lab, o.Version, o.Progress = l, version, func(s string) { fmt.Println(s) }
	gain, err := profiles.MeasureGain(ctx, o)
	if err != nil {
		return err
	}
	text := gain.Text()
	fmt.Print(text)
	if *keep != "" {
		return os.WriteFile(*keep, []byte(text), 0o666)
	}
	return nil
}
