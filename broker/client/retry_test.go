package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/wire"
)

// TestLostAck: the broker stores, the answer is lost, the connection too. The
// client sends again and learns that it was stored.
func TestLostAck(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage)
		prime(t, p)
		produces := 0
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode == wire.OpProduce {
					if produces++; produces <= 3 {
						_, _ = s.answer(h, payload) // stored, never said
						if produces == 3 {
							_ = s.nc.Close()
						}
						return true
					}
				}
				return false
			}
		})
		var o outcomes
		sendAll(t, p, &o, "a", "b", "c", "d", "e", "f", "g")
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.want(t, "a @1 dup, b @2 dup, c @3 dup, d @4, e @5, f @6, g @7")
		if got := b.values("orders", 0); strings.Join(got, "") != "0abcdefg" {
			t.Errorf("stored %v", got)
		}
		if s := p.Stats(); s.Duplicates != 3 || s.Retries < 3 || s.Buffered != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestRetryKeepsOrder: a retryable error in the middle of a pipeline; those
// behind it are refused for the gap and sent again after it.
func TestRetryKeepsOrder(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage)
		b.set(func() { b.hook = refuseProduces(2, 7) })
		var o outcomes
		sendAll(t, p, &o, "a", "b", "c", "d", "e", "f", "g", "h")
		began := time.Now()
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.want(t, "a @0, b @1, c @2, d @3, e @4, f @5, g @6, h @7")
		if took := time.Since(began); took < 50*time.Millisecond {
			t.Errorf("the broker asked to wait 50 ms, the client waited %v", took)
		}
		if got := strings.Join(b.values("orders", 0), ""); got != "abcdefgh" {
			t.Errorf("stored %s", got)
		}
	})
}

// TestRetryWithoutIdempotence: all arrives and callbacks keep their order,
// though the log does not.
func TestRetryWithoutIdempotence(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage, WithIdempotence(false))
		b.set(func() { b.hook = refuseProduces(2, 7) })
		var o outcomes
		sendAll(t, p, &o, "a", "b", "c", "d", "e", "f", "g", "h")
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := o.String(); len(got) != len("a @0, b @1, c @2, d @3, e @4, f @5, g @6, h @7") || !slices.IsSorted(strings.Split(got, ", ")) {
			t.Errorf("callbacks %s", got)
		}
		stored := b.values("orders", 0)
		slices.Sort(stored)
		if got := strings.Join(stored, ""); got != "abcdefgh" {
			t.Errorf("stored %s", got)
		}
	})
}

// refuseProduces is a hook that refuses the produces with these numbers for
// want of space.
func refuseProduces(numbers ...int) func(*session, wire.Header, []byte) bool {
	n := 0
	return func(s *session, h wire.Header, _ []byte) bool {
		if h.Opcode != wire.OpProduce {
			return false
		}
		if n++; slices.Contains(numbers, n) {
			s.later(refuse(h, fault.New(fault.StorageFull, "produce").WithRetryAfter(50*time.Millisecond)))
			return true
		}
		return false
	}
}

// TestRefusedBatchLeavesNoGap: one batch is refused for good; those behind it
// take its place in the sequence.
func TestRefusedBatchLeavesNoGap(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage)
		produces := 0
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode != wire.OpProduce {
					return false
				}
				if produces++; produces == 3 {
					s.later(refuse(h, fault.New(fault.Invalid, "produce").WithField("value")))
					return true
				}
				return false
			}
		})
		var o outcomes
		sendAll(t, p, &o, "a", "b", "c", "d", "e", "f", "g")
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.want(t, "a @0, b @1, c invalid, d @2, e @3, f @4, g @5")
		if got := strings.Join(b.values("orders", 0), ""); got != "abdefg" {
			t.Errorf("stored %s", got)
		}
	})
}

// TestFatal: errors after which nothing more can be sent.
func TestFatal(t *testing.T) {
	for _, code := range []fault.Code{fault.Fenced, fault.OutOfSequence} {
		t.Run(code.String(), func(t *testing.T) {
			story(t, 1, func(t *testing.T, b *fake) {
				c := b.client()
				defer c.Close()
				p := producer(t, c, perMessage)
				produces := 0
				b.set(func() {
					b.hook = func(s *session, h wire.Header, payload []byte) bool {
						if h.Opcode != wire.OpProduce {
							return false
						}
						if produces++; produces >= 2 {
							s.later(refuse(h, fault.New(code, "produce")))
							return true
						}
						return false
					}
				})
				var o outcomes
				sendAll(t, p, &o, "a", "b", "c")
				if err := p.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				o.want(t, fmt.Sprintf("a @0, b %s, c %s", code, code))
				if err := p.SendAsync(t.Context(), value("d"), nil); !errors.Is(err, code) {
					t.Errorf("the next send: %v", err)
				}
			})
		})
	}
}

// TestCredit: the client never sends without credit (the fake fails the test
// if it does), goes on when some comes, and says what it waits for.
func TestCredit(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.grant = 300
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage, WithMaxBuffered(2000))
		var hold [][]byte
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode != wire.OpProduce {
					return false
				}
				out, _ := s.answer(h, payload)
				var ok wire.ProduceOK
				if err := ok.Parse(wire.PayloadOf(out[0])); err != nil {
					t.Error(err)
				}
				ok.Credit, ok.Pressure = 0, uint8(wire.CreditDiskLow)
				hold = append(hold, reply(h, &ok))
				s.producers[h.Handle].credit -= int64(h.FrameBytes())
				s.later(hold[len(hold)-1])
				return true
			}
		})
		var o outcomes
		for i := range 15 {
			if err := p.SendAsync(t.Context(), value(strings.Repeat("x", 50)), o.cb(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := len(hold); n != 2 {
			t.Fatalf("%d produces of about 170 bytes with a credit of 300, want 2", n)
		}
		for i := 0; ; i++ {
			err := p.SendAsync(ctxFor(t, time.Second), value(strings.Repeat("x", 500)), nil)
			if err == nil {
				continue
			}
			if !errors.Is(err, fault.Timeout) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "disk low") {
				t.Errorf("a full buffer: %v", err)
			}
			if s := p.Stats(); s.CreditReason != wire.CreditDiskLow || s.Buffered > 2600 {
				t.Errorf("stats %+v", s)
			}
			break
		}
		b.set(func() {
			for s := range b.sessions {
				for h, ph := range s.producers {
					ph.credit += 1 << 20
					s.later(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpCredit, Handle: h}, &wire.Credit{Bytes: 1 << 20}))
				}
			}
		})
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(o.String(), "@"); n != 15 {
			t.Errorf("%d of 15 were stored: %s", n, o.String())
		}
	})
}

// TestDeliveryTimeout: no answers. Callbacks get a timeout in order; when the
// broker answers again, the sequence has no hole.
func TestDeliveryTimeout(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage, WithDeliveryTimeout(time.Second))
		prime(t, p)
		var held []func()
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode != wire.OpProduce || held == nil {
					return false
				}
				payload = slices.Clone(payload)
				held = append(held, func() {
					out, _ := s.answer(h, payload)
					s.later(out...)
				})
				return true
			}
			held = []func(){}
		})
		var o outcomes
		sendAll(t, p, &o, "a", "b", "c", "d", "e", "f", "g")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		o.want(t, "a timeout, b timeout, c timeout, d timeout, e timeout, f timeout, g timeout")
		sendAll(t, p, &o, "h")
		b.set(func() {
			for _, f := range held {
				f()
			}
			held = nil
		})
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Five were on the wire and are stored after all; f and g never left.
		if got := strings.Join(b.values("orders", 0), ""); got != "0abcdeh" {
			t.Errorf("stored %s", got)
		}
		synctest.Wait()
		if s := p.Stats(); s.Failed != 7 || s.Buffered != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestDeadAnswers: a broker that answers heartbeats but not produces loses the
// connection after the request timeout.
func TestDeadAnswers(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client(WithTimeouts(time.Second, 3*time.Second))
		defer c.Close()
		p := producer(t, c)
		mute := true
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode == wire.OpProduce && mute {
					_, _ = s.answer(h, payload)
					mute = false
					return true
				}
				return false
			}
		})
		began := time.Now()
		r, err := p.Send(t.Context(), value("v"))
		if err != nil || !r.Duplicate {
			t.Errorf("receipt %+v, error %v", r, err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
