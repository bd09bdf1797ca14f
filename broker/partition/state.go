package partition

import (
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// State is the order and visibility of one partition: which offset comes next,
// which batches a producer has already sent, what is with the operating system
// (written), what is on the device (durable), and what consumers may see. It
// has no clock, no I/O and no lock: events go in as method calls, effects come
// out as results, and the caller (Partition) carries them out.
//
// The marks are exclusive and ordered:
//
//	start <= durable <= written <= next
//
// next moves at Admit, written at Written, durable at Synced. The visible end
// (the high-water mark) is durable or written, after the topic's visibility.
type State struct {
	start      message.Offset
	next       message.Offset
	written    message.Offset
	durable    message.Offset
	lastTime   int64 // µs; append times never go backwards
	visibility message.AckLevel
	fence      error // sticky; nothing is admitted any more
	producers  producers
}

// NewState starts from what an engine recovered: the log bounds, its durable
// end, the append time of its last batch and the producers seen in it.
func NewState(start, end, durable message.Offset, lastTime int64, visibility message.AckLevel) *State {
	s := &State{start: start, next: end, written: end, durable: durable, lastTime: lastTime, visibility: visibility}
	s.producers.init()
	return s
}

// Admission is the answer to a batch that may enter, or already has.
type Admission struct {
	Base, End message.Offset
	Time      int64 // append time, µs
	Duplicate bool  // the batch is in the log, or on its way: only its ack is owed
}

// Admit gives the batch its offsets and append time, or refuses it.
//
// A batch of an idempotent producer (ProducerID != 0) must carry the sequence
// that follows the last one admitted; one of the last few batches sent again is
// a duplicate and is answered with the offsets of the original. The scheme is
// Kafka's idempotent producer (KIP-98), with the window of its five batches.
//
// Errors: the fence; of a producer fault.Fenced (an older epoch),
// fault.OutOfSequence (a gap, or a batch from before what is known) and
// fault.DuplicateSequence (stored before the window).
func (s *State) Admit(e *message.Envelope, now int64) (Admission, error) {
	if s.fence != nil {
		return Admission{}, s.fence
	}
	if e.ProducerID != 0 {
		dup, ok, err := s.producers.check(e)
		if err != nil {
			return Admission{}, err
		}
		if ok {
			return dup, nil
		}
	}
	if now < s.lastTime {
		now = s.lastTime
	}
	s.lastTime = now
	a := Admission{Base: s.next, End: s.next + message.Offset(e.LastOffsetDelta) + 1, Time: now}
	s.next = a.End
	if e.ProducerID != 0 {
		s.producers.add(e, a)
	}
	return a, nil
}

// Written moves the written mark: everything below end is at `accepted`.
func (s *State) Written(end message.Offset) {
	if end > s.next || end < s.written {
		panic("partition: written mark outside the admitted range")
	}
	s.written = end
	s.producers.settled(end)
}

// Cut takes back the admissions at and above from, newest first, after the
// engine refused them whole (a full disk). The producers are then as they were
// before, so that the same batches may be sent again, in the same order and no
// other.
func (s *State) Cut(from message.Offset) {
	if from < s.written {
		panic("partition: cut below the written mark")
	}
	s.next = from
	s.producers.cut(from)
}

// Synced moves the durable mark.
func (s *State) Synced(end message.Offset) {
	if end > s.written {
		end = s.written
	}
	if end > s.durable {
		s.durable = end
	}
}

// Fence refuses everything from now on with err.
func (s *State) Fence(err error) {
	if s.fence == nil {
		s.fence = err
	}
}

// Trimmed moves the log start after retention removed batches.
func (s *State) Trimmed(start message.Offset) {
	if start > s.start {
		s.start = start
	}
}

// Visible is the exclusive end of what consumers may read.
func (s *State) Visible() message.Offset {
	if s.visibility == message.AckDurable {
		return s.durable
	}
	return s.written
}

// Reached reports whether everything below end is at the level.
func (s *State) Reached(level message.AckLevel, end message.Offset) bool {
	switch level {
	case message.AckNone:
		return true
	case message.AckAccepted:
		return end <= s.written
	default:
		return end <= s.durable
	}
}

// NeedsSync reports whether a sync would move the durable mark.
func (s *State) NeedsSync() bool { return s.durable < s.written && s.fence == nil }

// errFenced names the partition's failure for those who come later.
func errFenced(cause error) error {
	return fault.New(fault.StorageFailed, "append").WithDetail("the partition is fenced until the broker is restarted").WithCause(cause)
}
