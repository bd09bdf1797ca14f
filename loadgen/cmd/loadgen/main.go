// Command loadgen drives a Portask deployment over its socket and verifies
// every message.
//
// Exit status: 0 all well; 1 usage, configuration or an unreachable target;
// 2 an objective was missed; 3 the run says nothing (the generator was the
// limit); 4 data violation: an acknowledged message was lost, or one arrived
// that is not what was sent.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// defaultAddress is where `portask serve` listens.
const defaultAddress = "127.0.0.1:7474"

// version is set by the linker.
var version = "unknown"

// platformCommands are those that exist on this operating system only.
var platformCommands []func() *cobra.Command

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
	}
	os.Exit(exitStatus(err))
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "loadgen",
		Short:         "Load a Portask broker and verify every message",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(runCommand(), demoCommand())
	for _, f := range platformCommands {
		c.AddCommand(f())
	}
	return c
}
