package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// errUnread ends a command whose output goes nowhere, as in `perflab run | head -1`.
var errUnread = errors.New("nobody reads the output any more")

// whileRead returns a context that ends when a write to standard output or
// standard error fails because its reader has gone. Such a write is an error like any
// other from now on; by default the signal that comes with it would end the
// process where it stands, its temporary directories left behind. The signal
// comes of other pipes too, as to a program that ended, which do not count.
//
// The caller calls done with the error of the command once it has returned, and
// gets it back with what ended the context in front; errUnread is an error even
// if the command did not notice.
func whileRead(parent context.Context) (_ context.Context, done func(error) error) {
	ctx, cancel := context.WithCancelCause(parent)
	broken := make(chan os.Signal, 1)
	watched := make(chan struct{})
	// Notified, not ignored: what is ignored stays so in every child.
	signal.Notify(broken, syscall.SIGPIPE)
	go func() {
		defer close(watched)
		for range broken {
			if unread(os.Stdout) || unread(os.Stderr) {
				cancel(errUnread)
			}
		}
	}()
	return ctx, func(err error) error {
		signal.Stop(broken)            // waits for what is under way
		signal.Ignore(syscall.SIGPIPE) // the last words may have no reader either
		close(broken)
		<-watched
		defer cancel(nil)
		switch cause := context.Cause(ctx); {
		case cause == nil, err == nil && !errors.Is(cause, errUnread):
			return err
		case err == nil:
			return cause
		default:
			return fmt.Errorf("%w: %w", cause, err)
		}
	}
}

// privateTemp gives this process and all that it starts one temporary
// directory, and returns what removes it: a go command that is killed leaves
// its own there, for one.
func privateTemp() (remove func() error, err error) {
	dir, err := os.MkdirTemp("", "perflab-")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"TMPDIR", "GOTMPDIR"} {
		if err := os.Setenv(name, dir); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return func() error { return os.RemoveAll(dir) }, nil
}
