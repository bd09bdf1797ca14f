package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashMode says what a crash leaves of that which was not synced.
type CrashMode uint8

const (
	// CrashNone: nothing, as if the device had written only what it had to.
	CrashNone CrashMode = iota
	// CrashAll: everything, as after the death of the process alone.
	CrashAll
	// CrashRandom: a part chosen by the seed. Of each file some 512-byte
	// sectors, in their last version, the one before it or the durable one,
	// and some size from the durable to the current one; of the changes of
	// directories a first part, or any part in which each change of a name
	// comes with the earlier ones of that name.
	CrashRandom
)

// CrashModes lists them all.
var CrashModes = []CrashMode{CrashNone, CrashAll, CrashRandom}

// String returns the mode's name.
func (c CrashMode) String() string {
	return [...]string{"none", "all", "random"}[c]
}

// Clone returns the file system as it would be found if the power were cut now,
// with no handle open and no lock held, no hook, and the same capacity. The
// receiver is not changed. Pages are shared until one side writes to them, so
// a clone costs the page tables, 32 bytes for each 4 KiB.
func (m *Mem) Clone(mode CrashMode, seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 0x706f727461736b))
	after := overlay{}
	for _, op := range m.survivingOps(mode, rng) {
		after.apply(op)
	}
	out := NewMem()
	out.capacity = m.capacity
	out.root = m.rebuild(out, m.root, after, mode, rng)
	return out
}

// rebuild copies the tree under a directory as it is after the crash.
func (m *Mem) rebuild(out *Mem, dir *node, after overlay, mode CrashMode, rng *rand.Rand) *node {
	d := newDir()
	entries := after.of(dir)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		n := entries[name]
		var c *node
		if n.isDir() {
			c = m.rebuild(out, n, after, mode, rng)
		} else {
			c = &node{data: n.data.crashed(mode, rng)}
			out.used += int64(c.data.pages) * pageBytes
		}
		c.links = 1
		d.kids[name], d.kept[name] = c, c
	}
	return d
}

// overlay holds the durable entries of directories with changes on top.
type overlay map[*node]map[string]*node

func (o overlay) of(dir *node) map[string]*node {
	if e, ok := o[dir]; ok {
		return e
	}
	return dir.kept
}

func (o overlay) edit(dir *node) map[string]*node {
	if _, ok := o[dir]; !ok {
		o[dir] = maps.Clone(dir.kept)
	}
	return o[dir]
}

func (o overlay) apply(op dirOp) {
	op.applyTo(o.edit)
}

// applyTo changes the entries that edit returns for a directory.
func (op dirOp) applyTo(edit func(*node) map[string]*node) {
	if op.from != nil {
		delete(edit(op.from), op.fromName)
	}
	if op.child == nil {
		delete(edit(op.dir), op.name)
	} else {
		edit(op.dir)[op.name] = op.child
	}
}

// entry names one entry of one directory.
type entry struct {
	dir  *node
	name string
}

// touches calls f for each entry that op changes.
func (op dirOp) touches(f func(entry) bool) bool {
	return f(entry{op.dir, op.name}) || op.from != nil && f(entry{op.from, op.fromName})
}

// survivingOps chooses the changes of directories that a crash leaves.
func (m *Mem) survivingOps(mode CrashMode, rng *rand.Rand) []dirOp {
	switch {
	case mode == CrashNone || len(m.pending) == 0:
		return nil
	case mode == CrashAll:
		return m.pending
	case rng.IntN(2) == 0:
		return m.pending[:rng.IntN(len(m.pending)+1)] // as a journal would
	}
	// A change of an entry is made on top of the earlier ones of that entry,
	// in the same block, so it cannot survive without them.
	lost := map[entry]bool{}
	var ops []dirOp
	for _, op := range m.pending {
		if op.touches(func(e entry) bool { return lost[e] }) || rng.IntN(2) == 0 {
			op.touches(func(e entry) bool { lost[e] = true; return false })
			continue
		}
		ops = append(ops, op)
	}
	return ops
}

// settle makes the pending changes of dir durable, and the earlier ones of
// other directories that they build on. A rename counts as a change of its
// target's directory.
func (m *Mem) settle(dir *node) {
	needed := map[entry]bool{}
	keep := make([]bool, len(m.pending))
	for i := len(m.pending) - 1; i >= 0; i-- {
		op := m.pending[i]
		if op.dir == dir || op.touches(func(e entry) bool { return needed[e] }) {
			keep[i] = true
			op.touches(func(e entry) bool { needed[e] = true; return false })
		}
	}
	rest := m.pending[:0]
	for i, op := range m.pending {
		if keep[i] {
			op.applyTo(func(n *node) map[string]*node { return n.kept })
		} else {
			rest = append(rest, op)
		}
	}
	clear(m.pending[len(rest):])
	m.pending = rest
}
