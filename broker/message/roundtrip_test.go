package message

import (
	"errors"
	"reflect"
	"testing"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"
)

func genBytes(maxLen int) *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return []byte{}
		}
		return rapid.SliceOfN(rapid.Byte(), 1, maxLen).Draw(t, "bytes")
	})
}

func genMessage(priority uint8, encoding Encoding, due, expiry, around int64) *rapid.Generator[Message] {
	return rapid.Custom(func(t *rapid.T) Message {
		m := Message{
			Key:       genBytes(300).Draw(t, "key"),
			Value:     genBytes(300).Draw(t, "value"),
			Timestamp: around + rapid.Int64Range(-1<<40, 1<<40).Draw(t, "timestamp"),
			Priority:  priority, Encoding: encoding, DueTime: due, Expiry: expiry,
		}
		if rapid.Bool().Draw(t, "has id") {
			copy(m.ID[:], rapid.SliceOfN(rapid.Byte(), len(ulid.ULID{}), len(ulid.ULID{})).Draw(t, "id"))
		}
		for range rapid.IntRange(0, 4).Draw(t, "headers") {
			h := Header{Key: rapid.StringN(0, 20, 80).Draw(t, "name"), Value: genBytes(40).Draw(t, "header value")}
			if h.Value == nil {
				h.Value = []byte{} // a header's value has no null
			}
			m.Headers = append(m.Headers, h)
		}
		return m
	})
}

// What a Builder takes, a Reader gives back: fields, order, absence and
// emptiness, over reuse of both.
func TestRoundTrip(t *testing.T) {
	b := NewBuilder(DefaultLimits())
	var r Reader
	rapid.Check(t, func(t *rapid.T) {
		priority := rapid.Uint8Range(0, MaxPriority).Draw(t, "priority")
		encoding := Encoding(rapid.Uint8Range(0, uint8(numEncodings)-1).Draw(t, "encoding"))
		due := rapid.Int64Range(0, 2).Draw(t, "due")
		expiry := rapid.Int64Range(0, 2).Draw(t, "expiry")
		around := rapid.Int64Range(-1<<62, 1<<62).Draw(t, "around")
		seed := Seed(rapid.Uint64().Draw(t, "seed"))
		base := Offset(rapid.Int64Range(0, 1<<62).Draw(t, "base"))
		want := rapid.SliceOfN(genMessage(priority, encoding, due, expiry, around), 1, 12).Draw(t, "messages")

		b.Reset()
		b.KeyHashes = rapid.Bool().Draw(t, "key hashes")
		latest := want[0].Timestamp
		for i := range want {
			if err := b.Append(&want[i]); err != nil {
				if !errors.Is(err, ErrBatchFull) { // a timestamp too far ahead
					t.Fatal(err)
				}
				want = want[:i]
				break
			}
			want[i].Offset = base + Offset(i)
			latest = max(latest, want[i].Timestamp)
		}
		batch, err := b.Finish(nil, Producer{ID: 5}, nil)
		if err != nil {
			t.Fatal(err)
		}
		Stamp(batch, base, 1, 2, seed)
		e, section, err := Validate(batch, seed, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.MaxTimestamp() < latest || e.MaxTimestamp() >= latest+1000 || int(e.Count) != len(want) {
			t.Fatalf("max timestamp %d of %d, count %d of %d", e.MaxTimestamp(), latest, e.Count, len(want))
		}
		_, body, err := Split(batch, &e)
		if err != nil {
			t.Fatal(err)
		}
		r.Reset(&e, body, nil)
		r.SetSection(&section)
		var got Message
		for i := range want {
			if !r.Next(&got) {
				t.Fatalf("message %d: %v", i, r.Err())
			}
			if !reflect.DeepEqual(got, want[i]) {
				t.Fatalf("message %d: got %+v, want %+v", i, got, want[i])
			}
			if section.KeyHashes != nil && section.KeyHash(i) != tableHash(want[i].Key) {
				t.Fatalf("message %d: wrong key hash", i)
			}
		}
		if r.Next(&got) || r.Err() != nil {
			t.Fatalf("after the last: %v", r.Err())
		}
	})
}

// sizeUvarint is arithmetic; counting bytes is its oracle.
func TestSizeUvarint(t *testing.T) {
	for shift := range 64 {
		for _, v := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1} {
			var n int
			for x := v; ; x >>= 7 {
				n++
				if x < 0x80 {
					break
				}
			}
			if got := sizeUvarint(v); got != n {
				t.Errorf("%d: %d, want %d", v, got, n)
			}
		}
	}
	for _, v := range []int64{0, -1, 1, -2, 1<<63 - 1, -1 << 63} {
		if got := unzigzag(zigzag(v)); got != v {
			t.Errorf("zigzag of %d gives %d back", v, got)
		}
	}
}
