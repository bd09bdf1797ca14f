//go:build leasecheck

package mempool

import (
	"fmt"
	"strings"
	"testing"
)

// panicOf runs f and returns what it panicked with.
func panicOf(t *testing.T, f func()) (text string) {
	t.Helper()
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	t.Error("no panic")
	return ""
}

func mustTell(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("does not tell %q:\n%s", p, text)
		}
	}
}

//go:noinline
func borrowsHere(p *Pool) *Chunk { return p.Get(4096) }

//go:noinline
func releasesFirst(c *Chunk) { c.Release() }

//go:noinline
func releasesAgain(c *Chunk) { c.Release() }

func TestLeakIsReportedWithWhereItWasTaken(t *testing.T) {
	var report string
	p := NewPool(Options{Leaked: func(r string) { report = r }})
	releasesFirst(borrowsHere(p))
	c := borrowsHere(p)
	c.Retain()
	p.Close()
	mustTell(t, report, "1 chunks are still held", "4096 bytes with 2 references", "lent by Get, 1 times", "borrowsHere", "Retain, 1 times")
	c.Release()
	c.Release()

	q := NewPool(Options{})
	c = borrowsHere(q)
	mustTell(t, panicOf(t, q.Close), "still held", "borrowsHere")
	c.Release()
	q.Close() // all came back: nothing to say
}

func TestDoubleReleaseTellsBoth(t *testing.T) {
	p := NewPool(Options{})
	c := borrowsHere(p)
	releasesFirst(c)
	d := borrowsHere(p) // its memory has a new use: a second Release must not end that
	mustTell(t, panicOf(t, func() { releasesAgain(c) }), "without holder", "borrowsHere", "releasesFirst", "releasesAgain")
	d.B[0] = 1
	d.Release()
	p.Close()
}

func TestUseAfterReleaseTells(t *testing.T) {
	p := NewPool(Options{})
	for name, use := range map[string]func(*Chunk){
		"Retain": (*Chunk).Retain,
		"Gen":    func(c *Chunk) { c.Gen() },
		"Sole":   func(c *Chunk) { c.Sole() },
	} {
		c := borrowsHere(p)
		releasesFirst(c)
		mustTell(t, panicOf(t, func() { use(c) }), name, "releasesFirst")
	}
	c := borrowsHere(p)
	releasesFirst(c)
	mustTell(t, panicOf(t, func() { c.B[0] = 1 }), "index out of range")

	// Through a slice taken before: found when the memory is lent again.
	c = borrowsHere(p)
	b := c.B
	releasesFirst(c)
	if b[7] != poison {
		t.Errorf("freed memory reads %#x", b[7])
	}
	b[7] = 1
	mustTell(t, panicOf(t, func() { borrowsHere(p) }), "byte 7", "written after its last Release", "releasesFirst")
}

func TestSlabMisuseTells(t *testing.T) {
	var s Slab[int]
	i, _ := s.Take()
	s.At(i)
	putsFirst(&s, i)
	mustTell(t, panicOf(t, func() { s.Put(i) }), "not taken", "putsFirst")
	mustTell(t, panicOf(t, func() { s.At(i) }), "not taken", "putsFirst")
	s.Take()
	s.Put(i)
}

//go:noinline
func putsFirst(s *Slab[int], i uint32) { s.Put(i) }
