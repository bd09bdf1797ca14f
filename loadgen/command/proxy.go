package command

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/loadgen/fault"
	"github.com/portask/portask/loadgen/scenario"
)

// proxyCommand is the proxy of faults by itself: a slow network for any program.
func proxyCommand() *cobra.Command {
	var o fault.ProxyOptions
	var n fault.Network
	var rate string
	var reset time.Duration
	c := &cobra.Command{
		Use:   "proxy HOST:PORT",
		Short: "Put a slow network before a target, until interrupted",
		Long: `Put a slow network before a target, until interrupted.

The first line on standard output is the address to connect to, on the loopback interface. At the end the connections and
bytes that passed are told on standard error.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if n.Rate, err = scenario.ParseSize(rate); err != nil {
				return fmt.Errorf("--rate: %w", err)
			}
			if n.Latency < 0 || n.Jitter < 0 || reset < 0 || max(n.Latency, n.Jitter) > time.Minute {
				return fmt.Errorf("--latency %v, --jitter %v, --reset-every %v: want 0s to 1m, and no negative times", n.Latency, n.Jitter, reset)
			}
			p, err := fault.Listen(args[0], o)
			if err != nil {
				return err
			}
			defer p.Close()
			p.Shape(n)
			fmt.Fprintln(cmd.OutOrStdout(), p.Addr())
			var tick <-chan time.Time
			if reset > 0 {
				t := time.NewTicker(reset)
				defer t.Stop()
				tick = t.C
			}
			for {
				select {
				case <-tick:
					p.Reset()
					continue
				case <-cmd.Context().Done():
				}
				s := p.Stats()
				fmt.Fprintf(cmd.ErrOrStderr(), "%d connections, %d refused; %d bytes to the target, %d back\n", s.Opened, s.Refused, s.ToTarget, s.ToBack)
				return nil
			}
		},
	}
	fs := c.Flags()
	fs.StringVar(&o.Listen, "listen", "127.0.0.1:0", "loopback address to listen on")
	fs.Uint64Var(&o.Seed, "seed", 1, "of the jitter")
	fs.DurationVar(&n.Latency, "latency", 0, "added each way")
	fs.DurationVar(&n.Jitter, "jitter", 0, "at most so much more, at random; the order stays")
	fs.StringVar(&rate, "rate", "0", "bytes a second each way, of all connections together, such as 2MiB; 0: no limit")
	fs.DurationVar(&reset, "reset-every", 0, "reset all connections so often; 0: never")
	return c
}
