package partition

import (
	"fmt"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Read appends to dst the runs of whole batches from the one that holds from,
// below the visible end. It may read the disk: never call it on an event loop
// for more than what ReadTail lost a moment ago.
func (p *Partition) Read(from message.Offset, maxBytes int, dst []storage.Run) ([]storage.Run, error) {
	p.open.RLock()
	defer p.open.RUnlock()
	visible := p.Visible()
	if from >= visible {
		return dst, nil
	}
	return p.log.Read(from, visible, maxBytes, dst)
}

// StartKind says where a subscription begins.
type StartKind uint8

// The places a subscription may begin at.
const (
	StartEarliest StartKind = iota
	StartLatest
	StartOffset
	StartTime
)

// Resolve turns a start into an offset between the log start and the visible
// end. For StartTime the value is in µs and may need a look at the disk.
func (p *Partition) Resolve(kind StartKind, value int64) (message.Offset, error) {
	start, visible := p.log.Start(), p.Visible()
	switch kind {
	case StartEarliest:
		return start, nil
	case StartLatest:
		return visible, nil
	case StartOffset:
		if value < int64(start) || value > int64(visible) {
			return 0, storage.OutOfRange(fmt.Sprintf("subscribe %s/%d", p.opts.Topic, p.opts.ID.Index), message.Offset(value), start, visible)
		}
		return message.Offset(value), nil
	case StartTime:
		p.open.RLock()
		off, err := p.log.OffsetForTime(value)
		p.open.RUnlock()
		if err != nil {
			return 0, err
		}
		return min(off, visible), nil
	default:
		return 0, fault.New(fault.Invalid, "subscribe").WithField("start").WithDetail("unknown start %d", kind)
	}
}

// LastAppend is the latest append time given to a batch, µs since 1970; 0 if
// there was none.
func (p *Partition) LastAppend() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.st.lastTime
}

// Start is the oldest readable offset.
func (p *Partition) Start() message.Offset { return p.log.Start() }

// SetRetention sets what Retain applies, also whenever a segment is sealed.
// Unlimited in both keeps everything.
func (p *Partition) SetRetention(r storage.Retention) {
	if r.MaxAge <= 0 && r.MaxBytes <= 0 {
		p.retain.Store(nil)
		return
	}
	p.retain.Store(&r)
}

// Retain applies the retention to sealed segments below the visible end, moves
// the log start and returns the bytes removed. After Close it does nothing.
func (p *Partition) Retain(now time.Time) (int64, error) {
	r := p.retain.Load()
	if r == nil {
		return 0, nil
	}
	p.retainMu.Lock()
	defer p.retainMu.Unlock()
	p.open.RLock()
	defer p.open.RUnlock()
	if p.closed.Load() {
		return 0, nil
	}
	n, err := p.log.Retain(*r, now.UnixMicro(), p.Visible())
	if n > 0 {
		start := p.log.Start()
		p.mu.Lock()
		p.st.Trimmed(start)
		p.mu.Unlock()
	}
	return n, err
}

// trim runs Retain on a committer goroutine. An error is met again, and told, by
// the next periodic Retain.
func (p *Partition) trim() (again bool) {
	_, _ = p.Retain(time.Now())
	return false
}

// Shrink gives back memory that holds nothing: of the tail what cannot be read
// any more, and of a partition that took no batch since the last Shrink its
// queues. To be called now and then.
func (p *Partition) Shrink() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail.shrink()
	if quiet := p.shrunk == p.st.next; !quiet {
		p.shrunk = p.st.next
		return
	}
	p.moves = nil
	if !p.writing {
		p.queue, p.spare, p.done = pending{}, pending{}, nil
	}
	if !p.syncing {
		p.synced = nil
	}
	for _, r := range []*waitRing{&p.acks, &p.dups} {
		if r.n == 0 {
			*r = waitRing{}
		}
	}
}

// LogStats are the engine's figures for this partition.
func (p *Partition) LogStats() storage.LogStats { return p.log.Stats() }
