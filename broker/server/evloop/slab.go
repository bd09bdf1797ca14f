package evloop

import "github.com/portask/portask/broker/mempool"

// record is all that an idle connection owns. It has no pointers, so a million
// of them cost the garbage collector nothing, and is one cache line.
//
//	 0  gen       odd, another one for each connection of the loop
//	 4  fd        descriptor
//	 8  flags
//	10  inlineN   bytes in inline
//	11  state
//	12  in        number of the borrowed input + 1, 0 = none
//	16  out       number of the output queue + 1, 0 = none
//	20  last      coarse ms of the last whole unit, before Established of accept
//	24  since     coarse ms of the pending unit's first byte; of CloseAfterFlush
//	28  idle      own idle timeout in 100 ms, 0 = the server's, idleNever = none
//	30  -
//	32  user      the handler's words
//	48  inline    the start of a unit of up to 16 bytes
//
// Coarse times are the low 32 bits of Loop.Now; differences are right for 49
// days, and no timeout is that long.
type record struct {
	gen     uint32
	fd      int32
	flags   uint16
	inlineN uint8
	state   uint8
	in      uint32
	out     uint32
	last    uint32
	since   uint32
	idle    uint16
	_       uint16
	user    [4]uint32
	inline  [inlineBytes]byte
}

const (
	recordBytes = 64
	inlineBytes = 16

	idleNever = 1<<16 - 1
)

// Flags of a record.
const (
	fRunq        uint16 = 1 << iota // in the run queue: read it although no event comes
	fReadable                       // an event came that was not read to the end (paused, starved)
	fPaused                         // the handler asked not to read
	fHup                            // RDHUP, HUP or ERR seen: read until the end shows
	fBlocked                        // the socket took less than offered: wait for its event
	fWant                           // tell the handler when it takes more
	fHeld                           // Hold: the queue waits
	fDirty                          // in the dirty list: flush at the turn's end
	fPartial                        // since counts for a pending unit
	fStarved                        // in the starved list: no memory to read into
	fEstablished                    // PreTimeout is over
	fEOF                            // the peer sent its end
	fBacklog                        // units wait in the borrowed or inline bytes
	fFlushed                        // closing with everything written
)

// States of a record.
const (
	stFree    uint8 = iota
	stOpen          // both directions
	stFlush         // CloseAfterFlush: no more reading, output drains
	stClosing       // in the reap list: Closed is due, then the descriptor goes
	stLinger        // Closed was called; waiting for the peer's end, see linger
)

// slab holds the records of one loop, outside of the heap, so that idle
// connections do not raise the collector's goal.
type slab struct {
	mempool.Slab[record]
	// gen counts connections, in twos: their generations are odd. None comes
	// twice, so that stale names of shrunk blocks stay stale.
	gen uint32
}

func newSlab() slab { return slab{Slab: mempool.NewSlabOffHeap[record]()} }

// get returns the record of c, or nil if c is stale or was never valid.
func (s *slab) get(c Conn) *record {
	if !s.Has(c.Index) {
		return nil
	}
	r := s.Slot(c.Index)
	if r.gen != c.Gen || r.state == stFree {
		return nil
	}
	return r
}

// take returns a free slot, cleared, with a new generation.
func (s *slab) take() (Conn, *record) {
	i, r := s.Take()
	r.gen, r.state = s.gen|1, stOpen
	s.gen += 2
	return Conn{i, r.gen}, r
}

// put frees the slot of c.
func (s *slab) put(c Conn, r *record) {
	r.state = stFree
	s.Put(c.Index)
}
