package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/fault"
)

// The exit codes that are no failure's own; the others are in fault's table.
const (
	exitOK          = int(fault.ExitOK)
	exitFailure     = int(fault.ExitFailure)
	exitUsage       = int(fault.ExitUsage)
	exitInterrupted = int(fault.ExitInterrupted)
)

// exitHelp is a line for each exit code.
func exitHelp() string {
	var b strings.Builder
	for _, e := range fault.Exits() {
		fmt.Fprintf(&b, "%3d  %s\n", e, e)
	}
	return b.String()
}

// usageError is a mistake in the command line itself.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode classifies err.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return int(fault.InfoOf(err).Exit)
}

// report prints err on one or two lines: what failed, then what can be done.
func report(w io.Writer, err error) {
	var refused *config.Error
	if errors.As(err, &refused) {
		fmt.Fprintf(w, "portask: configuration refused\n  %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return
	}
	fmt.Fprintf(w, "portask: %v\n", err)
	if f := fault.Find(err); f != nil {
		fmt.Fprintf(w, "  %s: %s\n", f.Code, f.Info().Text)
	}
	if stack := fault.Stack(err); stack != "" { // asked for by --stack, or of a panic
		fmt.Fprintf(w, "  made at:\n  %s\n", strings.ReplaceAll(strings.TrimSpace(stack), "\n", "\n  "))
	}
}

func newErrors(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "errors [NAME]",
		Short: "What the errors mean",
		Long: `What each error means, whether a retry can help, and the status over HTTP and the exit code that go with it.
NAME is the name of an error as messages and logs have it.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("unexpected argument: %s", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			type row struct {
				Code      uint16 `json:"code"`
				Name      string `json:"name"`
				Category  string `json:"category"`
				Retryable bool   `json:"retryable"`
				HTTP      int    `json:"http"`
				Exit      int    `json:"exit"`
				Text      string `json:"text"`
			}
			var all []row
			var rows [][]string
			for _, c := range fault.Codes() {
				i := c.Info()
				if len(args) > 0 && i.Name != args[0] {
					continue
				}
				all = append(all, row{uint16(c), i.Name, i.Category.String(), i.Retryable, i.HTTP, int(i.Exit), i.Text})
				rows = append(rows, []string{
					strconv.Itoa(int(c)), i.Name, i.Category.String(), strconv.FormatBool(i.Retryable),
					strconv.Itoa(i.HTTP), strconv.Itoa(int(i.Exit)), i.Text,
				})
			}
			if len(all) == 0 {
				return fault.New(fault.NotFound, "errors").WithDetail("no error has the name %q", args[0])
			}
			return g.print(cmd.OutOrStdout(), all, []string{"CODE", "NAME", "CATEGORY", "RETRY", "HTTP", "EXIT", "MEANING"}, rows)
		},
	}
}
