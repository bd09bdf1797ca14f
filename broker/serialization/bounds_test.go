package serialization

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// small are limits that a test can reach.
func small() Limits { return Limits{Bytes: 1000, Depth: 4, Elements: 40, Headers: 2} }

func registry(tb testing.TB, lim Limits) *Registry {
	tb.Helper()
	o := DefaultOptions()
	o.Limits = lim
	r, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// The last value within each limit is taken, the first beyond it refused by
// name.
func TestLimitsAreExact(t *testing.T) {
	lim := small()
	r := registry(t, lim)
	nested := func(depth int) any {
		var v any = int64(1)
		for range depth {
			v = []any{v}
		}
		return v
	}
	list := func(n int) any {
		v := make([]any, n)
		for i := range v {
			v[i] = int64(1)
		}
		return v
	}
	for _, tt := range []struct {
		field     string
		ok, above func(head int) any
	}{
		{"depth", func(int) any { return nested(lim.Depth) }, func(int) any { return nested(lim.Depth + 1) }},
		{"elements", func(int) any { return list(lim.Elements - 2) }, func(int) any { return list(lim.Elements) }},
		{"bytes", func(head int) any { return strings.Repeat("x", lim.Bytes-head) }, func(head int) any { return strings.Repeat("x", lim.Bytes-head+1) }},
	} {
		for e, head := range map[message.Encoding]int{message.CBOR: 3, message.JSON: 2, message.MessagePack: 3} {
			c, err := r.Codec(e)
			if err != nil {
				t.Fatal(err)
			}
			b, err := c.AppendValue(nil, tt.ok(head))
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := c.DecodeValue(b, &v); err != nil {
				t.Errorf("%v, %s at its limit: %v", e, tt.field, err)
			}
			if b, err = c.AppendValue(nil, tt.above(head)); err != nil {
				t.Fatal(err)
			}
			var f *fault.Error
			if err := c.DecodeValue(b, &v); !errors.As(err, &f) || f.Code != fault.TooLarge || f.Field != tt.field {
				t.Errorf("%v, %s above its limit: %v", e, tt.field, err)
			}
			if _, err := c.Size(b); !errors.Is(err, fault.TooLarge) {
				t.Errorf("%v, size of %s above its limit: %v", e, tt.field, err)
			}
		}
	}
	for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack} {
		c, _ := r.Codec(e)
		m := message.Message{Headers: make([]message.Header, 3)}
		if _, err := c.AppendMessage(nil, &m); !errors.Is(err, fault.TooLarge) {
			t.Errorf("%v wrote three headers: %v", e, err)
		}
		b, err := codec(t, e).AppendMessage(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.DecodeMessage(b, &m); !errors.Is(err, fault.TooLarge) {
			t.Errorf("%v read three headers: %v", e, err)
		}
	}
}

// A message of exactly the largest size is written and read.
func TestMessageAtTheLimit(t *testing.T) {
	r := registry(t, small())
	for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack} {
		c, _ := r.Codec(e)
		m := message.Message{Key: []byte("key"), Timestamp: 1 << 40, Headers: []message.Header{{Key: "a", Value: []byte("b")}}}
		for n := 1000; ; n-- {
			m.Value = []byte(strings.Repeat("x", n))
			b, err := c.AppendMessage(nil, &m)
			if errors.Is(err, fault.TooLarge) {
				continue
			}
			if err != nil || len(b) != 1000 {
				t.Fatalf("%v: the first that fits has %d bytes, %v", e, len(b), err)
			}
			var got message.Message
			if _, err := c.DecodeMessage(b, &got); err != nil || !same(&got, &m) {
				t.Errorf("%v: %v", e, err)
			}
			break
		}
	}
}

// Hostile input costs an error and no memory: lying lengths, deep nesting, many
// small elements.
func TestHostile(t *testing.T) {
	long := func(first byte, width int, n uint64) string {
		b := binary.BigEndian.AppendUint64(nil, n)
		return string(first) + string(b[8-width:])
	}
	big := strings.Repeat
	cases := []struct {
		e  message.Encoding
		in string
	}{
		{message.CBOR, long(0x5b, 8, 1<<62)},
		{message.CBOR, string([]byte{0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})},
		{message.CBOR, string([]byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})},
		{message.CBOR, string([]byte{0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0})},
		{message.CBOR, string([]byte{0x9a, 0x7f, 0xff, 0xff, 0xff})},
		{message.CBOR, big("\x81", 100_000)},
		{message.CBOR, big("\x9f", 100_000)},
		{message.CBOR, big("\xc1", 100_000)},
		{message.CBOR, big("\xbf\x61a", 100_000)},
		{message.CBOR, "\x9f" + big("\x80", 1_000_000)},
		{message.CBOR, "\x5f" + big("\x40", 1_000_000)},
		{message.CBOR, "\x5f\x61a\xff"},
		{message.CBOR, "\x1f"}, {message.CBOR, "\xff"}, {message.CBOR, "\xfc"}, {message.CBOR, "\xdf"}, {message.CBOR, "\xf8\x00"},
		{message.CBOR, "\xbf\x61a\xff"},
		{message.MessagePack, string([]byte{0xc6, 0xff, 0xff, 0xff, 0xff})},
		{message.MessagePack, string([]byte{0xdb, 0xff, 0xff, 0xff, 0xff})},
		{message.MessagePack, string([]byte{0xc9, 0xff, 0xff, 0xff, 0xff, 5})},
		{message.MessagePack, string([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})},
		{message.MessagePack, string([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})},
		{message.MessagePack, string([]byte{0xdf, 0x80, 0, 0, 0})},
		{message.MessagePack, big("\x91", 100_000)},
		{message.MessagePack, big("\x81\xa1a", 100_000)},
		{message.MessagePack, "\xdd\x00\x0f\x42\x40" + big("\x90", 1_000_000)},
		{message.MessagePack, "\xc1"},
		{message.JSON, big("[", 100_000)},
		{message.JSON, big(`{"a":`, 100_000)},
		{message.JSON, "[" + big("[],", 1_000_000) + "1]"},
		{message.JSON, `"` + big(`\`, 9<<20)},
		{message.JSON, big(`1`, 9<<20)},
		{message.JSON, big(` `, 9<<20)},
		{message.JSON, `]`}, {message.JSON, `,`}, {message.JSON, `1,2`}, {message.JSON, `[}`}, {message.JSON, `tru`}, {message.JSON, `"\u12"`},
	}
	var before, after runtime.MemStats
	for _, tt := range cases {
		c := codec(t, tt.e)
		runtime.ReadMemStats(&before)
		var v any
		err := c.DecodeValue([]byte(tt.in), &v)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%v took %.20q", tt.e, tt.in)
			continue
		}
		if code := fault.CodeOf(err); code != fault.Corrupted && code != fault.TooLarge && code != fault.Invalid {
			t.Errorf("%v, %.20q: %v", tt.e, tt.in, err)
		}
		if len(err.Error()) > 300 {
			t.Errorf("%v, %.20q: an error of %d bytes", tt.e, tt.in, len(err.Error()))
		}
		// []byte(tt.in) is the test's own.
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(tt.in))+128<<10 {
			t.Errorf("%v, %.20q: %d bytes allocated", tt.e, tt.in, n)
		}
		var m message.Message
		if _, err := c.DecodeMessage([]byte(tt.in), &m); err == nil {
			t.Errorf("%v took %.20q for a message", tt.e, tt.in)
		}
	}
}

// The most elements that are let through cost no more than promised.
func TestMemoryOfTheLargestValue(t *testing.T) {
	if raceEnabled {
		t.Skip("memory is measured without the race detector")
	}
	lim := DefaultOptions().Limits
	n := lim.Elements - 2
	for _, tt := range []struct {
		e  message.Encoding
		in string
	}{
		{message.CBOR, "\x9f" + strings.Repeat("\x80", n) + "\xff"},
		{message.CBOR, "\x9f" + strings.Repeat("\xa0", n) + "\xff"},
		{message.MessagePack, string([]byte{0xdd, 0, byte(n >> 16), byte(n >> 8), byte(n)}) + strings.Repeat("\x80", n)},
		{message.JSON, "[" + strings.Repeat("{},", n/2-1) + "{}]"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var v any
		if err := codec(t, tt.e).DecodeValue([]byte(tt.in), &v); err != nil {
			t.Errorf("%v: %v", tt.e, err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(len(tt.in)+200*n) {
			t.Errorf("%v: %d elements of %d bytes took %d bytes", tt.e, n, len(tt.in), got)
		}
	}
}
