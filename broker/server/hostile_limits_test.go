package server

import (
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// What a connection may have open is bounded, each kind by name; what is closed
// makes room, and other connections are not concerned.
func TestHandlesOfAConnectionAreBounded(t *testing.T) {
	r := newRig(t, Options{ProduceBytes: grantMin, ProducerBytes: grantMin})
	r.topic("t", 1, message.AckAccepted)
	c := r.open()

	// Fetches that wait.
	for range fetchesPerConn {
		r.request(c, 0, wire.OpFetch, &wire.Fetch{Topic: "t", MinBytes: 1, MaxWaitMs: 60_000})
	}
	r.request(c, 0, wire.OpFetch, &wire.Fetch{Topic: "t", MinBytes: 1, MaxWaitMs: 60_000})
	if e := r.refusal(c, fault.ResourceExhausted, "fetches"); e.Limit != fetchesPerConn || e.Bits&fault.BitRetryable == 0 {
		t.Fatalf("%+v", e)
	}
	other := r.open()
	h, _ := r.producer(other, "t", message.AckNone, false)
	r.produce(other, h, 0, batchOf(t, message.Producer{}, "x", 1))
	for range fetchesPerConn {
		if hd, _ := r.frame(c); hd.Opcode != wire.OpFetch.Response() {
			t.Fatalf("%v instead of the answer to a fetch", hd.Opcode)
		}
	}
	if u := r.users[c]; u[wordState] != stateOpen || u[wordFrame]/oneFetch != 0 || u[wordSubs] != 0 {
		t.Fatalf("left in the session: %v", u)
	}

	// Producers that wait for credit; the one of the other connection has it all.
	var producers []uint32
	for range waitingMax {
		h, ok := r.producer(c, "t", message.AckAccepted, false)
		if ok.Credit != 0 {
			t.Fatalf("granted %d", ok.Credit)
		}
		producers = append(producers, h)
	}
	r.request(c, 0, wire.OpOpenProducer, &wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
	if e := r.refusal(c, fault.ResourceExhausted, "producers"); e.Limit != waitingMax {
		t.Fatalf("%+v", e)
	}
	// From the middle, both ends, and the rest.
	for _, k := range []int{7, 0, len(producers) - 1} {
		r.request(c, producers[k], wire.OpCloseProducer, &wire.CloseProducer{})
		r.answer(c, wire.OpCloseProducer.Response(), &wire.Empty{})
	}
	if n := len(r.s.budget.waiting); n != waitingMax-3 {
		t.Fatalf("%d producers wait", n)
	}

	// Subscriptions, up to the bound of all handles.
	var subs []uint32
	for len(producers)-3+len(subs) < handlesPerConn {
		h, _ := r.subscribe(c, &wire.Subscribe{Topic: "t"})
		subs = append(subs, h)
	}
	r.request(c, 0, wire.OpSubscribe, &wire.Subscribe{Topic: "t"})
	if e := r.refusal(c, fault.ResourceExhausted, "handles"); e.Limit != handlesPerConn {
		t.Fatalf("%+v", e)
	}
	r.subscribe(other, &wire.Subscribe{Topic: "t"})
	for _, k := range []int{len(subs) / 2, 0, len(subs) - 1} {
		r.request(c, subs[k], wire.OpUnsubscribe, &wire.Unsubscribe{})
		r.answer(c, wire.OpUnsubscribe.Response(), &wire.Empty{})
	}
	r.subscribe(c, &wire.Subscribe{Topic: "t"})
	r.end(c, nil)
	if s, p := r.l.subs.Live(), r.l.prods.Live(); s != 1 || p != 1 || len(r.s.budget.waiting) != 0 {
		t.Fatalf("left: %d subscriptions, %d producers, %d in line", s, p, len(r.s.budget.waiting))
	}
}

// A connection that asks faster than it is answered is not read for a while; its
// requests are neither refused nor lost.
func TestManyRequestsOfOneConnection(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1})
		b.topic("t", topic.Config{Partitions: 3})
		p := join(t, b)
		const requests = 3000
		var all []byte
		for i := range uint32(requests) {
			h := wire.Header{Opcode: wire.OpMetadata, Correlation: i + 1}
			switch i % 3 {
			case 1:
				h.Opcode = wire.OpListOffsets
				all = wire.AppendFrame(all, h, &wire.ListOffsets{Topic: "t", Partition: i % 2})
			case 2:
				h.Opcode = wire.OpSubscribe
				all = wire.AppendFrame(all, h, &wire.Subscribe{Topic: "t", Start: wire.StartTime, StartValue: 1})
			default:
				all = wire.AppendFrame(all, h, &wire.MetadataRequest{})
			}
		}
		ws := workers{t: t}
		ws.start("writer", func(f failer) {
			if _, err := p.c.Write(all); err != nil {
				f.Fatalf("write: %v", err)
			}
		})
		answered := map[uint32]bool{}
		for len(answered) < requests {
			h, body := p.frame()
			if !h.Opcode.IsResponse() || h.Opcode == wire.OpError.Response() || answered[h.Correlation] {
				t.Fatalf("%s", describe(h, body))
			}
			answered[h.Correlation] = true
		}
		ws.wait()
		p.ping()
	})
}
