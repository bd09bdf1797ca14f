package mempool

// Sizer chooses the size of a buffer that is filled again and again, such as a
// receive chunk, from how full it gets. The sizes are powers of two from Least
// to Most, and the first is Base.
//
// It doubles when one fill took the whole room and that was at least half of the
// size: more was waiting. It halves when for sizerHold no fill was larger than a
// quarter of it: what comes would fit the half with room to spare, so one step
// up does not follow one step down. Time is the caller's, in ms of any clock
// that does not go back: a busy loop and a nearly idle one shrink equally fast.
//
// Not safe for concurrent use.
type Sizer struct {
	least, most int
	size        int
	largest     int   // fill since since
	since       int64 // 0: no fill yet
}

// sizerHold is how long small fills must go on, in ms: longer than the pause
// between two waves of traffic that share a second.
const sizerHold = 2000

// NewSizer returns a Sizer that begins at base. Each size is rounded up to a
// power of two, and base put between the others.
func NewSizer(least, base, most int) Sizer {
	least, most = ClassBytes(least), ClassBytes(most)
	return Sizer{least: least, most: most, size: min(max(ClassBytes(base), least), most)}
}

// Size is the size that the next buffer should have.
func (s *Sizer) Size() int { return s.size }

// Fill notes that n bytes came into room at the time now.
func (s *Sizer) Fill(n, room int, now int64) {
	if n == room && room >= s.size/2 {
		s.size, s.largest, s.since = min(2*s.size, s.most), 0, now
		return
	}
	s.largest = max(s.largest, n)
	if s.since == 0 {
		s.since = now
	} else if now-s.since >= sizerHold {
		s.settle(now)
	}
}

// Idle notes the time where nothing came.
func (s *Sizer) Idle(now int64) {
	if s.since != 0 && now-s.since >= sizerHold {
		s.settle(now)
	}
}

func (s *Sizer) settle(now int64) {
	if s.largest <= s.size/4 {
		s.size = max(s.size/2, s.least)
	}
	s.largest, s.since = 0, now
}

// Limit makes the next buffer n bytes, as long as nothing asks for more: what
// could be had when there was no memory for Size.
func (s *Sizer) Limit(n int) { s.size = min(max(n, s.least), s.most) }
