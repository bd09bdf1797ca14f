//go:build leasecheck

package mempool

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// LeaseCheck tells whether this build checks leases: see the package comment.
const LeaseCheck = true

type event uint8

const (
	tookGet event = iota
	tookRetain
	tookTryRetain
	gaveRelease
	heldRetire
	gavePut
)

var eventNames = [...]string{"lent by Get", "Retain", "TryRetain", "Release", "Retire", "put"}

// place is an event and where it happened. References have no identity, so
// equal places are counted together: a chunk that serves ten thousand batches
// has a short history.
type place struct {
	event event
	pcs   [12]uintptr
}

func here(e event, skip int) place {
	p := place{event: e}
	runtime.Callers(skip+2, p.pcs[:])
	return p
}

func (p place) write(b *strings.Builder, times int) {
	fmt.Fprintf(b, "\n%s, %d times, at", eventNames[p.event], times)
	n := slices.Index(p.pcs[:], 0)
	if n < 0 {
		n = len(p.pcs)
	}
	frames := runtime.CallersFrames(p.pcs[:n])
	for {
		f, more := frames.Next()
		if f.Function != "" {
			fmt.Fprintf(b, "\n\t%s\n\t\t%s:%d", f.Function, f.File, f.Line)
		}
		if !more {
			return
		}
	}
}

// trace is the history of a chunk's present use, and of its last one after its
// end: chunks are not lent again, only their memory is.
type trace struct {
	mu     sync.Mutex
	order  []place       // guarded by mu
	counts map[place]int // guarded by mu
}

func (t *trace) begin() {
	t.mu.Lock()
	t.order, t.counts = nil, map[place]int{}
	t.mu.Unlock()
	t.add(here(tookGet, 3))
}

func (t *trace) note(e event) { t.add(here(e, 2)) }

func (t *trace) add(p place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[p]++; t.counts[p] == 1 {
		t.order = append(t.order, p)
	}
}

// history tells every place that took or gave a reference.
func (t *trace) history() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, p := range t.order {
		p.write(&b, t.counts[p])
	}
	return b.String()
}

// ended takes the memory away from a chunk that nobody holds.
func (c *Chunk) ended() { c.B = nil }

// reborn gives the memory of a freed chunk a new header, so that a reference of
// the old use that is given twice meets the old one, and checks that nobody
// wrote to it meanwhile.
func (c *Chunk) reborn() *Chunk {
	for i, v := range c.mem() {
		if v != poison {
			panic(fmt.Sprintf("mempool: byte %d of a chunk of %d was written after its last Release%s", i, c.size(), c.trace.history()))
		}
	}
	n := &Chunk{base: c.base, pool: c.pool, class: c.class, mapped: c.mapped}
	n.state.Store(c.state.Load())
	c.base = nil
	return n
}

// ledger is all chunks that are lent.
type ledger struct {
	mu   sync.Mutex
	held map[*Chunk]struct{} // guarded by mu
}

func (l *ledger) add(c *Chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[*Chunk]struct{}{}
	}
	l.held[c] = struct{}{}
}

func (l *ledger) remove(c *Chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, c)
}

// close reports what is still held.
func (l *ledger) close(p *Pool) {
	l.mu.Lock()
	held := slices.Collect(maps.Keys(l.held))
	l.mu.Unlock()
	if len(held) == 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "mempool: the pool is closed and %d chunks are still held", len(held))
	for _, c := range held[:min(len(held), 8)] {
		fmt.Fprintf(&b, "\n\na chunk of %d bytes with %d references:%s", c.size(), c.state.Load()&refMask, c.trace.history())
	}
	if p.leaked == nil {
		panic(b.String())
	}
	p.leaked(b.String())
}

// slabTrace knows where the records of a slab were taken and put.
type slabTrace struct {
	taken map[uint32]place
	freed map[uint32]place
}

func (t *slabTrace) take(i uint32) {
	if t.taken == nil {
		t.taken, t.freed = map[uint32]place{}, map[uint32]place{}
	}
	delete(t.freed, i)
	t.taken[i] = here(tookGet, 2)
}

func (t *slabTrace) put(i uint32) {
	if _, ok := t.taken[i]; !ok {
		panic(fmt.Sprintf("mempool: Put of record %d, which is not taken%s", i, t.history(i)))
	}
	delete(t.taken, i)
	t.freed[i] = here(gavePut, 2)
}

func (t *slabTrace) use(i uint32) {
	if _, ok := t.taken[i]; !ok {
		panic(fmt.Sprintf("mempool: At of record %d, which is not taken%s", i, t.history(i)))
	}
}

// drop forgets the records from top on.
func (t *slabTrace) drop(top uint32) {
	maps.DeleteFunc(t.freed, func(i uint32, _ place) bool { return i >= top })
}

func (t *slabTrace) history(i uint32) string {
	var b strings.Builder
	if p, ok := t.freed[i]; ok {
		p.write(&b, 1)
	}
	return b.String()
}
