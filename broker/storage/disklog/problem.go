package disklog

import (
	"fmt"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Class says what is wrong with a part of a file.
type Class uint8

// The classes. FooterMissing and what follows are no damage: a crash, or the
// engine itself, leaves them.
const (
	BatchHeader    Class = iota + 1 // a batch's header does not check
	BatchBody                       // a batch's section or body does not check
	BatchMissing                    // offsets are missing between two batches, or at a segment's end
	BatchCut                        // the file ends within a batch
	SegmentHeader                   // a segment's header does not check
	SegmentFooter                   // a sealed segment's footer does not check
	SegmentMissing                  // offsets are missing between two segments, or at an end of the log
	SegmentForeign                  // a segment belongs to another log or place
	SegmentOverlap                  // two segments claim the same offsets
	SegmentUnknown                  // a segment's id is lost, so none of its batches can be checked
	SegmentSlack                    // bytes behind the last batch of a zeroed segment are not zero
	DurableRecord                   // one of the two records of the durable file does not check
	DurableFile                     // neither record checks, or the file is missing
	SnapshotFile                    // the snapshot that was kept from a deleted segment does not check
	MetaFile                        // a blob of metadata does not check
	FormatFile                      // FORMAT does not check or is missing
	FooterMissing                   // a sealed segment has no footer: it is rebuilt
	GapRecorded                     // messages were lost earlier, and the log says so
	TornTail                        // bytes behind the last batch of a log, from a crash
	TornSaved                       // a file of batches that a recovery cut off
	UnknownFile                     // a name that is none of the engine's
	classEnd
)

var classNames = [classEnd]string{
	BatchHeader: "damaged batch header", BatchBody: "damaged batch body", BatchMissing: "missing batches",
	BatchCut: "batch cut short", SegmentHeader: "damaged segment header", SegmentFooter: "damaged segment footer",
	SegmentMissing: "missing segment", SegmentForeign: "foreign segment", SegmentOverlap: "overlapping segments",
	SegmentUnknown: "unreadable segment", SegmentSlack: "damaged segment slack",
	DurableRecord: "damaged durable record", DurableFile: "lost durable file",
	SnapshotFile: "damaged snapshot", MetaFile: "damaged metadata", FormatFile: "damaged format file",
	FooterMissing: "missing footer", GapRecorded: "recorded gap", TornTail: "torn tail", TornSaved: "saved torn tail", UnknownFile: "unknown file",
}

// String returns the class in words: "damaged batch body".
func (c Class) String() string {
	if c > 0 && c < classEnd {
		return classNames[c]
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Damage reports whether the class means that the device, or a hand, changed
// what was written. The others are left by crashes.
func (c Class) Damage() bool { return c < FooterMissing }

// Problem is one thing that is wrong, exactly.
type Problem struct {
	Class Class
	File  string // path below the engine's directory
	Pos   int64  // first byte concerned
	Len   int64  // bytes concerned, 0 if they are not there
	// Offsets lost are [From, Next); none if they are equal.
	From, Next message.Offset
	Detail     string
}

// String is one line that names class, file and position.
func (p Problem) String() string {
	s := fmt.Sprintf("%s: %s at position %d, %d bytes", p.File, p.Class, p.Pos, p.Len)
	if p.From < p.Next {
		s += fmt.Sprintf(", messages [%d, %d)", p.From, p.Next)
	}
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	return s
}

// problemError ends the opening of a log of which nothing can be made.
type problemError struct{ Problem }

func (e *problemError) Error() string { return e.String() }

// Unwrap returns fault.Corrupted.
func (e *problemError) Unwrap() error { return fault.Corrupted }
