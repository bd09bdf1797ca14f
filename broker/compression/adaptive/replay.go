package adaptive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
)

// replayStreams is the most deciders of a log that are replayed, of some 10 KiB
// each.
const replayStreams = 4096

// Replayed says what a replay found.
type Replayed struct {
	Streams, Events, Decisions uint64
	// Differ is how many decisions were made otherwise than recorded, First the
	// number of the first of them, from 1.
	Differ, First uint64
	// Truncated: the log ends within an event, which was not replayed.
	Truncated bool
}

// Replay makes the decisions of a log again, with artefact a, and compares them
// with those recorded. Each is printed to out, if it is not nil, on a line: number
// of the decider, size, arm, reason. The same log and artefact print the same
// bytes on any machine.
//
// Errors: fault.Corrupted for what is not an event log; fault.VersionUnsupported;
// fault.Invalid if it was recorded with another artefact (unless any is true);
// fault.TooLarge for more deciders than 4,096; those of reading and writing.
func Replay(log io.Reader, a *Artefact, out io.Writer, any bool) (Replayed, error) {
	p := &replayer{r: bufio.NewReaderSize(log, 64<<10), a: a}
	var head [logHeadBytes]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return p.Replayed, badLog(fault.Corrupted, "head").WithCause(err)
	}
	if string(head[:len(logMagic)]) != logMagic {
		return p.Replayed, badLog(fault.Corrupted, "magic").WithDetail("this is not a log of decisions")
	}
	if v := head[len(logMagic)]; v != logVersion {
		return p.Replayed, badLog(fault.VersionUnsupported, "version").WithLimit(int64(v), logVersion)
	}
	if h := binary.LittleEndian.Uint64(head[len(logMagic)+1:]); h != a.hash && !any {
		return p.Replayed, badLog(fault.Invalid, "artefact").WithDetail("recorded with %016x, replayed with %016x", h, a.hash)
	}
	if out != nil {
		w := bufio.NewWriter(out)
		p.out = w
		defer w.Flush()
	}
	for {
		kind, err := p.r.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return p.Replayed, err
		}
		err = p.event(kind)
		if err == nil {
			err = p.err
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			p.Truncated = true
			break
		}
		if err != nil {
			return p.Replayed, err
		}
		p.Events++
	}
	if w, ok := p.out.(*bufio.Writer); ok {
		return p.Replayed, w.Flush()
	}
	return p.Replayed, nil
}

type replayer struct {
	Replayed
	r        *bufio.Reader
	a        *Artefact
	out      io.Writer
	deciders []*Decider
	err      error // sticky, of reading within an event
}

func (p *replayer) byte() byte {
	b, err := p.r.ReadByte()
	p.keep(err)
	return b
}

func (p *replayer) keep(err error) {
	if err != nil && p.err == nil {
		p.err = err
	}
}

func (p *replayer) uvarint() uint64 {
	v, err := binary.ReadUvarint(p.r)
	p.keepVarint(err)
	return v
}

func (p *replayer) varint() int64 {
	v, err := binary.ReadVarint(p.r)
	p.keepVarint(err)
	return v
}

// keepVarint: the library's overflow error has no name.
func (p *replayer) keepVarint(err error) {
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = badLog(fault.Corrupted, "number").WithCause(err)
	}
	p.keep(err)
}

func (p *replayer) float() float64 {
	var b [8]byte
	_, err := io.ReadFull(p.r, b[:])
	p.keep(err)
	return math.Float64frombits(binary.LittleEndian.Uint64(b[:]))
}

func (p *replayer) name() string {
	n := p.uvarint()
	if n > nameMax {
		p.keep(badLog(fault.TooLarge, "name").WithLimit(int64(min(n, math.MaxInt64)), nameMax))
		return ""
	}
	b := make([]byte, n)
	_, err := io.ReadFull(p.r, b)
	p.keep(err)
	return string(b)
}

// event replays one. An error of reading is in p.err.
func (p *replayer) event(kind byte) error {
	if kind == 0 || kind >= eventKinds {
		return badLog(fault.Corrupted, "event").WithLimit(int64(kind), eventKinds-1)
	}
	stream := p.uvarint()
	if kind == eventOpened {
		return p.opened(stream)
	}
	if p.err != nil {
		return nil
	}
	if stream >= uint64(len(p.deciders)) {
		return badLog(fault.Corrupted, "decider").WithLimit(int64(min(stream, math.MaxInt64)), int64(len(p.deciders))-1)
	}
	d := p.deciders[stream]
	switch kind {
	case eventConditions:
		var c Conditions
		for i := range readings {
			*c.at(i) = Reading{Value: p.float(), Source: Source(p.byte()), Age: p.varint()}
		}
		if p.err == nil {
			d.SetConditions(c)
		}
	case eventDictionary:
		if b := p.byte(); p.err == nil {
			d.SetDictionary(b == 1)
		}
	case eventDecided:
		return p.decided(stream, d)
	case eventObserved:
		t := Token{regime: uint32(p.uvarint()), arm: Arm(p.byte()), class: p.byte()}
		t.out, t.encode, t.weight, t.price = p.float(), p.float(), p.float(), p.float()
		in, out, encode, decode := p.varint(), p.varint(), p.varint(), p.varint()
		if p.err == nil {
			d.Observe(t, int(in), int(out), encode, decode)
		}
	}
	return nil
}

func (p *replayer) opened(stream uint64) error {
	o := Options{Topic: p.name(), Producer: p.name(), HostScale: p.float(), Arms: ArmSet(p.uvarint()), MinSaving: p.float()}
	if p.err != nil {
		return nil
	}
	if stream != uint64(len(p.deciders)) {
		return badLog(fault.Corrupted, "decider").WithLimit(int64(min(stream, math.MaxInt64)), int64(len(p.deciders)))
	}
	if stream >= replayStreams {
		return badLog(fault.TooLarge, "deciders").WithLimit(int64(stream)+1, replayStreams)
	}
	p.deciders = append(p.deciders, New(p.a, o))
	p.Streams++
	return nil
}

func (p *replayer) decided(stream uint64, d *Decider) error {
	size := p.uvarint()
	var f Features
	if f.Valid = p.byte() == 1; f.Valid {
		v := func() uint16 { return uint16(p.uvarint()) }
		f.Signs = compression.Signs{Pairs: v(), Lanes: v(), Plain: v(), Near: v(), Far: v(), Probes: v()}
	}
	was := Decision{Arm: Arm(p.byte()), Reason: Reason(p.byte()), KeepMost: int(p.varint()), Measure: p.byte() == 1}
	if p.err != nil {
		return nil
	}
	if size > sizeMost {
		return badLog(fault.TooLarge, "size").WithLimit(int64(min(size, math.MaxInt64)), sizeMost)
	}
	now := d.DecideFrom(int(size), f)
	now.Token = Token{}
	p.Decisions++
	if now != was {
		if p.Differ++; p.Differ == 1 {
			p.First = p.Decisions
		}
	}
	if p.out != nil {
		if _, err := fmt.Fprintf(p.out, "%d %d %s %s\n", stream, size, now.Arm, now.Reason); err != nil {
			return err
		}
	}
	return nil
}
