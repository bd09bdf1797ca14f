package message

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// filled returns a Builder with count messages of size bytes of value.
func filled(tb testing.TB, count, size int) *Builder {
	tb.Helper()
	b := NewBuilder(DefaultLimits())
	m := Message{Key: []byte("user-4711"), Value: make([]byte, size), Timestamp: 1_700_000_000_000_000}
	for i := range m.Value {
		m.Value[i] = byte(i * 7)
	}
	for i := range count {
		m.Timestamp += 10
		binary.LittleEndian.PutUint32(m.Value, uint32(i))
		if err := b.Append(&m); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

func finish(tb testing.TB, b *Builder) []byte {
	tb.Helper()
	out, err := b.Finish(nil, Producer{}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func BenchmarkParseEnvelope(b *testing.B) {
	batch := finish(b, filled(b, 64, 1024))
	lim := DefaultLimits()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEnvelope(batch, &lim); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStamp(b *testing.B) {
	batch := finish(b, filled(b, 64, 1024))
	for _, seed := range []Seed{0, 0x123456789abcdef} {
		b.Run(fmt.Sprintf("seed=%x", uint64(seed)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Stamp(batch, 42, 1_700_000_000_000_000, 7, seed)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	batch := finish(b, filled(b, 64, 1024))
	b.Run("part=header", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := VerifyHeader(batch, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, count := range []int{1, 16, 64} {
		batch := finish(b, filled(b, count, 1024))
		b.Run(fmt.Sprintf("part=body/batch=%d/value=1KiB", count), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(batch)))
			for b.Loop() {
				if err := VerifyBody(batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// One operation is one message; the batch is finished (raw) and reset when it
// has 64 of them.
func BenchmarkBuilder(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("batch=64/value=%dB", size), func(b *testing.B) {
			bld := filled(b, 64, size)
			out := finish(b, bld)
			m := Message{Key: []byte("user-4711"), Value: make([]byte, size), Timestamp: 1_700_000_000_000_000}
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if bld.Count() == 64 {
					var err error
					if out, err = bld.Finish(out[:0], Producer{}, nil); err != nil {
						b.Fatal(err)
					}
					bld.Reset()
				}
				m.Timestamp += 10
				if err := bld.Append(&m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// One operation is one message.
func BenchmarkReader(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("batch=64/value=%dB", size), func(b *testing.B) {
			batch := finish(b, filled(b, 64, size))
			e, err := ParseEnvelope(batch, nil)
			if err != nil {
				b.Fatal(err)
			}
			_, body, err := Split(batch, &e)
			if err != nil {
				b.Fatal(err)
			}
			var r Reader
			var m Message
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if !r.Next(&m) {
					if r.Err() != nil {
						b.Fatal(r.Err())
					}
					r.Reset(&e, body, nil)
				}
			}
		})
	}
}

func BenchmarkKeyHash(b *testing.B) {
	for _, n := range []int{8, 16, 64} {
		key := make([]byte, n)
		b.Run(fmt.Sprintf("key=%dB", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				KeyHash(key)
			}
		})
	}
}

// BenchmarkMessageBytes is why no message keeps its size.
func BenchmarkMessageBytes(b *testing.B) {
	for _, headers := range []int{0, 4, 64} {
		b.Run(fmt.Sprintf("headers=%d", headers), func(b *testing.B) {
			m := Message{Key: []byte("user-4711"), Value: make([]byte, 1024), Headers: make([]Header, headers)}
			n := 0
			for b.Loop() {
				n += m.Bytes()
			}
			_ = n
		})
	}
}
