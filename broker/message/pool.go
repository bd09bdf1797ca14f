package message

import "github.com/portask/portask/broker/message/id"

// Pool makes messages out of earlier ones, each with an identifier and the time
// of its making: no allocation, and little more than the price of reading the
// clock. It belongs to one goroutine at a time, as a [id.Generator] does; who
// sends from several has a Pool in each. Make one with NewPool.
type Pool struct {
	ids  *id.Generator
	free []*Message
}

// poolFree bounds the free messages of a Pool, of 128 bytes each: more than
// anybody holds who sends one after the other.
const poolFree = 64

// NewPool returns an empty Pool with a generator of its own.
func NewPool() *Pool { return &Pool{ids: id.NewGenerator(), free: make([]*Message, 0, poolFree)} }

// New returns a message with a new identifier, greater than all before, and the
// present time, and nothing else. It belongs to the caller until Free.
func (p *Pool) New() *Message {
	var m *Message
	if n := len(p.free) - 1; n >= 0 {
		m, p.free = p.free[n], p.free[:n]
	} else {
		m = new(Message)
	}
	m.ID, m.Timestamp = p.ids.Stamp()
	return m
}

// Free takes back a message that nobody uses any more; it need not have come
// from New, and one that is not freed is the collector's, as any other. What its
// fields point to is not taken: it may be used on.
func (p *Pool) Free(m *Message) {
	*m = Message{}
	if len(p.free) < poolFree {
		p.free = append(p.free, m)
	}
}
