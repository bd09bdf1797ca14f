package partition

import (
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Read appends to dst the runs of whole batches from the one that holds from,
// below the visible end. It may read the disk: never call it on an event loop
// for more than what ReadTail lost a moment ago.
func (p *Partition) Read(from message.Offset, maxBytes int, dst []storage.Run) ([]storage.Run, error) {
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
			return 0, fault.New(fault.OutOfRange, "subscribe").WithField("offset").
				WithDetail("offset %d is outside [%d, %d] of %s/%d", value, start, visible, p.opts.Topic, p.opts.ID.Index)
		}
		return message.Offset(value), nil
	case StartTime:
		off, err := p.log.OffsetForTime(value)
		if err != nil {
			return 0, err
		}
		return min(off, visible), nil
	default:
		return 0, fault.New(fault.Invalid, "subscribe").WithField("start").WithDetail("unknown start %d", kind)
	}
}

// Start is the oldest readable offset.
func (p *Partition) Start() message.Offset { return p.log.Start() }

// Retain applies the retention to sealed segments below the visible end and
// moves the log start.
func (p *Partition) Retain(r storage.Retention, now time.Time) (int64, error) {
	n, err := p.log.Retain(r, now.UnixMicro(), p.Visible())
	if n > 0 {
		p.mu.Lock()
		p.st.Trimmed(p.log.Start())
		p.mu.Unlock()
	}
	return n, err
}

// LogStats are the engine's figures for this partition.
func (p *Partition) LogStats() storage.LogStats { return p.log.Stats() }
