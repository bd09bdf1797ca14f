package serialization

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"testing"
	"testing/iotest"

	"github.com/fxamacker/cbor/v2"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// FuzzMessageThroughAllCodecs builds a message from the input and sends it
// through every codec.
func FuzzMessageThroughAllCodecs(f *testing.F) {
	for _, m := range extremes()[:12] {
		if len(m.Value) > 1000 {
			continue
		}
		f.Add(int64(m.Offset), m.Timestamp, m.ID[:], m.Priority, byte(m.Encoding), m.Value, m.Key, []byte("name"), m.DueTime, m.Expiry, byte(3))
	}
	all := codecs(f)
	f.Fuzz(func(t *testing.T, offset, timestamp int64, id []byte, priority, encoding byte, value, key, header []byte, due, expiry int64, nils byte) {
		want := message.Message{
			Offset: message.Offset(offset), Timestamp: timestamp, Priority: priority, Encoding: message.Encoding(encoding),
			Value: value, Key: key, DueTime: due, Expiry: expiry,
		}
		copy(want.ID[:], id)
		if nils&1 != 0 {
			want.Value = nil
		}
		if nils&2 != 0 {
			want.Key = nil
		}
		for i := range int(nils>>2) % 8 { // names and values of different lengths
			cut := min(i, len(header))
			want.Headers = append(want.Headers, message.Header{Key: string(header[:cut]), Value: header[cut:]})
		}
		in := want
		for _, c := range all {
			b, err := c.AppendMessage(nil, &in)
			if err != nil {
				if priority <= message.MaxPriority && encoding < 4 && len(value)+len(key)+len(header) < 100_000 {
					t.Fatalf("%v: %v", c.Encoding(), err)
				}
				return
			}
			var out message.Message
			if rest, err := c.DecodeMessage(b, &out); err != nil || len(rest) > 0 {
				t.Fatalf("%v: %x: %v", c.Encoding(), b, err)
			}
			if !same(&out, &want) {
				t.Fatalf("%v: got %+v, want %+v", c.Encoding(), out, want)
			}
			in = out
		}
	})
}

// messageSeeds are good messages and pieces of them.
func messageSeeds(f *testing.F) {
	for _, c := range codecs(f) {
		for _, m := range append(extremes()[:9], sample()) {
			b, err := c.AppendMessage(nil, &m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			f.Add(b[:len(b)*2/3])
			f.Add(append(b, b...))
		}
	}
}

// FuzzDecodeMessage feeds any bytes to every decoder: no panic, what is taken
// encodes again to the same message, and a stream of the same bytes gives the
// same messages.
func FuzzDecodeMessage(f *testing.F) {
	messageSeeds(f)
	lim := small()
	lim.Headers = 8
	r := registry(f, lim)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack} {
			c, _ := r.Codec(e)
			ms, err := DecodeBatch(b, c, nil)
			for i := range ms {
				again, err := c.AppendMessage(nil, &ms[i])
				if errors.Is(err, fault.TooLarge) {
					continue // a shorter form was read than is written
				}
				if err != nil {
					t.Fatalf("%v: %+v cannot be written: %v", e, ms[i], err)
				}
				var back message.Message
				if _, err := c.DecodeMessage(again, &back); err != nil || !same(&back, &ms[i]) {
					t.Fatalf("%v: %+v, then %+v, %v", e, ms[i], back, err)
				}
			}
			got, derr := readAll(iotest.OneByteReader(bytes.NewReader(b)), c, lim)
			if len(got) != len(ms) || err == nil && derr.Error() != "EOF" {
				t.Fatalf("%v: a stream gives %d messages (%v), the bytes %d (%v)", e, len(got), derr, len(ms), err)
			}
		}
	})
}

// FuzzCBORMessage: the reader by hand takes nothing that the library refuses
// and gives the same message; what it writes is the library's own encoding.
func FuzzCBORMessage(f *testing.F) {
	messageSeeds(f)
	c := codec(f, message.CBOR).(*cborCodec)
	f.Fuzz(func(t *testing.T, b []byte) {
		var fast, slow message.Message
		n, ok := parseCBOR(b, &fast, nil, &c.lim)
		rest, err := c.generalDecode(b, &slow, nil)
		if !ok {
			return
		}
		if err != nil || len(b)-len(rest) != n || !same(&fast, &slow) {
			t.Fatalf("%x: by hand %d bytes, %+v; library %d bytes, %+v, %v", b, n, fast, len(b)-len(rest), slow, err)
		}
		got, err := c.AppendMessage(nil, &fast)
		if err != nil {
			t.Fatal(err)
		}
		if want := oracle(t, &fast); !bytes.Equal(got, want) {
			t.Fatalf("%+v: wrote %x, the library %x", fast, got, want)
		}
	})
}

// FuzzDecodeValue feeds any bytes to the untyped decoders: no panic, the result
// is of the promised types and survives a round trip, and the walks agree with
// the libraries on what is well-formed.
func FuzzDecodeValue(f *testing.F) {
	for _, c := range codecs(f) {
		for _, v := range []any{nil, true, int64(-5), uint64(math.MaxUint64), 1.5, "text", []byte{1}, []any{1, "x", nil}, map[string]any{"a": []any{map[string]any{}}}} {
			b, err := c.AppendValue(nil, v)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte("\x9f\x5f\x41a\xff\xc0\x74" + "2023-11-14T22:13:20Z\xff"))
	f.Add([]byte("\xd6\xff\x65\x53\xf1\x00"))
	f.Add([]byte(` [1e3, -0, 0.1, "\ud834\udd1e"] `))
	// Wider than the library's, so that only the structure decides.
	lim := Limits{Bytes: 1 << 20, Depth: 1000, Elements: 1 << 20, Headers: 64}
	wellformed, err := cbor.DecOptions{MaxNestedLevels: 65535, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 900 {
			return
		}
		n, err := scanCBOR(b, &lim)
		if ok := wellformed.Wellformed(b) == nil; ok != (n > 0 && n == len(b) && err == nil) {
			t.Fatalf("CBOR %x: the library says well-formed %v, the walk %d of %d, %v", b, ok, n, len(b), err)
		}
		c, _ := Default().Codec(message.JSON)
		if n, err := c.Size(b); json.Valid(b) && (n != len(b) || err != nil) {
			t.Fatalf("JSON %q: size %d of %d, %v", b, n, len(b), err)
		}
		for _, c := range codecs(t) {
			var v any
			if c.DecodeValue(b, &v) != nil {
				continue
			}
			again, err := c.AppendValue(nil, v)
			if err != nil {
				if hasNoForm(v) {
					continue
				}
				t.Fatalf("%v: %#v cannot be written: %v", c.Encoding(), v, err)
			}
			var back any
			if err := c.DecodeValue(again, &back); err != nil || !reflect.DeepEqual(back, v) && !hasNoForm(v) {
				t.Fatalf("%v: %#v, then %#v, %v", c.Encoding(), v, back, err)
			}
		}
	})
}

// hasNoForm finds a float that is not equal to itself, or that JSON turns into
// an integer.
func hasNoForm(v any) bool {
	switch v := v.(type) {
	case float64:
		return math.IsNaN(v) || v == math.Trunc(v)
	case []any:
		for _, x := range v {
			if hasNoForm(x) {
				return true
			}
		}
	case map[string]any:
		for _, x := range v {
			if hasNoForm(x) {
				return true
			}
		}
	}
	return false
}
