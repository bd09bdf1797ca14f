package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

type reading struct {
	Sensor string
	Value  int
}

// A producer changes its encoding between messages; a consumer that was never
// told decodes them all, in order.
func TestEncodingChangesWhileSending(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithEncoding(message.JSON), WithLinger(time.Hour))
		k := consumer(t, c, From(Earliest))
		encodings := []message.Encoding{message.JSON, message.CBOR, message.MessagePack}
		var m message.Message // one for all: its memory is reused
		const each = 5
		for round := range 3 * each {
			e := encodings[round/each]
			if err := p.SetEncoding(e); err != nil {
				t.Fatal(err)
			}
			if err := p.Encode(&m, reading{"cellar", round}); err != nil || m.Encoding != e {
				t.Fatalf("%v as %v, %v", e, m.Encoding, err)
			}
			if err := p.SendAsync(t.Context(), &m, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(ctxFor(t, time.Hour)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for n < 3*each {
			batch, err := k.Poll(ctxFor(t, time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			for m, err := range batch.Messages() {
				if err != nil {
					t.Fatal(err)
				}
				var got reading
				if err := k.Decode(m, &got); err != nil || got != (reading{"cellar", n}) || m.Encoding != encodings[n/each] {
					t.Fatalf("message %d, %v: %+v, %v", n, m.Encoding, got, err)
				}
				n++
			}
			batch.Release()
		}
	})
}

// What an application encoded by itself goes under the producer's encoding
// unless the message names its own.
func TestEncodingOfMessagesThatNameNone(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithEncoding(message.JSON))
		k := consumer(t, c, From(Earliest))
		for _, x := range []struct{ set, of, want message.Encoding }{
			{message.JSON, message.Raw, message.JSON},
			{message.CBOR, message.Raw, message.CBOR},
			{message.CBOR, message.MessagePack, message.MessagePack},
			{message.Raw, message.Raw, message.Raw},
		} {
			if err := p.SetEncoding(x.set); err != nil {
				t.Fatal(err)
			}
			m := value("1")
			m.Encoding = x.of
			if err := p.SendAsync(t.Context(), m, nil); err != nil {
				t.Fatal(err)
			}
			if err := p.Flush(ctxFor(t, time.Hour)); err != nil {
				t.Fatal(err)
			}
			batch, err := k.Poll(ctxFor(t, time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			for m, err := range batch.Messages() {
				if err != nil || m.Encoding != x.want {
					t.Errorf("%+v: came as %v, %v", x, m.Encoding, err)
				}
			}
		}
	})
}

func TestValuesThatDoNotFit(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		o := serialization.DefaultOptions()
		o.Limits.Bytes = 100
		codecs, err := serialization.New(o)
		if err != nil {
			t.Fatal(err)
		}
		c := b.client(WithCodecs(codecs))
		defer c.Close()
		if _, err := c.Producer(t.Context(), "orders", WithEncoding(9)); !errors.Is(err, fault.Invalid) {
			t.Errorf("encoding 9: %v", err)
		}
		p := producer(t, c, WithEncoding(message.JSON))
		if err := p.SetEncoding(9); !errors.Is(err, fault.Invalid) {
			t.Errorf("encoding 9: %v", err)
		}
		if err := p.Encode(new(message.Message), func() {}); !errors.Is(err, fault.Invalid) {
			t.Errorf("a function: %v", err)
		}
		k := consumer(t, c)
		m := message.Message{Value: fmt.Appendf(nil, "%q", make([]byte, 50)), Encoding: message.JSON}
		if err := k.Decode(&m, new(string)); !errors.Is(err, fault.TooLarge) {
			t.Errorf("%d bytes: %v", len(m.Value), err)
		}
		if err := k.Decode(&message.Message{}, new(string)); !errors.Is(err, fault.Invalid) {
			t.Errorf("a null value: %v", err)
		}
	})
}
