package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/fault"
)

// defaultAddress is where `portask serve` listens and the clients look.
const defaultAddress = "127.0.0.1:7474"

// outputsAnnotation names an output besides table and json that a command has.
const outputsAnnotation = "outputs"

// globals are the flags every command takes.
type globals struct {
	server  string
	output  string
	timeout time.Duration
	bounded bool // --timeout was given
	stack   bool
}

func newRoot() *cobra.Command {
	g := new(globals)
	root := &cobra.Command{
		Use:   "portask",
		Short: "A message broker: partitioned, durable, measured",
		Long: `portask runs a Portask broker and talks to one.

  portask serve --data DIR                      start a broker
  portask topic create orders --partitions 4    create a topic
  echo hello | portask produce orders           produce lines
  portask consume orders --from earliest        consume them`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if more := cmd.Annotations[outputsAnnotation]; g.output != "table" && g.output != "json" && (more == "" || g.output != more) {
				return usagef("--output %q: want table%s or json", g.output, strings.TrimRight(", "+more, ", "))
			}
			fault.CaptureStacks(g.stack)
			g.bounded = cmd.Flags().Changed("timeout")
			if g.timeout <= 0 {
				return usagef("--timeout %v: want more than 0", g.timeout)
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&g.server, "server", defaultAddress, "address of the broker")
	f.StringVarP(&g.output, "output", "o", "table", "table or json")
	f.DurationVar(&g.timeout, "timeout", 10*time.Second, "how long to wait for the broker's answer")
	f.BoolVar(&g.stack, "stack", false, "print where in the program a failure was made")
	root.AddCommand(
		newServe(g),
		newTopic(g),
		newProduce(g),
		newConsume(g),
		newTop(g),
		newLog(g),
		newCompress(g),
		newConfig(g),
		newDoctor(g),
		newErrors(g),
		newID(g),
		newVersion(g),
		&cobra.Command{
			Use:   "exit-codes",
			Short: "What the exit codes mean",
			Long:  "The exit codes of portask. A number never changes its meaning.\n\n" + strings.TrimRight(exitHelp(), "\n"),
		},
	)
	return root
}

// noArgs and oneArg name what is missing or too many in words.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("missing argument: %s", names[len(args)])
		}
		if len(args) > len(names) {
			return usagef("unexpected argument: %s", args[len(names)])
		}
		return nil
	}
}

// dial connects within --timeout.
func (g *globals) dial(ctx context.Context, opts ...client.Option) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	return client.Dial(ctx, g.server, append(opts, client.WithName("portask-cli"))...)
}

// within is ctx bounded by --timeout.
func (g *globals) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, g.timeout)
}

// print writes v as JSON, or the rows as a table under the header; a nil header
// is a table of names and values.
func (g *globals) print(w io.Writer, v any, header []string, rows [][]string) error {
	if g.output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if header != nil {
		fmt.Fprintln(tw, strings.Join(header, "\t"))
	}
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}
