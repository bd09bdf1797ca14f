//go:build linux

package lean

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// ServeProducer lets a driver run phases through a pipe. It writes "ready",
// then for each line "run 3s" or "run 1000" (batches) the Phase as one line of
// JSON. It returns at the end of in.
func (p *Producer) Serve(in io.Reader, out io.Writer) error {
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	enc := json.NewEncoder(out)
	for lines.Scan() {
		d, batches, err := parseRun(lines.Text())
		if err != nil {
			return err
		}
		ph, err := p.Run(d, batches)
		if err != nil {
			return err
		}
		if err := enc.Encode(ph); err != nil {
			return err
		}
	}
	return lines.Err()
}

// parseRun reads "run" and a duration or a number of batches.
func parseRun(line string) (d time.Duration, batches int64, err error) {
	word, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	if word != "run" {
		return 0, 0, fmt.Errorf("command %q: want \"run 3s\" or \"run 1000\"", line)
	}
	if n, err := strconv.ParseInt(arg, 10, 64); err == nil && n > 0 {
		return 0, n, nil
	}
	if d, err = time.ParseDuration(arg); err != nil || d <= 0 || d > time.Hour {
		return 0, 0, fmt.Errorf("command %q: want a positive duration up to an hour, or a number of batches", line)
	}
	return d, 0, nil
}

// Serve writes "ready", then the Phase of each phase as one line of JSON, until
// the server closes the connection or in ends, whichever is first. The end of
// in closes the process's part: Serve may then still be waiting for the server,
// so the caller exits.
func (k *Consumer) Serve(in io.Reader, out io.Writer) error {
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		enc := json.NewEncoder(out)
		for {
			ph, err := k.Run()
			if err == nil {
				err = enc.Encode(ph)
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, in)
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case err := <-failed:
		// The driver stops clients before servers; a close before that is a failure.
		select {
		case <-ended:
			return nil
		default:
			return errors.Join(errors.New("receive"), err)
		}
	}
}
