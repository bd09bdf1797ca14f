package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/fault"
)

func newConfig(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, explain and write broker configurations",
		Long: `Check, explain and write broker configurations. A setting comes from its default, the file, the variable PORTASK_*
(the key in capitals, dots as underscores, lists with commas) or the flag; the later wins.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheck(g), newConfigShow(g), newConfigDiff(g), newConfigSchema(), newConfigInit())
	return cmd
}

// configCheck is what `portask config check` says of a file.
type configCheck struct {
	File     string          `json:"file"`
	Valid    bool            `json:"valid"`
	Version  int             `json:"version,omitempty"`
	Problems []configProblem `json:"problems,omitempty"`
	Notes    []string        `json:"notes,omitempty"`
}

type configProblem struct {
	Origin  string `json:"origin"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Text    string `json:"text"`
	Nearest string `json:"nearest,omitempty"`
}

func newConfigCheck(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Say everything that is wrong with a configuration",
		Long: `Say everything that is wrong with each file, together with the PORTASK_* variables that are set, as a broker would
before it starts: with file, line, key and the nearest valid name. The exit code is 0 only if all are valid.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("missing argument: FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []configCheck
			var errs []error
			for _, file := range args {
				l := launch{file: file}
				_, snap, err := l.load()
				c := configCheck{File: file, Valid: err == nil}
				if err != nil {
					errs = append(errs, err)
					c.Problems = problemsOf(err, file)
				} else {
					c.Version, c.Notes = snap.Version, snap.Notes
				}
				all = append(all, c)
			}
			if g.output == "json" {
				if err := g.print(cmd.OutOrStdout(), all, nil, nil); err != nil {
					return err
				}
				return errors.Join(errs...)
			}
			for _, c := range all {
				if c.Valid {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: valid\n", c.File)
				}
				for _, n := range c.Notes {
					fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", n)
				}
			}
			return errors.Join(errs...)
		},
	}
}

func problemsOf(err error, file string) []configProblem {
	var all *config.Error
	if !errors.As(err, &all) {
		return []configProblem{{Origin: file, Text: err.Error()}}
	}
	var out []configProblem
	for _, p := range all.Problems {
		out = append(out, configProblem{Origin: p.Origin.String(), Line: p.Origin.Line, Key: p.Key, Text: p.Text, Nearest: p.Nearest})
	}
	return out
}

// configSetting is a line of `portask config show`.
type configSetting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	// Effective is what auto comes to on this machine.
	Effective string `json:"effective,omitempty"`
	Origin    string `json:"origin"`
	Live      bool   `json:"live"`
}

func newConfigShow(g *globals) *cobra.Command {
	var l launch
	var changed bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print every setting with where it came from",
		Long:  "Print every setting a broker would run with, given the same --config, variables and flags, and where each came from.\nBehind auto stands what it comes to on this machine, within the control group of the command.",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, snap, err := l.load()
			if err != nil {
				return err
			}
			effective := o.effective()
			all := []configSetting{}
			var rows [][]string
			for _, s := range snap.Settings {
				if changed && s.Origin.Layer == config.LayerDefault {
					continue
				}
				all = append(all, configSetting{s.Path, s.Text, effective[s.Path], s.Origin.String(), s.Live})
				text := s.Text
				if e := effective[s.Path]; e != "" {
					text += " (" + e + ")"
				}
				rows = append(rows, []string{s.Path, text, s.Origin.String()})
			}
			return g.print(cmd.OutOrStdout(), all, []string{"KEY", "VALUE", "ORIGIN"}, rows)
		},
	}
	l.register(cmd.Flags())
	cmd.Flags().BoolVar(&changed, "changed", false, "leave defaults out")
	return cmd
}

// configChange is a line of `portask config diff`.
type configChange struct {
	Key    string `json:"key"`
	Old    string `json:"old"`
	New    string `json:"new"`
	Effect string `json:"effect"` // live or restart
}

func newConfigDiff(g *globals) *cobra.Command {
	var code bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Print the settings that differ, and whether a reload changes them",
		Long: `Print the settings that differ between two files, with the PORTASK_* variables that are set applied to both, and
whether a running broker takes the new value at a reload (live) or at its next start (restart).`,
		Args: exactArgs("OLD", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, old, err1 := (&launch{file: args[0]}).load()
			_, now, err2 := (&launch{file: args[1]}).load()
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			all := []configChange{}
			var rows [][]string
			for _, c := range config.Diff(old, now) {
				effect := "restart"
				if c.Live {
					effect = "live"
				}
				all = append(all, configChange{c.Path, c.Old, c.New, effect})
				rows = append(rows, []string{c.Path, c.Old, c.New, effect})
			}
			if err := g.print(cmd.OutOrStdout(), all, []string{"KEY", "OLD", "NEW", "EFFECT"}, rows); err != nil {
				return err
			}
			if code && len(all) > 0 {
				return fmt.Errorf("%d settings differ", len(all))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&code, "exit-code", false, "end with code 1 if anything differs")
	return cmd
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of configurations",
		Long:  "Print the JSON Schema of configurations, for editors and generators. A file names it under \"$schema\".",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := newBrokerOptions().schema().JSONSchema("Portask broker configuration")
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
			}
			return err
		},
	}
}

func newConfigInit() *cobra.Command {
	var name, format, from string
	cmd := &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented configuration",
		Long: `Write a configuration, to FILE (in the format of its extension) or to standard output: every setting with its default
and its meaning, or a profile, or what another file says. --from rewrites that file for the version of this program and
into the other format; comments are replaced by the documentation, variables are not looked at.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := document.ParseFormat(format)
			if err != nil {
				return usagef("--format: %v", err)
			}
			if len(args) == 1 {
				if f, err = document.FormatOf(args[0]); err != nil {
					return usagef("%s: %v", args[0], err)
				}
			}
			var write func(io.Writer) error
			if from != "" {
				write, err = writerFrom(from, f)
			} else {
				write, err = writerOf(name, f)
			}
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return write(cmd.OutOrStdout())
			}
			return create(args[0], write)
		},
	}
	cmd.Flags().StringVar(&name, "profile", "default", "default, dev or prod")
	cmd.Flags().StringVar(&format, "format", "yaml", "yaml, json or toml, on standard output")
	cmd.Flags().StringVar(&from, "from", "", "write what this file says")
	cmd.MarkFlagsMutuallyExclusive("profile", "from")
	return cmd
}

// writerFrom writes the settings that a file sets.
func writerFrom(file string, f document.Format) (func(io.Writer) error, error) {
	o := newBrokerOptions()
	schema := o.schema()
	snap, err := schema.Load(config.Sources{File: file})
	if err != nil {
		return nil, err
	}
	entries := []config.Entry{}
	for _, s := range snap.Settings {
		if s.Origin.Layer == config.LayerFile {
			entries = append(entries, config.Entry{Path: s.Path})
		}
	}
	return func(w io.Writer) error {
		return schema.Write(w, f, []string{"Portask, from " + filepath.Base(file) + "."}, entries)
	}, nil
}

// create writes a file that must not be there yet.
func create(name string, write func(io.Writer) error) (err error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fault.New(fault.Exists, "write configuration").WithDetail("%s exists", name)
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := file.Close(); err == nil {
			err = cerr
		}
	}()
	return write(file)
}
