package command

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/selftest"
)

// brokerDefault is where `make build` puts the broker.
const brokerDefault = "bin/portask"

func selftestCommand() *cobra.Command {
	o := selftest.Defaults()
	var output string
	var quiet bool
	c := &cobra.Command{
		Use:   "selftest",
		Short: "Measure this instrument against targets of known behaviour",
		Long: `Measure this instrument against targets of known behaviour.

Targets in this process drop, duplicate, reorder, flip or refuse one message in 10,000, take 5 ms for 1 % of the requests,
or stall for a second; the same two delays come from a proxy before a real broker (--portask). What a run finds is held
against what the target says it did: counts must be the same, p99 and p99.9 within the tolerance that is stated. Then:
verified messages a second for a core, allocations a message, dispatch lag at 20,000 sends a second.

A busy machine makes latencies and speeds inconclusive, never counts. Exit status: 4 a defect was not found or not
quantified; 3 something could not be decided; 2 the instrument is too slow; 0 otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: want table or json", output)
			}
			if _, err := os.Stat(o.Broker); err != nil && o.Broker != "" {
				if cmd.Flags().Changed("portask") {
					return fmt.Errorf("--portask: %w", err)
				}
				o.Broker = ""
			}
			line, event := events(cmd.ErrOrStderr(), quiet)
			o.Done = func(x selftest.Check) { event(x.Name + ": " + string(x.Verdict)) }
			r, err := selftest.Run(cmd.Context(), o)
			line.end()
			if err != nil {
				return err
			}
			if output == "json" {
				err = r.WriteJSON(cmd.OutOrStdout())
			} else {
				err = r.Table(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return selftestVerdict(r)
		},
	}
	fs := c.Flags()
	fs.StringVarP(&output, "output", "o", "table", "table or json, on standard output")
	fs.StringVar(&o.Broker, "portask", brokerDefault, "broker to start for the checks over sockets; they are skipped where there is none, or with an empty name")
	fs.DurationVar(&o.Length, "duration", o.Length, "length of each measured run")
	fs.DurationVar(&o.Stall, "stall", o.Stall, "how long the target that stalls does")
	fs.Uint64Var(&o.Every, "every", o.Every, "one message in so many has a defect")
	fs.BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return c
}

// selftestVerdict names the checks that make the exit status.
func selftestVerdict(r *selftest.Report) error {
	status := r.ExitStatus()
	if status == 0 {
		return nil
	}
	of := map[int]selftest.Verdict{4: selftest.Fail, 3: selftest.Inconclusive, 2: selftest.Slow}[status]
	var names []string
	for _, x := range r.Checks {
		if x.Verdict == of {
			names = append(names, x.Name)
		}
	}
	return &StatusError{status, errors.New("self-test: " + string(of) + ": " + strings.Join(names, "; "))}
}
