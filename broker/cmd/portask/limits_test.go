package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/fault"
)

// silly is what nobody means.
var silly = []string{
	"", " ", "-", "-1", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "99999999999999999999999", "1e9", "0x10", "NaN",
	"-Inf", "1.5", "0.0", "8EiB", "99999999EiB", "-1GiB", "300000h", "-5s", "1ns", "∞", "yes please", "a\x00b", "\x1b[2J", strings.Repeat("9", 10_000),
}

// TestSillyFlags: whatever a flag of `portask serve` is given, it is refused in a
// short sentence that can be printed, or what was taken passes all checks.
func TestSillyFlags(t *testing.T) {
	keys := 0
	for k := range newBrokerOptions().schema().Keys() {
		if k.Flag == "" {
			continue
		}
		keys++
		if n, ok := k.Value.(*config.Number); ok && !strings.Contains(n.Limits(), " to ") {
			t.Errorf("--%s has no limits", k.Flag)
		}
		for _, text := range silly {
			var l launch
			flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
			l.register(flags)
			err := flags.Parse([]string{"--" + k.Flag + "=" + text})
			if err == nil {
				var refused *config.Error
				if _, _, err = l.load(); err != nil && !errors.As(err, &refused) {
					t.Errorf("--%s=%.40q: %T %v", k.Flag, text, err, err)
				}
			}
			// pflag repeats what was typed, whatever its length.
			if err != nil && (len(err.Error()) > 500+2*len(text) || !strings.Contains(err.Error(), k.Flag) && !strings.Contains(err.Error(), k.Path())) {
				t.Errorf("--%s=%.40q: %.600q", k.Flag, text, err)
			}
		}
	}
	if keys < 10 {
		t.Fatalf("%d flags", keys)
	}
}

// TestExtremeFlags: the least and the most that the table takes for a number, and
// each of its words, start a broker that stops again, or are refused with a typed
// error, as a batch that has no room for a message is: they do not panic.
func TestExtremeFlags(t *testing.T) {
	path, err := exec.LookPath("portask")
	if err != nil {
		t.Fatal(err)
	}
	for k := range newBrokerOptions().schema().Keys() {
		n, ok := k.Value.(*config.Number)
		if !ok || k.Flag == "" {
			continue
		}
		limits, words, _ := strings.Cut(n.Limits(), ", or ")
		values := strings.Split(limits, " to ")
		if words != "" {
			values = append(values, strings.Split(words, ", or ")...)
		}
		for _, value := range values {
			t.Run(k.Flag+"="+value, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				var out line
				var stderr bytes.Buffer
				cmd := exec.CommandContext(ctx, path, "serve", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--"+k.Flag+"="+value)
				out.then = func() { cmd.Process.Signal(syscall.SIGTERM) }
				cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &stderr, time.Second
				err := cmd.Run()
				var exit *exec.ExitError
				switch {
				case ctx.Err() != nil:
					t.Errorf("it did not end:\n%s", stderr.String())
				case err == nil && out.done:
				case errors.As(err, &exit) && exit.ExitCode() == int(fault.ExitInvalid) && strings.Contains(stderr.String(), "portask: configuration refused\n"):
				default:
					t.Errorf("%v:\n%s", err, stderr.String())
				}
				if strings.Contains(stderr.String(), "goroutine ") {
					t.Errorf("a stack trace:\n%s", stderr.String())
				}
			})
		}
	}
}

// line calls then at the first line that is written.
type line struct {
	then func()
	done bool
}

func (l *line) Write(b []byte) (int, error) {
	if !l.done && bytes.ContainsRune(b, '\n') {
		l.done = true
		l.then()
	}
	return len(b), nil
}
