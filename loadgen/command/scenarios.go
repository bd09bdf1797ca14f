package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/scenario"
)

func validateCommand() *cobra.Command {
	var settings []string
	var resolved bool
	c := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check scenario files: every problem at once, with its line",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := parseSettings(settings)
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				s, err := scenario.Open(name, set...)
				switch {
				case err != nil:
					errs = append(errs, err)
				case resolved:
					fmt.Fprintf(cmd.OutOrStdout(), "# %s %s\n%s", s.Name, s.Hash(), s.YAML())
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %d phases, %v, hash %s\n", name, s.Name, len(s.Phases), s.Duration(), s.Hash())
				}
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().StringArrayVar(&settings, "set", nil, "setting of the scenario, path=value")
	c.Flags().BoolVar(&resolved, "resolved", false, "write every setting with its value")
	return c
}

func scenariosCommand() *cobra.Command {
	var reference bool
	c := &cobra.Command{
		Use:   "scenarios",
		Short: "List the scenarios that loadgen brings along",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if reference {
				_, err := out.Write(scenario.Reference())
				return err
			}
			for _, name := range scenario.Shipped() {
				s, err := scenario.Open(name)
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "%-14s %5.0f s  %s\n", s.Name, s.Duration().Seconds(), s.About)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&reference, "reference", false, "write the reference page of scenarios")
	return c
}

func parseSettings(all []string) ([]scenario.Setting, error) {
	var out []scenario.Setting
	for _, s := range all {
		x, err := scenario.ParseSetting(s)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}
