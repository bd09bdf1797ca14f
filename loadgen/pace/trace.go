package pace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Item is one message of a trace.
type Item struct {
	At   int64  // ns since the trace's beginning
	Size uint32 // of the value, bytes
	// Topic is the number of its topic, from 1; 0: not said.
	Topic uint32
	Key   uint64 // a hash of the key; 0: none
}

// Trace is recorded arrivals. Immutable.
type Trace struct {
	items    []Item
	recorded *Recorded // nil: not of a recorder, or it was killed
}

var errNoMessages = errors.New("a trace without messages")

const (
	// TraceHead is the first line of a trace: the format's name and version.
	TraceHead = "#portask-trace 1"
	// TraceItemsMax bounds a trace: 240 MB of memory.
	TraceItemsMax = 10_000_000
	// TraceTopicsMax is the largest number of a topic.
	TraceTopicsMax = 4096
	// traceSizeMax is the largest value a trace may name.
	traceSizeMax = 1 << 30
	// traceLineMax bounds a line.
	traceLineMax = 256
)

// NewTrace makes a trace of items, which it keeps. Times must not decrease.
func NewTrace(items []Item) (*Trace, error) {
	if len(items) > TraceItemsMax {
		return nil, fmt.Errorf("trace of %d messages: want at most %d", len(items), TraceItemsMax)
	}
	last := int64(0)
	for i := range items {
		if items[i].At < last {
			return nil, fmt.Errorf("message %d is due at %d ns, after one at %d", i, items[i].At, last)
		}
		last = items[i].At
	}
	return &Trace{items: items}, nil
}

// ReadTrace reads a trace: text, see WriteTo, or what a TraceWriter wrote. An
// error names the line or the message.
func ReadTrace(r io.Reader) (*Trace, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if isRecorded(b) {
		b.Discard(len(ptraceHead))
		return readRecorded(b)
	}
	in := bufio.NewScanner(b)
	in.Buffer(make([]byte, traceLineMax), traceLineMax)
	var items []Item
	last := int64(0)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSuffix(in.Text(), "\r")
		if n == 1 {
			if line != TraceHead {
				return nil, fmt.Errorf("line 1: %q: want %q", line, TraceHead)
			}
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if len(items) == TraceItemsMax {
			return nil, fmt.Errorf("line %d: more than %d messages", n, TraceItemsMax)
		}
		x, err := parseItem(line)
		if err == nil && x.At < last {
			err = fmt.Errorf("due at %d ns, after one at %d", x.At, last)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		last = x.At
		items = append(items, x)
	}
	if err := in.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("a line of more than %d bytes", traceLineMax)
		}
		return nil, err
	}
	if len(items) == 0 {
		return nil, errNoMessages
	}
	return &Trace{items: items}, nil
}

func parseItem(line string) (Item, error) {
	at, rest, ok := strings.Cut(line, ",")
	size, key, ok2 := strings.Cut(rest, ",")
	key, topic, ok3 := strings.Cut(key, ",")
	if !ok || !ok2 {
		return Item{}, fmt.Errorf("%q: want time,size,key or time,size,key,topic", line)
	}
	t, err := strconv.ParseInt(at, 10, 64)
	if err != nil || t < 0 {
		return Item{}, fmt.Errorf("time %q: want ns, from 0", at)
	}
	n, err := strconv.ParseUint(size, 10, 32)
	if err != nil || n > traceSizeMax {
		return Item{}, fmt.Errorf("size %q: want bytes, at most %d", size, traceSizeMax)
	}
	k, err := strconv.ParseUint(key, 16, 64)
	if err != nil {
		return Item{}, fmt.Errorf("key %q: want a hash in hexadecimal digits", key)
	}
	var of uint64
	if ok3 {
		if of, err = strconv.ParseUint(topic, 10, 32); err != nil || of < 1 || of > TraceTopicsMax {
			return Item{}, fmt.Errorf("topic %q: want a number from 1 to %d", topic, TraceTopicsMax)
		}
	}
	return Item{At: t, Size: uint32(n), Topic: uint32(of), Key: k}, nil
}

// OpenTrace reads a file.
func OpenTrace(name string) (*Trace, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe could wait without end
		return nil, fmt.Errorf("%s: is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := ReadTrace(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// WriteTo writes the trace as text, one message a line: time in ns, size in
// bytes, hash of the key in hexadecimal digits and, if it is said, the number of
// the topic, separated by commas. The first line is TraceHead; others that begin
// with # are comments.
func (t *Trace) WriteTo(w io.Writer) (int64, error) {
	out := bufio.NewWriter(w)
	n, err := fmt.Fprintln(out, TraceHead)
	total := int64(n)
	for i := range t.items {
		if err != nil {
			break
		}
		x := &t.items[i]
		topic := ""
		if x.Topic > 0 {
			topic = fmt.Sprintf(",%d", x.Topic)
		}
		n, err = fmt.Fprintf(out, "%d,%d,%x%s\n", x.At, x.Size, x.Key, topic)
		total += int64(n)
	}
	return total, errors.Join(err, out.Flush())
}

// Recorded is what the trace's recorder said at its end, false if it said nothing:
// the trace is text, or ends where the recorder was killed.
func (t *Trace) Recorded() (Recorded, bool) {
	if t.recorded == nil {
		return Recorded{}, false
	}
	return *t.recorded, true
}

// Shape is the trace's times alone: sizes, keys and topics are not said.
func (t *Trace) Shape() *Trace {
	x := &Trace{items: make([]Item, len(t.items))}
	for i := range t.items {
		x.items[i].At = t.items[i].At
	}
	return x
}

// Topics is the largest number of a topic, 0 if none is said.
func (t *Trace) Topics() int {
	n := uint32(0)
	for i := range t.items {
		n = max(n, t.items[i].Topic)
	}
	return int(n)
}

// Keyed reports whether any message has a key.
func (t *Trace) Keyed() bool {
	return slices.ContainsFunc(t.items, func(x Item) bool { return x.Key != 0 })
}

// Span is the time of the last message, ns.
func (t *Trace) Span() int64 { return t.items[len(t.items)-1].At }

// Item is the ith message.
func (t *Trace) Item(i int) Item { return t.items[i] }

// Len is the number of messages.
func (t *Trace) Len() int { return len(t.items) }

// Rate is the mean, messages a second, as recorded.
func (t *Trace) Rate() float64 {
	span := t.items[len(t.items)-1].At - t.items[0].At
	return float64(len(t.items)) / math.Max(float64(span)/1e9, 1e-3)
}

// Sizes are the smallest and the largest value's.
func (t *Trace) Sizes() (least, most uint32) {
	least = math.MaxUint32
	for i := range t.items {
		least, most = min(least, t.items[i].Size), max(most, t.items[i].Size)
	}
	return least, most
}

// before is the number of messages due before ns.
func (t *Trace) before(ns int64) int {
	return sort.Search(len(t.items), func(i int) bool { return t.items[i].At >= ns })
}
