package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// peersProgram has the commands that drive other systems. It is a module of its
// own, so that loadgen does not bring those systems along.
const (
	peersProgram = "loadgen-peers"
	peersPackage = "github.com/portask/portask/loadgen/peers/cmd/loadgen-peers"
)

// PeerCommands are peer and compare for a program that does not have them: they
// run loadgen-peers, found beside this program or built there.
func PeerCommands(version string) []*cobra.Command {
	forward := func(use, short string) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short + " (by " + peersProgram + ")", DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				x := peersRunner{dir: filepath.Dir(self), version: version, in: cmd.InOrStdin(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()}
				return x.run(cmd.Context(), append([]string{cmd.Name()}, args...))
			},
		}
	}
	return []*cobra.Command{
		forward("peer SYSTEM", "Start another system's server, to be driven by run --driver"),
		forward("compare [FILE | NAME]", "Run one scenario against several systems in turn, at equal durability"),
	}
}

// peersRunner runs loadgen-peers of directory dir.
type peersRunner struct {
	dir, version string
	in           io.Reader
	out, err     io.Writer
}

func (x *peersRunner) run(ctx context.Context, args []string) error {
	program, err := x.find(ctx)
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, program, args...)
	c.Stdin, c.Stdout, c.Stderr = x.in, x.out, x.err
	// It stops the servers it started, and ends by itself.
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	err = c.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
		return &StatusError{e.ExitCode(), fmt.Errorf("%s ended with status %d", peersProgram, e.ExitCode())}
	}
	return err
}

// find returns the program, which it builds if it is missing and the sources are
// at hand.
func (x *peersRunner) find(ctx context.Context) (string, error) {
	program := filepath.Join(x.dir, peersProgram)
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	fmt.Fprintf(x.err, "%s is not in %s; building it: go build %s\n", peersProgram, x.dir, peersPackage)
	c := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags", "-X main.version="+x.version, "-o", program, peersPackage)
	c.Stdout, c.Stderr = x.err, x.err
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build %s (it needs Go and Portask's sources, in the working directory or above): %w", peersProgram, err)
	}
	return program, nil
}
