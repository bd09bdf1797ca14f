package record

import (
	"sync"
	"time"

	"github.com/portask/portask/broker/wire"
)

const (
	// frameMax is larger than any broker takes.
	frameMax = 64 << 20
	// smallMax is the largest frame other than a PRODUCE that is read.
	smallMax = 4 << 10
	// headKept of a PRODUCE tell how many messages it has.
	headKept = 256
	// openMax producers of a connection are remembered.
	openMax = 1 << 14
)

// Tap follows one connection. Client and Server are given what passes, in any
// pieces, before it is passed on; each is for one goroutine.
type Tap struct {
	r              *Recorder
	client, server follower

	mu      sync.Mutex
	asked   map[uint32]uint32 // correlation of OPEN_PRODUCER: topic; guarded by mu
	handles map[uint32]uint32 // handle: topic; guarded by mu
	counted bool              // as not followed; guarded by mu
}

// Tap follows a new connection.
func (r *Recorder) Tap() *Tap {
	t := &Tap{r: r, asked: map[uint32]uint32{}, handles: map[uint32]uint32{}}
	t.client = follower{t: t, skip: -1, want: func(h wire.Header) bool {
		return h.Opcode == wire.OpProduce || h.Opcode == wire.OpOpenProducer && h.Length < smallMax
	}}
	t.server = follower{t: t, want: func(h wire.Header) bool { return false }}
	return t
}

// Client is given what the client sends. p is not kept.
func (t *Tap) Client(p []byte) { t.client.write(p) }

// Server is given what the broker sends. p is not kept.
func (t *Tap) Server(p []byte) { t.server.write(p) }

// follower finds frames in a stream by their headers alone.
type follower struct {
	t    *Tap
	want func(wire.Header) bool // whose payload is to be copied

	lost  bool // it is no longer known where frames begin
	skip  int  // bytes until the next header; -1: the preface comes first
	h     wire.Header
	head  [wire.HeaderBytes]byte
	have  int
	frame []byte // payload that is being copied
	copy  bool
	keep  int  // bytes of it; less than all if there is no room: the messages are only counted
	taken int  // bytes reserved for it
	short bool // there was no room
}

func (f *follower) write(p []byte) {
	for len(p) > 0 && !f.lost {
		switch {
		case f.skip < 0:
			n := copy(f.head[f.have:wire.PrefaceBytes], p)
			p = p[n:]
			if f.have += n; f.have < wire.PrefaceBytes {
				return
			}
			f.have, f.skip = 0, 0
			if _, _, err := wire.ParsePreface(f.head[:wire.PrefaceBytes]); err != nil {
				f.lose()
			}
		case f.skip > 0:
			n := min(f.skip, len(p))
			if f.copy {
				f.frame = append(f.frame, p[:min(n, f.keep-len(f.frame))]...)
			}
			f.skip -= n
			p = p[n:]
			if f.skip == 0 && f.copy {
				f.end()
			}
		default:
			n := copy(f.head[f.have:], p)
			p = p[n:]
			if f.have += n; f.have == len(f.head) {
				f.have = 0
				f.begin()
			}
		}
	}
}

// begin reads a header.
func (f *follower) begin() {
	h, err := wire.ParseHeader(f.head[:], frameMax)
	if err != nil {
		f.lose()
		return
	}
	f.h, f.skip = h, h.FrameBytes()-wire.HeaderBytes
	if h.Opcode == wire.OpOpenProducer|wire.ResponseBit {
		f.t.opened(h)
	}
	if f.copy = f.want(h); !f.copy {
		return
	}
	if f.keep = f.skip; f.skip == 0 {
		f.copy = false
		return
	}
	if h.Opcode != wire.OpProduce {
		return
	}
	// Reserved as a whole, since the length is only what a client says.
	if f.short = !f.t.r.reserve(f.skip); f.short {
		f.keep = min(f.skip, headKept)
	} else {
		f.taken = f.skip
	}
}

// end is that of a frame that was copied.
func (f *follower) end() {
	frame := f.frame
	f.copy, f.frame, f.taken = false, nil, 0
	switch {
	case f.h.Opcode == wire.OpOpenProducer:
		f.t.asks(f.h, frame)
	case !f.short:
		f.t.produces(f.h, frame)
	default:
		f.t.r.drop(frame)
	}
}

// lose gives up on the stream, which passes all the same.
func (f *follower) lose() {
	f.lost, f.frame = true, nil
	t := f.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.counted {
		t.counted = true
		t.r.unread.Add(1)
	}
}

// opened is a handle given by the broker.
func (t *Tap) opened(h wire.Header) {
	t.mu.Lock()
	defer t.mu.Unlock()
	topic, ok := t.asked[h.Correlation]
	if !ok {
		return
	}
	delete(t.asked, h.Correlation)
	if len(t.handles) < openMax {
		t.handles[h.Handle] = topic
	}
}

// asks is an OPEN_PRODUCER.
func (t *Tap) asks(h wire.Header, payload []byte) {
	var x wire.OpenProducer
	if x.Parse(payload) != nil {
		return
	}
	topic := t.r.topic(x.Topic)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.asked) < openMax {
		t.asked[h.Correlation] = topic
	}
}

// produces is a PRODUCE, whose payload is kept.
func (t *Tap) produces(h wire.Header, payload []byte) {
	t.mu.Lock()
	topic := t.handles[h.Handle]
	t.mu.Unlock()
	t.r.offer(job{int64(time.Since(t.r.began)), topic, payload})
}

// Close gives back what a frame that did not arrive whole had reserved. Client
// and Server are not called any more.
func (t *Tap) Close() {
	t.r.waiting.Add(-int64(t.client.taken))
	t.client.taken = 0
}
