package message

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message/id"
)

// A message of the pool is new, whatever the one before it was.
func TestPool(t *testing.T) {
	p := NewPool()
	seen := make(map[ulid.ULID]bool)
	shared := []Header{{Key: "a", Value: []byte("b")}}
	for range 1000 {
		before := time.Now().Add(-time.Millisecond)
		m := p.New()
		if seen[m.ID] || m.ID.IsZero() {
			t.Fatalf("id %v again", m.ID)
		}
		seen[m.ID] = true
		if at := m.Time(); at.Before(before) || at.After(time.Now().Add(time.Second)) || m.ID.Time() != uint64(at.UnixMilli()) {
			t.Fatalf("made at %v, id of %v", at, m.ID.Timestamp())
		}
		if m.Key != nil || m.Value != nil || m.Headers != nil || m.Offset != 0 || m.Priority != 0 || m.Encoding != Raw || m.DueTime != 0 || m.Expiry != 0 {
			t.Fatalf("%+v is not new", m)
		}
		m.Key, m.Value, m.Headers, m.Offset, m.Priority, m.Encoding, m.DueTime, m.Expiry = []byte("k"), []byte("v"), shared, 1, 2, JSON, 3, 4
		p.Free(m)
	}
	if shared[0].Key != "a" || string(shared[0].Value) != "b" {
		t.Errorf("%+v: Free changed what the message pointed to", shared)
	}
}

// More messages than a Pool keeps are in nobody's hands twice.
func TestPoolKeepsApart(t *testing.T) {
	p := NewPool()
	var held []*Message
	var last ulid.ULID
	for round := range 3 {
		for i := range 3 * poolFree {
			m := p.New()
			if m.Offset != 0 || m.ID.Compare(last) <= 0 {
				t.Fatalf("round %d, message %d: %+v after %v", round, i, m, last)
			}
			m.Offset, last = Offset(i+1), m.ID
			held = append(held, m)
		}
		for i, m := range held {
			if m.Offset != Offset(i+1) {
				t.Fatalf("message %d is message %d", i+1, m.Offset)
			}
			p.Free(m)
		}
		held = held[:0]
		if n := len(p.free); n != poolFree {
			t.Errorf("%d messages are kept, want %d", n, poolFree)
		}
	}
}

// BenchmarkCreate is a message with its identifier and its time.
func BenchmarkCreate(b *testing.B) {
	value := make([]byte, 1024)
	var sink *Message
	var made Message
	b.Run("from=pool/by=portask", func(b *testing.B) {
		p := NewPool()
		b.ReportAllocs()
		for b.Loop() {
			m := p.New()
			m.Value = value
			p.Free(m)
		}
	})
	b.Run("from=variable/by=generator", func(b *testing.B) {
		m := &made
		g := id.NewGenerator()
		b.ReportAllocs()
		for b.Loop() {
			*m = Message{Value: value}
			m.ID, m.Timestamp = g.Stamp()
		}
	})
	b.Run("from=variable/by=processor", func(b *testing.B) {
		m := &made
		b.ReportAllocs()
		for b.Loop() {
			*m = Message{Value: value, ID: id.New()}
		}
	})
	b.Run("from=variable/by=ulid.Make", func(b *testing.B) {
		m := &made
		b.ReportAllocs()
		for b.Loop() {
			*m = Message{Value: value, ID: ulid.Make()}
		}
	})
	b.Run("from=heap/by=ulid.Make+time.Now", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink = &Message{Value: value, ID: ulid.Make(), Timestamp: time.Now().UnixMicro()}
		}
	})
	_ = sink
}
