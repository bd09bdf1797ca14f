package client

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message"
)

// With ids each message gets one, later than all before, for the time of the
// call; what the application set stays.
func TestIDs(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithIDs(true))
		k := consumer(t, c, From(Earliest))
		own := ulid.MustParse("01HF7YAT00TVQJ4TKTZ6K9XQ5D")
		var sent []time.Time
		for i := range 20 {
			m := message.Message{Value: []byte{byte(i)}}
			switch i % 5 {
			case 3:
				m.ID = own
			case 4:
				m.Timestamp = 7
			}
			sent = append(sent, time.Now())
			if _, err := p.Send(t.Context(), &m); err != nil {
				t.Fatal(err)
			}
			if m.ID != own && !m.ID.IsZero() {
				t.Fatal("the caller's message was changed")
			}
			time.Sleep(100 * time.Millisecond)
		}
		var last ulid.ULID
		for n := 0; n < len(sent); {
			batch, err := k.Poll(ctxFor(t, time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			for m, err := range batch.Messages() {
				if err != nil {
					t.Fatal(err)
				}
				wantTime := sent[n].UnixMicro()
				if n%5 == 4 {
					wantTime = 7
				}
				if m.Timestamp != wantTime {
					t.Errorf("message %d: timestamp %d, want %d", n, m.Timestamp, wantTime)
				}
				if n%5 == 3 {
					if m.ID != own {
						t.Errorf("message %d: id %v", n, m.ID)
					}
				} else {
					if m.ID.Compare(last) <= 0 || m.ID.Time() != uint64(sent[n].UnixMilli()) {
						t.Errorf("message %d: id %v after %v, at %v", n, m.ID, last, sent[n])
					}
					last = m.ID
				}
				n++
			}
			batch.Release()
		}
	})
}

func TestClientsHaveNamesOfTheirOwn(t *testing.T) {
	a, b := defaults().name, defaults().name
	if a == b || !strings.HasPrefix(a, "portask-go-") || len(a) != len("portask-go-")+8 {
		t.Errorf("%q and %q", a, b)
	}
}

// A batch's life is timed from its first message over the wire to the answer.
func TestTimesOfBatches(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithLinger(10*time.Millisecond))
		var o outcomes
		time.Sleep(time.Second)
		sendAll(t, p, &o, "a") // leaves at once
		synctest.Wait()
		sendAll(t, p, &o, "b") // waits to be more
		time.Sleep(4 * time.Millisecond)
		sendAll(t, p, &o, "c") // goes with b
		time.Sleep(time.Second)
		if s := p.Stats(); s.Batches != 2 || s.Acknowledged != 2 || s.Held != 10*time.Millisecond || s.InFlight != 0 {
			t.Errorf("%d batches, %d acknowledged, held %v, in flight %v", s.Batches, s.Acknowledged, s.Held, s.InFlight)
		}
	})
}
