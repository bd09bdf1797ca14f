package server

import (
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// Producers that came first and send give of their credit to those who wait, and
// grow back when there is room again.
func TestBusyProducersShareTheBudget(t *testing.T) {
	for _, level := range []message.AckLevel{message.AckAccepted, message.AckNone} {
		t.Run("ack="+level.String(), func(t *testing.T) {
			const total = 8 << 20
			r := newRig(t, Options{ProduceBytes: total, ProducerBytes: total})
			r.topic("t", 1, message.AckAccepted)
			first := r.open()
			h, ok := r.producer(first, "t", level, false)
			given := int64(ok.Credit)
			if given != total/16 {
				t.Fatalf("the first is given %d", given)
			}
			has := func() int64 {
				_, p := r.l.producerOf(first, h)
				return p.grant
			}
			body := batchOf(t, message.Producer{}, string(make([]byte, 60<<10)), 1)
			spent := int64(len(body)) + int64(len(wire.AppendProduceFrame(nil, wire.Header{}, 0, len(body))))
			var withheld, back int64
			send := func() {
				t.Helper()
				r.produce(first, h, 0, body)
				r.turn()
				if level == message.AckNone {
					return
				}
				var a wire.ProduceOK
				r.answer(first, wire.OpProduce.Response(), &a)
				back = int64(a.Credit)
				withheld += spent - back
				if (back < spent) != (a.Pressure == uint8(wire.CreditMemory)) {
					t.Fatalf("%d of %d bytes return, pressure %d", back, spent, a.Pressure)
				}
			}
			send()
			if has() != given || withheld != 0 {
				t.Fatalf("has %d though nobody waits", has())
			}

			// Others take all there is; five more wait.
			others := r.open()
			var open []uint32
			for waiting := 0; waiting < 5; {
				h, ok := r.producer(others, "t", message.AckAccepted, false)
				open = append(open, h)
				if ok.Credit == 0 {
					waiting++
				}
			}
			for i := 0; len(r.s.budget.waiting) > 0; i++ {
				if i > 100 {
					t.Fatalf("%d wait still; the first has %d", len(r.s.budget.waiting), has())
				}
				send()
			}
			if level == message.AckAccepted && has() != given-withheld {
				t.Errorf("has %d, given %d, withheld %d", has(), given, withheld)
			}
			if has() >= given || has() < grantMin {
				t.Errorf("has %d of %d", has(), given)
			}

			// They go: it grows back to what it was, and no further.
			for _, h := range open {
				r.request(others, h, wire.OpCloseProducer, &wire.CloseProducer{})
			}
			for range 10 {
				send()
			}
			if has() != given || r.s.budget.free != total-given {
				t.Errorf("has %d of %d, %d of the budget are free", has(), given, r.s.budget.free)
			}
			_, p := r.l.producerOf(first, h)
			if level == message.AckAccepted && p.credit != given {
				t.Errorf("credit %d of %d", p.credit, given)
			}
		})
	}
}

// The first producers do not leave the next ones without credit.
func TestManyProducersHaveCredit(t *testing.T) {
	r := newRig(t, Options{}) // the defaults
	r.topic("t", 1, message.AckAccepted)
	c := r.open()
	for i := range 500 {
		if _, ok := r.producer(c, "t", message.AckAccepted, false); ok.Credit < grantMin {
			t.Fatalf("producer %d is given %d", i, ok.Credit)
		}
	}
}
