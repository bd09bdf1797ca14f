package command

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/demo"
)

func demoCommand() *cobra.Command {
	var o demo.Options
	c := &cobra.Command{
		Use:   "demo",
		Short: "Start a broker, send real payloads, kill it in the middle, account for every message",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := newProgress(cmd.ErrOrStderr())
			o.Event, o.Progress, o.Out = p.event, p.line, cmd.OutOrStdout()
			began := time.Now()
			err := demo.Run(cmd.Context(), o)
			p.end()
			switch {
			case errors.Is(err, demo.ErrViolated):
				return &StatusError{4, err}
			case errors.Is(err, demo.ErrUnfinished):
				return &StatusError{3, err}
			case err != nil:
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "every acknowledged message arrived once, in order and intact, across the SIGKILL (%.0f s in all)\n", time.Since(began).Seconds())
			return nil
		},
	}
	c.Flags().StringVar(&o.Binary, "portask", "bin/portask", "broker to start")
	c.Flags().StringVar(&o.Payloads, "payloads", "", "directory whose files are sent (default: test data of Go modules this program was built with)")
	c.Flags().DurationVar(&o.Duration, "duration", 24*time.Second, "how long to send")
	c.Flags().Float64Var(&o.Rate, "rate", 20_000, "messages a second")
	return c
}
