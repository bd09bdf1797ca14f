package partition

import "github.com/portask/portask/broker/message"

// movesKept is how many moves of the visible end a partition remembers. A loop
// delivers within its turn, which sees one or two; 16 leave room for a partition
// that eight loops produce to. What is older gets the time of the oldest kept
// one, that is, a delay too short; the figure is for those who keep up.
const movesKept = 16 // power of two

// moves remembers when the visible end moved lately. A batch became visible with
// the first move that reached behind it.
type moves struct {
	end [movesKept]message.Offset
	at  [movesKept]int64
	n   uint64 // moves in all; the newest is at (n-1)%movesKept
}

// moved notes that the visible end is now end; called with mu held.
func (p *Partition) moved(end message.Offset, now int64) {
	if p.opts.Committer.opts.Latency == nil || now == 0 {
		return
	}
	if p.moves == nil {
		p.moves = new(moves)
	}
	m := p.moves
	m.end[m.n%movesKept], m.at[m.n%movesKept] = end, now
	m.n++
}

// visibleSince returns when the message at off became visible, by latency.Now;
// 0 if that is not known: it is not visible, or not measured. Called with mu held.
func (p *Partition) visibleSince(off message.Offset) int64 {
	if p.moves == nil {
		return 0
	}
	m, at := p.moves, int64(0)
	for i := m.n; i > 0 && i+movesKept > m.n; i-- {
		if m.end[(i-1)%movesKept] <= off {
			break
		}
		at = m.at[(i-1)%movesKept]
	}
	return at
}
