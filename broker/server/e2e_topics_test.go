package server

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// Retention moves the log start. Who asks for less, or is overtaken, is told the
// range that is left; the earliest start is where that begins.
func TestRetentionOvertakesConsumers(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 2, TailBytes: 1, RetentionEvery: 10 * time.Millisecond})
		a := join(t, b)
		var info wire.TopicInfo
		a.call(0, wire.OpTopicCreate, &wire.TopicCreate{Name: "t", SegmentBytes: topic.SegmentBytesMin}, &info)
		overtaken := join(t, b)
		h, _ := overtaken.subscribe(wire.Subscribe{Topic: "t"})
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: b.opts.Engine.Levels().Strongest()})
		const batches, messages = 100, 4
		for range batches {
			p.send(0, messages, 1<<10)
		}
		p.drain()
		a.call(0, wire.OpTopicAlter, &wire.TopicAlter{Name: "t", Mask: wire.AlterRetentionBytes, RetentionBytes: 64 << 10}, &info)
		if info.RetentionBytes != 64<<10 || info.RetentionMs == 0 {
			t.Fatalf("altered to %+v", info)
		}
		var ok wire.ListOffsetsOK
		for began := time.Now(); ok.LogStart < batches*messages/2; {
			a.call(0, wire.OpListOffsets, &wire.ListOffsets{Topic: "t"}, &ok)
			if time.Since(began) > patience {
				t.Fatalf("the log starts at %d", ok.LogStart)
			}
		}
		if ok.Offset != ok.LogStart || ok.LogEnd != batches*messages || ok.TimestampUs == 0 {
			t.Fatalf("earliest: %+v", ok)
		}
		left := fmt.Sprintf("[%d, %d)", ok.LogStart, ok.LogEnd)
		out := func(p *peer, corr uint32, offset message.Offset) wire.Error {
			t.Helper()
			e := p.refused(corr, fault.OutOfRange, "offset")
			if rangeOf(e) != left || e.Value != int64(offset) {
				t.Fatalf("%+v; the range is %s", e, left)
			}
			return e
		}
		out(a, a.ask(0, wire.OpSubscribe, &wire.Subscribe{Topic: "t", Start: wire.StartOffset, StartValue: int64(ok.LogStart) - 1}), ok.LogStart-1)
		out(a, a.ask(0, wire.OpFetch, &wire.Fetch{Topic: "t", Offset: ok.LogEnd + 1}), ok.LogEnd+1)
		overtaken.grant(h, 1<<20)
		if e := out(overtaken, 0, 0); e.Bits != fault.BitClosesHandle {
			t.Fatalf("the overtaken one: %+v", e)
		}
		overtaken.ping()

		r := join(t, b).reader()
		r.follow("t", 1, wire.StartEarliest, 1<<20)
		if r.at[0] != ok.LogStart {
			t.Fatalf("earliest is %d, the log starts at %d", r.at[0], ok.LogStart)
		}
		r.next[[2]uint32{0, 1}] = uint64(ok.LogStart)
		r.until(int(ok.LogEnd - ok.LogStart))
	})
}

// A batch that the disk damaged is said to be lost, once, by offsets; everything
// before and behind it is delivered.
func TestDamageIsAGap(t *testing.T) {
	s := setting{store: "disklog"}
	dir := t.TempDir()
	b := s.start(t, Options{Loops: 1, Engine: s.open(t, dir)})
	b.topic("t", topic.Config{SegmentBytes: topic.SegmentBytesMin})
	p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckDurable})
	const batches, messages = 60, 4
	for range batches {
		p.send(0, messages, 500)
		p.drain()
	}
	b.end()

	segs, err := filepath.Glob(filepath.Join(dir, "logs", "*", "*.seg"))
	if err != nil || len(segs) < 4 {
		t.Fatalf("segments: %v, %v", segs, err)
	}
	slices.Sort(segs)
	name := segs[len(segs)/2]
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// A body in the middle of a segment in the middle.
	at := 64 + 3*(len(p.batch)) + message.EnvelopeBytes + 200
	copy(data[at:], "damaged by the device, said the test")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}

	b = s.start(t, Options{Loops: 1, Engine: s.open(t, dir)})
	r := join(t, b).reader()
	r.follow("t", 1, wire.StartEarliest, 1<<20)
	var gap wire.Error
	for r.at[0] < batches*messages {
		h, body := r.frame()
		if h.Opcode != wire.OpError.Response() {
			r.delivered(h, body)
			continue
		}
		if h.Correlation != 0 || r.parts[h.Handle] != 0 || gap.Code != 0 {
			t.Fatalf("%s", describe(h, body))
		}
		if err := gap.Parse(body); err != nil || gap.Code != fault.Corrupted || gap.Field != "offset" || gap.Bits != 0 {
			t.Fatalf("%+v, %v", gap, err)
		}
		if gap.Value != int64(r.at[0]) || gap.Limit != gap.Value+messages {
			t.Fatalf("lost [%d, %d), delivered until %d", gap.Value, gap.Limit, r.at[0])
		}
		r.at[0] = message.Offset(gap.Limit)
		r.next[[2]uint32{0, 1}] = uint64(gap.Limit)
	}
	if gap.Code == 0 || r.got != (batches-1)*messages {
		t.Fatalf("%d messages, gap %+v", r.got, gap)
	}
	// A fetch from the lost batch says so, with what comes next; an offset may
	// still be asked for.
	a := join(t, b)
	corr := a.ask(0, wire.OpFetch, &wire.Fetch{Topic: "t", Offset: message.Offset(gap.Value + 1), MinBytes: 1, MaxWaitMs: 1000})
	if e := a.refused(corr, fault.Corrupted, "offset"); e.Limit != gap.Limit || e.Opcode != wire.OpFetch {
		t.Fatalf("%+v", e)
	}
	var ok wire.ListOffsetsOK
	a.call(0, wire.OpListOffsets, &wire.ListOffsets{Topic: "t", Start: wire.StartOffset, StartValue: gap.Value + 1}, &ok)
	if ok.LogEnd != batches*messages || ok.TimestampUs != 0 {
		t.Fatalf("%+v", ok)
	}
	var m wire.Metadata
	a.call(0, wire.OpMetadata, &wire.MetadataRequest{}, &m)
	if h := m.Topics[0].Partitions[0].Health; h != wire.HealthCorrupted {
		t.Fatalf("health %d", h)
	}
	q := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckDurable})
	q.next[0] = batches * messages
	q.send(0, messages, 500)
	q.drain()
	r.until(batches * messages)
}

// metadata asks for all topics and puts the frames of the answer together.
func (p *peer) metadata() (topics []wire.TopicInfo, frames int) {
	p.Helper()
	corr := p.ask(0, wire.OpMetadata, &wire.MetadataRequest{})
	for {
		h, b := p.frame()
		var m wire.Metadata
		if h.Opcode != wire.OpMetadata.Response() || h.Correlation != corr || m.Parse(b) != nil {
			p.Fatalf("%s, instead of metadata", describe(h, b))
		}
		topics = append(topics, m.Topics...)
		if frames++; h.Flags&wire.FlagMore == 0 {
			return topics, frames
		}
	}
}

// A thousand topics are created, described in several frames, also to a peer
// that takes them slowly, and some are deleted.
func TestThousandTopics(t *testing.T) {
	on(t, func(t *testing.T, s setting) {
		topics, partitions := 1000, uint32(5)
		if s.store == "disklog" { // each log is a directory and several syncs
			topics, partitions = 20, 2
		} else if raceEnabled {
			topics, partitions = 250, 20
		}
		b := s.start(t, Options{Loops: 1, Network: tinySockets})
		a := join(t, b)
		const window = 10 // unanswered: a connection may have 16
		name := func(i int) string { return fmt.Sprintf("topic-%04d-%s", i, strings.Repeat("x", 100)) }
		wait := map[uint32]bool{}
		for i := 0; i < topics || len(wait) > 0; {
			if i < topics && len(wait) < window {
				wait[a.ask(0, wire.OpTopicCreate, &wire.TopicCreate{Name: name(i), Partitions: partitions})] = true
				i++
				continue
			}
			h, body := a.frame()
			if !wait[h.Correlation] || new(wire.TopicInfo).Parse(body) != nil {
				t.Fatalf("%s", describe(h, body))
			}
			delete(wait, h.Correlation)
		}

		slow := dial(t, b, 4<<10)
		slow.chunk = 2 << 10
		slow.greet(&wire.Hello{})
		for _, p := range []*peer{a, slow} {
			got, frames := p.metadata()
			if len(got) != topics || topics == 1000 && frames < 2 {
				t.Fatalf("%d topics in %d frames", len(got), frames)
			}
			for i, ti := range got {
				if ti.Name != name(i) || len(ti.Partitions) != int(partitions) || ti.Err != fault.None {
					t.Fatalf("topic %d is %q with %d partitions, err %v", i, ti.Name, len(ti.Partitions), ti.Err)
				}
			}
			p.ping()
		}
		for i := range 10 {
			a.call(0, wire.OpTopicDelete, &wire.TopicDelete{Name: name(i)}, &wire.Empty{})
		}
		if got, _ := a.metadata(); len(got) != topics-10 || got[0].Name != name(10) {
			t.Fatalf("%d topics are left", len(got))
		}
	}, setting{evloop.EngineEpoll, "memlog"}, setting{evloop.EngineStd, "disklog"})
}

// A topic that is deleted under its producers and consumers ends them by name,
// not their connections; the same name can be used again, from offset 0.
func TestDeleteInUse(t *testing.T) {
	onAll(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 2})
		a := join(t, b)
		ids := map[[16]byte]bool{}
		for range 4 {
			var info wire.TopicInfo
			a.call(0, wire.OpTopicCreate, &wire.TopicCreate{Name: "t", Partitions: 2}, &info)
			if ids[info.ID] {
				t.Fatal("the id was used before")
			}
			ids[info.ID] = true
			ws := workers{t: t}
			running := make(chan struct{}, 4)
			for i := range uint32(2) {
				ws.start("producer", func(f failer) {
					p := join(f, b).producer(i, wire.OpenProducer{Topic: "t", Ack: b.opts.Engine.Levels().Strongest()})
					over := false
					p.onError = func(_ uint32, e *wire.Error) {
						if e.Code != fault.NotFound || e.Bits&fault.BitClosesConnection != 0 {
							f.Fatalf("produce: %v", e.Err())
						}
						over = true
					}
					for !over {
						for p.inFlight < 8 && !over {
							p.send(i, 10, 200)
						}
						if p.take(); p.acked == 20 {
							running <- struct{}{}
						}
					}
					p.drain()
					p.ping()
				})
				ws.start("consumer", func(f failer) {
					r := join(f, b).reader()
					r.follow("t", 2, wire.StartEarliest, 1<<20)
					told := false
					for len(r.parts) > 0 {
						h, body := r.frame()
						if h.Opcode != wire.OpError.Response() {
							if r.delivered(h, body); !told && r.got > 200 {
								told = true
								running <- struct{}{}
							}
							continue
						}
						var e wire.Error
						if e.Parse(body) != nil || e.Code != fault.NotFound || e.Field != "topic" || h.Correlation != 0 || e.Bits != fault.BitClosesHandle {
							f.Fatalf("%s", describe(h, body))
						}
						delete(r.parts, h.Handle)
					}
					r.ping()
				})
			}
			for range 4 {
				<-running
			}
			a.call(0, wire.OpTopicDelete, &wire.TopicDelete{Name: "t"}, &wire.Empty{})
			ws.wait()
			a.refused(a.ask(0, wire.OpTopicDelete, &wire.TopicDelete{Name: "t"}), fault.NotFound, "topic")
		}
	})
}
