// Command portask is the Portask message broker and its command line client in
// one binary: `portask serve` runs a broker; the other commands talk to one,
// look into a data directory offline, or examine the machine.
//
// Every failure is printed on standard error as one sentence that names the
// field and the limit, and ends the process with a stable exit code
// (`portask help exit-codes`).
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/portask/portask/broker/fault"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: it interprets args and returns the exit
// code. SIGINT and SIGTERM cancel the command's context. A panic of the
// command's own goroutine is reported like a failure: the runtime's exit code
// for it is that of a usage error.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if err := fault.Recovered("portask", recover()); err != nil {
			report(stderr, err)
			code = exitFailure
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once

	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	// A reader of ours that has seen enough (`portask consume ... | head`)
	// is no failure.
	if errors.Is(err, syscall.EPIPE) {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if isUsage(err) {
		err = usageError{err}
	}
	report(stderr, err)
	return exitCode(err)
}

// isUsage recognises the mistakes that cobra and pflag find before a command
// runs. They have no type of their own.
func isUsage(err error) bool {
	if fault.Find(err) != nil {
		return false
	}
	text := err.Error()
	for _, prefix := range []string{
		"unknown command", "unknown flag", "unknown shorthand", "flag needs an argument",
		"invalid argument", "required flag", "accepts ", "requires ", "if any flags in the group",
		"at least one of the flags", "bad flag syntax",
	} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}
