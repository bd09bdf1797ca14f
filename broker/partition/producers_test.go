package partition

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// TestProducersSurviveACrash runs random histories: several producers that send
// the next batch, an old one again or one too far ahead, that come back under a
// higher epoch; appends that succeed or find the disk full; segments sealed in
// the middle of an append. Then the power fails. Whoever goes by a snapshot and
// the batches behind it must know the same as who reads the whole log, take no
// stored batch for a new one and refuse no next one.
func TestProducersSurviveACrash(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() || raceEnabled {
		seeds = 50
	}
	for seed := range seeds {
		h := newHistory(seed)
		if err := h.run(); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, h.story.String())
		}
	}
}

// history is one run, with a model of what is right: plain lists.
type history struct {
	rng     *rand.Rand
	st      *State
	senders []*sender
	queue   []stored // admitted, not written
	log     []stored // written
	durable int      // batches of log
	snaps   []snap
	now     int64
	story   bytes.Buffer
}

// stored is a batch with its place; of the model, so nothing is packed.
type stored struct {
	env  message.Envelope
	a    Admission
	from *sender
}

type snap struct {
	below message.Offset
	bytes []byte
}

// sender is a producer as its client sees it.
type sender struct {
	id    uint64
	epoch uint16
	next  uint32   // sequence after everything it sent
	sent  []stored // that the partition took, of this epoch, in order
	again bool     // its first batch was taken back
}

func newHistory(seed uint64) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 1)), st: NewState(0, 0, 0, 0, message.AckAccepted), now: 1000}
	for id := range 1 + h.rng.IntN(6) {
		h.senders = append(h.senders, &sender{id: uint64(id + 1), next: uint32(h.rng.Uint64() >> h.rng.IntN(64))})
	}
	return h
}

func (h *history) run() error {
	for range 20 + h.rng.IntN(300) {
		h.now += int64(h.rng.IntN(50)) - 10
		var err error
		switch n := h.rng.IntN(20); {
		case n < 11:
			err = h.send(h.senders[h.rng.IntN(len(h.senders))])
		case n < 12:
			h.plain()
		case n < 18:
			h.append(h.rng.IntN(5) > 0)
		default:
			h.durable = len(h.log)
		}
		if err != nil {
			return err
		}
	}
	for range 3 {
		if err := h.crash(); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) envelope(s *sender, sequence, count uint32) message.Envelope {
	return message.Envelope{ProducerID: s.id, ProducerEpoch: s.epoch, BaseSequence: sequence, Count: count, LastOffsetDelta: count - 1}
}

// plain is a batch of no producer.
func (h *history) plain() {
	e := message.Envelope{Count: 3, LastOffsetDelta: 2}
	a, _ := h.st.Admit(&e, h.now)
	h.queue = append(h.queue, stored{env: e, a: a})
}

// send offers a batch of one kind and holds the answer against the model.
func (h *history) send(s *sender) error {
	count := uint32(1 + h.rng.IntN(4))
	kind := h.rng.IntN(10)
	if kind == 0 && len(s.sent) > 0 { // a restart of the client
		s.epoch++
		s.next, s.sent, s.again = 0, nil, false
	}
	first := len(s.sent) == 0 && !s.again
	switch {
	case kind == 1 && len(s.sent) > 0: // one sent before
		old := s.sent[h.rng.IntN(len(s.sent))]
		a, err := h.st.Admit(&old.env, h.now)
		fmt.Fprintf(&h.story, "again id=%d seq=%d: %v %v\n", s.id, old.env.BaseSequence, a, err)
		return wantDuplicate(s.sent, old, a, err)
	case kind == 2 && !first: // one that skips some
		e := h.envelope(s, s.next+1+uint32(h.rng.IntN(3)), count)
		a, err := h.st.Admit(&e, h.now)
		fmt.Fprintf(&h.story, "ahead id=%d seq=%d: %v %v\n", s.id, e.BaseSequence, a, err)
		if !errors.Is(err, fault.OutOfSequence) {
			return fmt.Errorf("a batch of producer %d that skips some: %v, %v", s.id, a, err)
		}
		return nil
	}
	e := h.envelope(s, s.next, count)
	a, err := h.st.Admit(&e, h.now)
	fmt.Fprintf(&h.story, "next id=%d epoch=%d seq=%d: %v %v\n", s.id, s.epoch, e.BaseSequence, a, err)
	if err != nil || a.Duplicate {
		return fmt.Errorf("the next batch of producer %d, sequence %d: %v, %v", s.id, e.BaseSequence, a, err)
	}
	b := stored{env: e, a: a, from: s}
	b.env.BaseOffset, b.env.AppendTime = a.Base, a.Time
	h.queue = append(h.queue, b)
	s.sent, s.next = append(s.sent, b), s.next+count
	return nil
}

// wantDuplicate: one of the last five is answered as stored, an older one is
// refused, and none is admitted.
func wantDuplicate(sent []stored, old stored, a Admission, err error) error {
	recent := sent[max(0, len(sent)-window):]
	for _, b := range recent {
		if b.a == old.a {
			if want := (Admission{Base: b.a.Base, End: b.a.End, Time: b.a.Time, Duplicate: true}); a != want || err != nil {
				return fmt.Errorf("sequence %d again: %v, %v; want %v", old.env.BaseSequence, a, err, want)
			}
			return nil
		}
	}
	if !errors.Is(err, fault.DuplicateSequence) {
		return fmt.Errorf("sequence %d from before the window again: %v, %v", old.env.BaseSequence, a, err)
	}
	return nil
}

// append writes the queue or, on a full disk, takes it back. Some appends seal a
// segment on the way, at the end of any of their batches or before the first.
func (h *history) append(ok bool) {
	if len(h.queue) == 0 {
		return
	}
	n := len(h.queue) // what is admitted later is not in this append
	if h.rng.IntN(3) == 0 {
		n = 1 + h.rng.IntN(n)
	}
	var taken []snap
	if h.rng.IntN(3) == 0 {
		below := h.queue[h.rng.IntN(n)].a.Base
		taken = append(taken, snap{below, h.st.AppendSnapshot(nil, below)})
	}
	if ok {
		h.st.Written(h.queue[n-1].a.End)
		h.log = append(h.log, h.queue[:n]...)
		h.queue = h.queue[n:]
		h.snaps = append(h.snaps, taken...)
		fmt.Fprintf(&h.story, "append %d, sealed %v\n", n, taken)
		return
	}
	h.st.Cut(h.queue[0].a.Base)
	fmt.Fprintf(&h.story, "full at %d\n", h.queue[0].a.Base)
	for i := len(h.queue) - 1; i >= 0; i-- {
		b := h.queue[i]
		s := b.from
		if s == nil || s.epoch != b.env.ProducerEpoch {
			continue
		}
		s.sent = s.sent[:len(s.sent)-1]
		s.next = b.env.BaseSequence
		s.again = len(s.sent) == 0
	}
	// Clients whose epoch began in what is lost here go on as they are: their
	// first batch of it is still the next.
	h.queue = nil
}

// crash keeps the durable batches and some of the others.
func (h *history) crash() error {
	log := h.log[:h.durable+h.rng.IntN(len(h.log)-h.durable+1)]
	end := message.Offset(0)
	if len(log) > 0 {
		end = log[len(log)-1].a.End
	}
	full := NewState(0, end, end, 0, message.AckAccepted)
	for i := range log {
		full.producers.replayed(&log[i].env)
	}
	want := full.producers.appendSnapshot(nil, math.MaxInt64)
	for _, sn := range h.snaps {
		if sn.below > end {
			continue // its segment is not whole
		}
		for _, from := range []message.Offset{sn.below, 0} { // 0: an engine that replays too much
			st := NewState(0, end, end, 0, message.AckAccepted)
			if err := st.LoadSnapshot(sn.bytes); err != nil {
				return err
			}
			for i := range log {
				if log[i].a.Base >= from {
					st.producers.replayed(&log[i].env)
				}
			}
			if got := st.producers.appendSnapshot(nil, math.MaxInt64); !bytes.Equal(got, want) {
				return fmt.Errorf("crash at %d with the snapshot below %d, replayed from %d:\n%s\nthe whole log:\n%s",
					end, sn.below, from, describe(st, math.MaxInt64), describe(full, math.MaxInt64))
			}
		}
	}
	return h.afterCrash(full, log, end, want)
}

// afterCrash asks what the recovered state says to every stored batch and to the
// next one of each producer.
func (h *history) afterCrash(full *State, log []stored, end message.Offset, image []byte) error {
	byID := map[uint64][]stored{}
	for _, b := range log {
		if id := b.env.ProducerID; id != 0 {
			byID[id] = append(byID[id], b)
		}
	}
	for id, all := range byID {
		last := all[len(all)-1].env
		for i := range all {
			a, err := full.Admit(&all[i].env, 0)
			switch {
			case all[i].env.ProducerEpoch < last.ProducerEpoch:
				if !errors.Is(err, fault.Fenced) {
					return fmt.Errorf("after the crash at %d a batch of an older epoch: %v, %v", end, a, err)
				}
			case err == nil && !a.Duplicate:
				return fmt.Errorf("after the crash at %d a stored batch was admitted again: %v", end, a)
			case i >= len(all)-window && (err != nil || a.Base != all[i].a.Base || a.End != all[i].a.End || a.Time != all[i].a.Time):
				return fmt.Errorf("after the crash at %d producer %d sequence %d: %v, %v", end, id, all[i].env.BaseSequence, a, err)
			}
		}
		next := last
		next.BaseSequence += last.Count
		if a, err := full.Admit(&next, 0); err != nil || a.Duplicate {
			return fmt.Errorf("after the crash at %d the next batch of producer %d: %v, %v", end, id, a, err)
		}
	}
	full.Cut(end)
	if got := full.producers.appendSnapshot(nil, math.MaxInt64); !bytes.Equal(got, image) {
		return fmt.Errorf("the probes left a trace:\n%s", describe(full, math.MaxInt64))
	}
	return nil
}

func TestOldestProducersAreForgottenFirst(t *testing.T) {
	s := NewState(0, 0, 0, 0, message.AckAccepted)
	send := func(id uint64, sequence uint32) (Admission, error) {
		return s.Admit(&message.Envelope{ProducerID: id, BaseSequence: sequence, Count: 1}, 0)
	}
	for id := range uint64(producersMax + 1) {
		if _, err := send(id+1, 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.producers.by); n > producersMax || n < producersMax*8/10 {
		t.Fatalf("%d producers are remembered", n)
	}
	for _, id := range []uint64{producersMax + 1, producersMax, producersMax / 2} {
		if a, err := send(id, 0); err != nil || !a.Duplicate {
			t.Errorf("producer %d: %v, %v", id, a, err)
		}
	}
	if a, err := send(1, 55); err != nil || a.Duplicate {
		t.Errorf("the forgotten producer: %v, %v", a, err)
	}
	// All of it is taken back, forgotten producers too: nobody was ever written.
	s.Cut(0)
	if n := len(s.producers.by); n > producersMax {
		t.Errorf("%d producers after the cut", n)
	}
	if a, err := send(1, 56); !errors.Is(err, fault.OutOfSequence) {
		t.Errorf("a producer whose only batch was taken back: %v, %v", a, err)
	}
	b := s.AppendSnapshot(nil, 0)
	if err := s.LoadSnapshot(b); err != nil || len(s.producers.by) != 0 {
		t.Errorf("%d producers, %v", len(s.producers.by), err)
	}
}

// A producer forgotten while its batches are on the way, and back before they
// are refused, is asked for the oldest of them.
func TestAForgottenProducersBatchesAreTakenBack(t *testing.T) {
	s := NewState(0, 0, 0, 0, message.AckAccepted)
	for _, sequence := range []uint32{10, 11} {
		if _, err := s.Admit(&message.Envelope{ProducerID: 1, BaseSequence: sequence, Count: 1}, 0); err != nil {
			t.Fatal(err)
		}
	}
	delete(s.producers.by, 1)
	if _, err := s.Admit(&message.Envelope{ProducerID: 1, BaseSequence: 12, Count: 1}, 0); err != nil {
		t.Fatal(err)
	}
	s.Cut(0)
	for _, sequence := range []uint32{12, 11} {
		if _, err := s.Admit(&message.Envelope{ProducerID: 1, BaseSequence: sequence, Count: 1}, 0); !errors.Is(err, fault.OutOfSequence) {
			t.Errorf("sequence %d: %v", sequence, err)
		}
	}
	if a, err := s.Admit(&message.Envelope{ProducerID: 1, BaseSequence: 10, Count: 1}, 0); err != nil || a.Base != 0 {
		t.Errorf("sequence 10: %v, %v", a, err)
	}
}

// The list of what can be taken back is as long as the queue, not as the log.
func TestWrittenBatchesLeaveTheUndoList(t *testing.T) {
	s := NewState(0, 0, 0, 0, message.AckAccepted)
	next := uint32(0)
	admit := func() message.Offset {
		a, err := s.Admit(&message.Envelope{ProducerID: 1, BaseSequence: next, Count: 1}, 0)
		if err != nil {
			t.Fatal(err)
		}
		next++
		return a.End
	}
	for range 10 {
		admit()
	}
	for range 20_000 { // never empty
		end := admit()
		s.Written(end - 10)
	}
	if n, c := len(s.producers.log)-s.producers.head, cap(s.producers.log); n != 10 || c > 4*keepEntries {
		t.Errorf("%d entries for 10 batches on their way, capacity %d", n, c)
	}
	for range 20_000 {
		admit()
	}
	s.Written(s.next)
	s.Written(admit())
	if c := cap(s.producers.log); c > 4*keepEntries {
		t.Errorf("capacity %d after a burst", c)
	}
}

// FuzzSnapshot: no panic, memory in proportion, and what is accepted is written
// again as the same bytes.
func FuzzSnapshot(f *testing.F) {
	s := NewState(0, 0, 0, 0, message.AckAccepted)
	f.Add(s.AppendSnapshot(nil, 0))
	for i := range uint32(9) {
		for _, id := range []uint64{1, 2, 1 << 63} {
			if _, err := s.Admit(&message.Envelope{ProducerID: id, BaseSequence: i * 2, Count: 2, LastOffsetDelta: 2, ProducerEpoch: 3}, int64(i)); err != nil {
				f.Fatal(err)
			}
		}
	}
	b := s.AppendSnapshot(nil, math.MaxInt64)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(append(bytes.Clone(b), 0))
	for _, i := range []int{0, 9, 13, 21, 22, 26, 30, 36} {
		c := bytes.Clone(b)
		c[i] ^= 0x81
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewState(0, 0, 0, math.MinInt64, message.AckAccepted)
		err := s.LoadSnapshot(b)
		if err != nil {
			if !errors.Is(err, fault.Corrupted) || len(s.producers.by) != 0 {
				t.Fatalf("%v, and %d producers", err, len(s.producers.by))
			}
			return
		}
		if got := s.AppendSnapshot(nil, math.MaxInt64); !bytes.Equal(got, b) {
			t.Fatalf("%x became %x", b, got)
		}
	})
}

// Golden bytes of the snapshot: it lies on disks.
func TestSnapshotBytes(t *testing.T) {
	s := NewState(0, 0x1122, 0x1122, 0, message.AckAccepted)
	if _, err := s.Admit(&message.Envelope{ProducerID: 0x0102030405060708, ProducerEpoch: 0x0a0b, BaseSequence: 0x11121314, Count: 0x21, LastOffsetDelta: 0x41}, 0x5152535455565758); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("% x", s.AppendSnapshot(nil, math.MaxInt64))
	const want = "01 58 57 56 55 54 53 52 51 01 00 00 00 " +
		"08 07 06 05 04 03 02 01 01 " +
		"14 13 12 11 21 00 00 00 42 00 00 00 0b 0a 22 11 00 00 00 00 00 00 58 57 56 55 54 53 52 51"
	if got != want {
		t.Errorf("snapshot\n%s, want\n%s", got, want)
	}
}
