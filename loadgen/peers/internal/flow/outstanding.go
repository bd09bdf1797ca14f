// Package flow is what the drivers of this module share around the clients of
// their systems: how much a producer may have unanswered, and a queue between
// a client's callbacks and the goroutine that polls.
package flow

import (
	"context"
	"fmt"
	"sync"

	"github.com/portask/portask/loadgen/driver"
)

// Outstanding bounds what one producer has sent and has no answer for, and
// sees to it that every message gets exactly one. Its methods may be called by
// any number of goroutines.
type Outstanding struct {
	maxBytes, maxMessages int

	space chan struct{} // capacity 1: somebody who waits may look again

	mu              sync.Mutex
	bytes, messages int // not yet answered; guarded by mu, like what follows
	pending         int // messages whose answer has not returned
	waiting         int // in take
	idle            chan struct{}
	closed          error
	entries         []*Entry
}

// NewOutstanding returns one that lets a message wait while maxBytes or
// maxMessages are outstanding. One message always may be.
func NewOutstanding(maxBytes, maxMessages int) *Outstanding {
	return &Outstanding{maxBytes: maxBytes, maxMessages: maxMessages, space: make(chan struct{}, 1)}
}

// Entry is the place of one slot.
type Entry struct {
	o        *Outstanding
	answered func(error)
	bytes    int  // guarded by o.mu
	taken    bool // guarded by o.mu
}

// Entry makes a place. answered is called once for each Take that is not taken
// back.
func (o *Outstanding) Entry(answered func(error)) *Entry {
	e := &Entry{o: o, answered: answered}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries = append(o.entries, e)
	return e
}

// Take counts a message of n bytes, waiting for room.
//
// Errors: the context's; the one that Close was given.
func (e *Entry) Take(ctx context.Context, n int) error {
	o := e.o
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.closed == nil && o.messages > 0 && (o.messages >= o.maxMessages || o.bytes+n > o.maxBytes) {
		o.waiting++
		o.mu.Unlock()
		var err error
		select {
		case <-o.space:
		case <-ctx.Done():
			err = ctx.Err()
		}
		o.mu.Lock()
		o.waiting--
		if err != nil {
			o.wake() // the signal may have been meant for another
			return err
		}
	}
	if o.closed != nil {
		o.wake()
		return o.closed
	}
	e.bytes, e.taken = n, true
	o.bytes += n
	o.messages++
	o.pending++
	o.wake()
	return nil
}

// wake lets one of those who wait look again. mu is held.
func (o *Outstanding) wake() {
	if o.waiting > 0 {
		select {
		case o.space <- struct{}{}:
		default:
		}
	}
}

// release gives back what e took; false if it has taken nothing.
func (e *Entry) release() bool {
	o := e.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if !e.taken {
		return false
	}
	e.taken = false
	o.bytes -= e.bytes
	o.messages--
	o.wake()
	return true
}

// done ends what release began: nothing of the message is left to be called.
func (o *Outstanding) done() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pending--; o.pending == 0 && o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

// Answer calls the callback if the message has no answer yet.
func (e *Entry) Answer(err error) {
	if e.release() {
		e.answered(err)
		e.o.done()
	}
}

// Return takes a Take back: the message was not sent. It reports false if the
// message has been answered meanwhile, by Close.
func (e *Entry) Return() bool {
	if !e.release() {
		return false
	}
	e.o.done()
	return true
}

// Congested reports whether more than half of what is allowed is outstanding.
func (o *Outstanding) Congested() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes > o.maxBytes/2 || o.messages > o.maxMessages/2
}

// Wait waits until every message has been answered.
func (o *Outstanding) Wait(ctx context.Context) error {
	o.mu.Lock()
	if o.pending == 0 {
		o.mu.Unlock()
		return nil
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	o.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close answers what is outstanding with an error, and lets every later Take
// fail. Answers that come later are ignored. It may be called more than once.
func (o *Outstanding) Close() {
	o.mu.Lock()
	if o.closed == nil {
		o.closed = fmt.Errorf("%w: the producer", driver.ErrClosed)
	}
	err, entries := o.closed, o.entries
	o.wake()
	o.mu.Unlock()
	for _, e := range entries {
		e.Answer(err)
	}
}
