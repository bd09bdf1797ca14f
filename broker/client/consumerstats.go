package client

import (
	"time"

	"github.com/portask/portask/broker/message"
)

// ConsumerStats counts since the consumer was opened.
//
// A delivery is pending from the moment the client has it, is processed between
// the Poll that returns it and its Release, and is acknowledged then: its credit
// goes back to the broker. The three sums are over those that are released.
type ConsumerStats struct {
	Deliveries uint64 // polled and released
	Bytes      uint64 // of them, as on the wire
	Messages   uint64 // iterated; a message that is iterated again counts again
	Expired    uint64 // messages passed over, see SkipExpired
	Damaged    uint64 // encoded batches that could not be read
	Discarded  uint64 // deliveries that nobody polled: Seek, Close, or nothing new in them

	Waiting    time.Duration // until they were polled
	Processing time.Duration // from Poll to Release
	Held       time.Duration // both

	Pending int // deliveries that wait to be polled now
}

// Stats returns the counters.
func (k *Consumer) Stats() ConsumerStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.stats
	for _, it := range k.queue.items[k.queue.head:] {
		if it.frame != nil {
			s.Pending++
		}
	}
	return s
}

// discard drops what was received and is not to be polled. mu is held.
func (k *Consumer) discard(it *item, now time.Time) {
	if it.frame == nil {
		return
	}
	k.c.frames.put(it.frame)
	change(&it.life, message.Dead, now)
	k.stats.Discarded++
}

// to changes the state of the delivery.
func (d *delivery) to(s message.State, now time.Time) { change(&d.life, s, now) }

func change(l *message.Lifecycle, s message.State, now time.Time) {
	if err := l.To(s, now); err != nil {
		panic("client: a delivery: " + err.Error())
	}
}

// count notes how a delivery of n bytes ended. mu is held.
func (d *delivery) count(n int, now time.Time) {
	s := &d.k.stats
	switch {
	case d.life.State() == message.Pending: // there was nothing new in it
		d.to(message.Dead, now)
		s.Discarded++
		return
	case d.messages == 0 && d.expired > 0:
		d.to(message.Expired, now)
	default:
		d.to(message.Acknowledged, now)
	}
	s.Deliveries++
	s.Bytes += uint64(n)
	s.Messages += d.messages
	s.Expired += d.expired
	s.Damaged += d.damaged
	s.Processing += d.life.Processing(now)
	s.Held += d.life.Age(now)
	s.Waiting += d.life.Age(now) - d.life.Processing(now)
}
