package client

import (
	"math/bits"
	"sync"
)

// frame is the memory of one received frame, from a framePool.
type frame struct {
	b     []byte // the whole frame, header included
	class int
}

// framePool keeps the memory of frames for reuse in classes of powers of two.
// A page touched for the first time costs far more than receiving into it, so
// a consumer at work should always meet warm memory. At most keepBytes are
// kept; what is handed out is bounded by the consumers' credit. Safe for
// concurrent use.
type framePool struct {
	mu   sync.Mutex
	free [frameClasses][]*frame // guarded by mu
	kept int                    // bytes in free; guarded by mu
}

const (
	frameLeastLog = 12 // 4 KiB
	frameMostLog  = 26 // 64 MiB, wire.MaxMaxFrame
	frameClasses  = frameMostLog - frameLeastLog + 1

	// keepBytes is as much as the default credit of 16 partitions.
	keepBytes = 16 << 20
)

// get returns a frame of n bytes, 0 < n <= wire.MaxMaxFrame; the content is
// arbitrary.
func (p *framePool) get(n int) *frame {
	class := max(bits.Len(uint(n-1)), frameLeastLog) - frameLeastLog
	p.mu.Lock()
	if list := p.free[class]; len(list) > 0 {
		f := list[len(list)-1]
		p.free[class] = list[:len(list)-1]
		p.kept -= cap(f.b)
		p.mu.Unlock()
		f.b = f.b[:n]
		return f
	}
	p.mu.Unlock()
	return &frame{b: make([]byte, n, 1<<(class+frameLeastLog)), class: class}
}

// put takes back a frame that nobody refers to any more.
func (p *framePool) put(f *frame) {
	p.mu.Lock()
	if p.kept+cap(f.b) <= keepBytes {
		p.free[f.class] = append(p.free[f.class], f)
		p.kept += cap(f.b)
	}
	p.mu.Unlock()
}
