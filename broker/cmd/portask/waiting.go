package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/portask/portask/broker/fault"
)

// noticeAfter is how long a command waits in silence before it says what for:
// longer than a broker takes to restart, shorter than somebody takes to wonder.
const noticeAfter = 2 * time.Second

// waitState is what a command waits for at one moment.
type waitState struct {
	what  string // in words; empty while it waits for nothing, or for its user
	done  uint64 // grows when something is answered: the wait begins anew
	limit bool   // the wait is bounded by --timeout
}

// waiting tells on standard error what a command waits for: once it has waited
// for noticeAfter, and again when that changes, at most every noticeAfter. A wait
// that is bounded and reaches the limit ends the command.
type waiting struct {
	op     string
	stderr io.Writer
	limit  time.Duration

	mu    sync.Mutex
	state func() waitState // guarded by mu
}

// on makes state the source of what is waited for. It is called from another
// goroutine, until the next call of on has returned.
func (w *waiting) on(state func() waitState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
}

// run looks until ctx ends; end is called with a fault.Timeout when a bounded
// wait reaches the limit.
func (w *waiting) run(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var (
		since, spoke time.Time
		last         waitState
		said         string
	)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		w.mu.Lock()
		s := w.state()
		w.mu.Unlock()
		if s.what == "" || s.done != last.done || last.what == "" {
			if said != "" && (s.what == "" || s.done != last.done) {
				fmt.Fprintf(w.stderr, "portask: goes on after %v\n", now.Sub(since).Round(100*time.Millisecond))
				said = ""
			}
			since, last = now, s
			continue
		}
		last = s
		waited := now.Sub(since)
		if s.limit && waited >= w.limit {
			end(fault.New(fault.Timeout, w.op).WithDetail("nothing was answered for %v: %s", w.limit, s.what))
			return
		}
		if waited >= noticeAfter && s.what != said && now.Sub(spoke) >= noticeAfter {
			fmt.Fprintf(w.stderr, "portask: waiting: %s\n", s.what)
			said, spoke = s.what, now
		}
	}
}

// watch runs f with a context that ends when a bounded wait has reached
// --timeout, whose error it then returns. Until f calls on, the broker's answer
// is waited for, which f bounds by itself.
func (g *globals) watch(ctx context.Context, op string, stderr io.Writer, f func(ctx context.Context, w *waiting) error) error {
	ctx, end := context.WithCancelCause(ctx)
	w := &waiting{op: op, stderr: stderr, limit: g.timeout, state: func() waitState {
		return waitState{what: "the broker at " + g.server + " does not answer"}
	}}
	var watcher sync.WaitGroup
	watcher.Go(func() { w.run(ctx, end) })
	err := f(ctx, w)
	late := context.Cause(ctx) // before end makes one
	end(nil)
	watcher.Wait()
	if err != nil && fault.CodeOf(late) == fault.Timeout {
		return late
	}
	return err
}
