package vfs

import "math/rand/v2"

// pageBytes is the unit of copy-on-write. Smaller costs more pointers, larger
// more copying for each small write.
const pageBytes = 4096

const pageSectors = pageBytes / SectorBytes

// page is a part of a file. It may be changed only by the content whose gen it
// has: such a page is in one place. All others are shared.
type page struct {
	gen  uint64
	data [pageBytes]byte
}

// zeroPage is shared by everything that is allocated and not written. Contents
// have gens from 1, so it is never changed.
var zeroPage = new(page)

// slot is one page of a file; nil pages are holes and read as zeros.
type slot struct {
	cur   *page // what readers see
	kept  *page // what is durable
	prev  *page // before the last write, if there were several since the last sync
	dirty bool  // listed in content.dirty
}

// content is what a file holds: now, and durably. Guarded by the Mem's lock.
type content struct {
	slots    []slot // covers both sizes
	size     int64
	keptSize int64
	gen      uint64  // grows when pages become shared
	dirty    []int32 // slots that differ from what is durable
	pages    int     // slots whose cur is not nil
}

// read copies from off and returns how much there was.
func (c *content) read(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for n := 0; n < len(p); {
		at := off + int64(n)
		in := int(at % pageBytes)
		part := p[n:min(len(p), n+pageBytes-in)]
		if pg := c.slots[at/pageBytes].cur; pg != nil {
			copy(part, pg.data[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p)
}

// grow makes slots for size bytes.
func (c *content) grow(size int64) {
	need := int((size + pageBytes - 1) / pageBytes)
	if need > len(c.slots) {
		c.slots = append(c.slots, make([]slot, need-len(c.slots))...)
	}
}

// mark lists a slot as not durable and keeps the version before this change if
// it is one that a crash could leave.
func (c *content) mark(i int) {
	s := &c.slots[i]
	if !s.dirty {
		s.dirty = true
		c.dirty = append(c.dirty, int32(i))
		s.prev = nil
	}
}

// writable returns page i ready to be changed, after keeping its old version.
// Its bytes are those of the old one unless all are going to be written.
func (c *content) writable(i int, whole bool) *page {
	s := &c.slots[i]
	was := s.dirty
	c.mark(i)
	old := s.cur
	var pg *page
	if was && s.prev != nil && s.prev.gen == c.gen {
		pg = s.prev // its memory is ours alone, and its version is forgotten
	} else {
		pg = &page{gen: c.gen}
		if old == nil {
			whole = true // fresh memory is zero already
		}
	}
	if !whole {
		if old == nil {
			clear(pg.data[:])
		} else {
			pg.data = old.data
		}
	}
	if was {
		s.prev = old
	}
	if old == nil {
		c.pages++
	}
	s.cur = pg
	return pg
}

// write stores p at off and returns how much fitted if at most room new pages
// may be taken, and how many were.
func (c *content) write(p []byte, off int64, room int) (n, pages int) {
	before := c.pages
	for n < len(p) {
		at := off + int64(n)
		c.grow(at + 1)
		i, in := int(at/pageBytes), int(at%pageBytes)
		if c.slots[i].cur == nil && c.pages-before == room {
			break
		}
		part := p[n:min(len(p), n+pageBytes-in)]
		copy(c.writable(i, len(part) == pageBytes).data[in:], part)
		n += len(part)
		c.size = max(c.size, at+int64(len(part)))
	}
	return n, c.pages - before
}

// truncate sets the size and returns the change of the number of pages.
func (c *content) truncate(size int64) (pages int) {
	before := c.pages
	if size < c.size {
		first := int(size / pageBytes)
		if in := int(size % pageBytes); in > 0 {
			if c.slots[first].cur != nil {
				clear(c.writable(first, false).data[in:])
			}
			first++
		}
		for i := first; i < len(c.slots); i++ {
			s := &c.slots[i]
			if s.cur == nil {
				continue
			}
			if s.dirty {
				s.prev = s.cur
			}
			c.mark(i)
			s.cur = nil
			c.pages--
		}
	}
	c.grow(size)
	c.size = size
	return c.pages - before
}

// allocate fills the holes of the first size bytes with zeros, if at most room
// new pages may be taken, and makes the file that long.
func (c *content) allocate(size int64, room int) (pages int, ok bool) {
	need := int((size + pageBytes - 1) / pageBytes)
	missing := max(0, need-len(c.slots))
	for i := range c.slots[:min(need, len(c.slots))] {
		if c.slots[i].cur == nil {
			missing++
		}
	}
	if missing > room {
		return 0, false
	}
	c.grow(size)
	for i := range need {
		if c.slots[i].cur == nil {
			c.mark(i)
			c.slots[i].cur = zeroPage
			c.pages++
		}
	}
	c.size = max(c.size, size)
	return missing, true
}

// sync makes everything durable.
func (c *content) sync() {
	for _, i := range c.dirty {
		s := &c.slots[i]
		s.kept, s.prev, s.dirty = s.cur, nil, false
	}
	c.dirty = c.dirty[:0]
	c.keptSize = c.size
	c.gen++ // every page is now in two places
}

// forget makes what is not durable look clean without being it. The size was
// the file system's to keep, not the page cache's, so it follows the bytes that
// are durable: a later sync writes it.
func (c *content) forget() {
	for _, i := range c.dirty {
		c.slots[i].prev, c.slots[i].dirty = nil, false
	}
	c.dirty = c.dirty[:0]
	c.gen++
}

// crashed returns what a power cut leaves. It counts as a change of c, whose
// pages become shared.
func (c *content) crashed(mode CrashMode, rng *rand.Rand) content {
	c.gen++
	out := content{gen: c.gen, size: c.keptSize, slots: make([]slot, len(c.slots))}
	for i := range c.slots {
		out.slots[i].cur = c.slots[i].kept
	}
	if mode == CrashAll {
		out.size = c.size
		for _, i := range c.dirty {
			out.slots[i].cur = c.slots[i].cur
		}
	}
	if mode == CrashRandom && (len(c.dirty) > 0 || c.size != c.keptSize) {
		c.survivors(&out, rng)
	}
	out.trim()
	for i := range out.slots {
		s := &out.slots[i]
		s.kept = s.cur
		if s.cur != nil {
			out.pages++
		}
	}
	out.keptSize = out.size
	out.gen++ // all pages are shared
	return out
}

// survivors chooses by rng what of the unsynced sectors and of the size
// reached the device. Whole files are kept or lost often enough to meet mixed
// states between files; within a file a cut at one place and independent
// sectors are as frequent.
func (c *content) survivors(out *content, rng *rand.Rand) {
	switch rng.IntN(4) {
	case 0: // size as it was
	case 1, 2:
		out.size = c.size
	case 3:
		lo, hi := min(c.size, c.keptSize), max(c.size, c.keptSize)
		out.size = lo + rng.Int64N(hi-lo+1)
	}
	style := rng.IntN(4)
	cut := rng.IntN(len(c.slots)*pageSectors + 1)
	for _, i := range c.dirty {
		s := &c.slots[i]
		var mixed *page
		for k := range pageSectors {
			from := s.kept
			switch {
			case style == 1,
				style == 2 && int(i)*pageSectors+k < cut:
				from = s.cur
			case style == 3:
				switch rng.IntN(3) {
				case 1:
					from = s.cur
				case 2:
					if from = s.cur; s.prev != nil {
						from = s.prev
					}
				}
			}
			if from == s.kept {
				continue
			}
			if mixed == nil {
				mixed = &page{gen: out.gen}
				if s.kept != nil {
					mixed.data = s.kept.data
				}
			}
			part := mixed.data[k*SectorBytes : (k+1)*SectorBytes]
			if from == nil {
				clear(part)
			} else {
				copy(part, from.data[k*SectorBytes:])
			}
		}
		if mixed != nil {
			out.slots[i].cur = mixed
		}
	}
}

// trim drops what lies beyond the size, so that it reads as zeros if the file
// grows again.
func (c *content) trim() {
	c.grow(c.size)
	last := int(c.size / pageBytes)
	if in := int(c.size % pageBytes); in > 0 {
		if old := c.slots[last].cur; old != nil {
			pg := &page{gen: c.gen, data: old.data}
			clear(pg.data[in:])
			c.slots[last].cur = pg
		}
		last++
	}
	c.slots = c.slots[:last]
}
