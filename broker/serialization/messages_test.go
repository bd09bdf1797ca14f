package serialization

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/oklog/ulid/v2"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"

	"github.com/portask/portask/broker/message"
)

// codecs are those that have a form for whole messages.
func codecs(tb testing.TB) []Codec {
	tb.Helper()
	var all []Codec
	for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack} {
		c, err := Default().Codec(e)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func codec(tb testing.TB, e message.Encoding) Codec {
	tb.Helper()
	c, err := Default().Codec(e)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// sample has every field.
func sample() message.Message {
	return message.Message{
		Offset: 1 << 40, Timestamp: 1_700_000_000_000_000, ID: ulid.MustParse("01HF7YAT00TVQJ4TKTZ6K9XQ5D"),
		Priority: 7, Encoding: message.JSON, Value: []byte(`{"n":1}`), Key: []byte("user-4711"),
		Headers: []message.Header{{Key: "trace", Value: []byte{0, 255}}, {Key: "", Value: []byte{}}, {Key: "\xff\xfe", Value: []byte("x")}},
		DueTime: 1_700_000_060_000_000, Expiry: 1_700_003_600_000_000,
	}
}

// extremes are messages whose fields are empty, largest, smallest or of lengths
// around the steps of the encodings.
func extremes() []message.Message {
	all := []message.Message{
		{},
		sample(),
		{Value: []byte{}},
		{Key: []byte{}},
		{Key: []byte{}, Value: []byte{}, Headers: []message.Header{{Value: []byte{}}}},
		{Offset: math.MaxInt64, Timestamp: math.MaxInt64, DueTime: math.MaxInt64, Expiry: math.MaxInt64},
		{Offset: math.MinInt64, Timestamp: math.MinInt64, DueTime: math.MinInt64, Expiry: math.MinInt64},
		{Offset: message.NoOffset, Timestamp: -1},
		{Value: []byte("<script>&\u2028\"\\\x00\x7f")},
		{Value: bytes.Repeat([]byte{0xff}, 1000), Key: bytes.Repeat([]byte("k"), 1000)},
		{Value: make([]byte, 1<<20)},
	}
	for _, n := range []int{23, 24, 31, 32, 255, 256, 65535, 65536} {
		all = append(all, message.Message{
			Value: bytes.Repeat([]byte("v"), n), Key: make([]byte, n),
			Headers: []message.Header{{Key: strings.Repeat("h", n), Value: make([]byte, n)}},
		})
	}
	for shift := range 64 {
		for _, v := range []int64{1<<shift - 1, 1 << shift, -1 << shift, -1<<shift - 1} {
			all = append(all, message.Message{Offset: message.Offset(v), Timestamp: -v, DueTime: v ^ 5})
		}
	}
	for p := range uint8(message.MaxPriority + 1) {
		all = append(all, message.Message{Priority: p, Encoding: message.Encoding(p % 4)})
	}
	many := message.Message{}
	for range message.DefaultLimits().Headers {
		many.Headers = append(many.Headers, message.Header{Key: "n", Value: []byte("v")})
	}
	return append(all, many)
}

// same compares messages; no headers are no headers, nil or not.
func same(a, b *message.Message) bool {
	x, y := *a, *b
	x.Headers, y.Headers = nil, nil
	return reflect.DeepEqual(x, y) && slices.EqualFunc(a.Headers, b.Headers, func(a, b message.Header) bool {
		return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
	})
}

// Every field of every message comes back from every codec.
func TestMessagesRoundTrip(t *testing.T) {
	for _, c := range codecs(t) {
		var got message.Message // reused: nothing of the one before may stay
		for i, want := range extremes() {
			b, err := c.AppendMessage([]byte("before"), &want)
			if err != nil || string(b[:6]) != "before" {
				t.Fatalf("%v, message %d: %v", c.Encoding(), i, err)
			}
			b = b[6:]
			if n, err := c.Size(b); n != len(b) || err != nil {
				t.Fatalf("%v, message %d: size %d of %d, %v", c.Encoding(), i, n, len(b), err)
			}
			rest, err := c.DecodeMessage(append(b, "after"...), &got)
			if err != nil || string(rest) != "after" {
				t.Fatalf("%v, message %d: rest %q, %v", c.Encoding(), i, rest, err)
			}
			if !same(&got, &want) {
				t.Fatalf("%v, message %d:\ngot  %+v\nwant %+v", c.Encoding(), i, got, want)
			}
		}
	}
}

func genMessage() *rapid.Generator[message.Message] {
	slice := rapid.OneOf(rapid.Just([]byte(nil)), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 70),
		rapid.Map(rapid.StringN(0, 70, -1), func(s string) []byte { return []byte(s) }))
	return rapid.Custom(func(t *rapid.T) message.Message {
		m := message.Message{
			Offset: message.Offset(rapid.Int64().Draw(t, "offset")), Timestamp: rapid.Int64().Draw(t, "timestamp"),
			Priority: rapid.Uint8Range(0, message.MaxPriority).Draw(t, "priority"),
			Encoding: message.Encoding(rapid.Uint8Range(0, 3).Draw(t, "encoding")),
			Value:    slice.Draw(t, "value"), Key: slice.Draw(t, "key"),
			DueTime: rapid.Int64().Draw(t, "due"), Expiry: rapid.Int64().Draw(t, "expiry"),
		}
		if rapid.Bool().Draw(t, "has id") {
			copy(m.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		}
		for range rapid.IntRange(0, 20).Draw(t, "headers") {
			m.Headers = append(m.Headers, message.Header{Key: string(slice.Draw(t, "name")), Value: append([]byte{}, slice.Draw(t, "header")...)})
		}
		return m
	})
}

// A message that goes through all codecs, one after the other, comes out equal.
func TestThroughAllCodecs(t *testing.T) {
	all := codecs(t)
	rapid.Check(t, func(t *rapid.T) {
		want := genMessage().Draw(t, "message")
		in := want
		for _, c := range all {
			b, err := c.AppendMessage(nil, &in)
			if err != nil {
				t.Fatal(err)
			}
			var out message.Message
			if rest, err := c.DecodeMessage(b, &out); err != nil || len(rest) > 0 {
				t.Fatalf("%v: %d bytes rest, %v", c.Encoding(), len(rest), err)
			}
			if !same(&out, &want) {
				t.Fatalf("%v:\ngot  %+v\nwant %+v", c.Encoding(), out, want)
			}
			in = out
		}
	})
}

// general is m for the CBOR library.
func general(m *message.Message) *generalMessage {
	g := &generalMessage{
		Due: m.DueTime, Encoding: uint8(m.Encoding), Offset: int64(m.Offset), Priority: m.Priority,
		Timestamp: m.Timestamp, Expiry: m.Expiry,
	}
	if !m.ID.IsZero() {
		g.ID = m.ID[:]
	}
	if m.Key != nil {
		g.Key = &m.Key
	}
	if m.Value != nil {
		g.Value = &m.Value
	}
	for _, h := range m.Headers {
		g.Headers = append(g.Headers, generalHeader{Name: generalName(h.Key), Value: append([]byte{}, h.Value...)})
	}
	return g
}

// MarshalCBOR is for the oracle only: the library decodes names, it need not
// encode them outside of tests.
func (n generalName) MarshalCBOR() ([]byte, error) {
	if textOr([]byte(n)) == string(n) {
		return cbor.Marshal(string(n))
	}
	return cbor.Marshal([]byte(n))
}

// oracle encodes by the library, deterministically.
func oracle(tb testing.TB, m *message.Message) []byte {
	tb.Helper()
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		tb.Fatal(err)
	}
	b, err := mode.Marshal(general(m))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// The encoder by hand writes what the library writes, bit for bit, and its own
// reader and the library read the same.
func TestCBORAgainstTheLibrary(t *testing.T) {
	c := codec(t, message.CBOR).(*cborCodec)
	check := func(m *message.Message) {
		t.Helper()
		got, err := c.AppendMessage(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		if want := oracle(t, m); !bytes.Equal(got, want) {
			t.Fatalf("%+v:\ngot  %x\nwant %x", m, got, want)
		}
		if n := sizeCBOR(m); n != len(got) {
			t.Fatalf("sizeCBOR %d, has %d", n, len(got))
		}
		var fast, slow message.Message
		if n, ok := parseCBOR(got, &fast, nil, &c.lim); !ok || n != len(got) {
			t.Fatalf("the reader by hand gives up on %x at %d", got, n)
		}
		if rest, err := c.generalDecode(got, &slow, nil); err != nil || len(rest) > 0 {
			t.Fatal(err)
		}
		if !same(&fast, &slow) {
			t.Fatalf("by hand %+v\nlibrary %+v", fast, slow)
		}
	}
	for _, m := range extremes() {
		check(&m)
	}
	rapid.Check(t, func(r *rapid.T) { m := genMessage().Draw(r, "message"); check(&m) })
}

// packed is a message for the MessagePack library.
type packed struct {
	Offset, Timestamp  int64
	ID                 []byte
	Priority, Encoding int64
	Value, Key         []byte
	Headers            []packedHeader
	DueTime, Expiry    int64
}

type packedHeader struct {
	Name  string
	Value []byte
}

func TestMessagePackAgainstTheLibrary(t *testing.T) {
	c := codec(t, message.MessagePack)
	check := func(m *message.Message) {
		t.Helper()
		p := packed{
			Offset: int64(m.Offset), Timestamp: m.Timestamp, Priority: int64(m.Priority), Encoding: int64(m.Encoding),
			Value: m.Value, Key: m.Key, DueTime: m.DueTime, Expiry: m.Expiry,
		}
		if !m.ID.IsZero() {
			p.ID = m.ID[:]
		}
		for _, h := range m.Headers {
			p.Headers = append(p.Headers, packedHeader{h.Key, append([]byte{}, h.Value...)})
		}
		var buf bytes.Buffer
		enc := msgpack.NewEncoder(&buf)
		enc.UseArrayEncodedStructs(true)
		enc.UseCompactInts(true)
		if err := enc.Encode(&p); err != nil {
			t.Fatal(err)
		}
		got, err := c.AppendMessage(nil, m)
		if err != nil || !bytes.Equal(got, buf.Bytes()) {
			t.Fatalf("%+v: %v\ngot  %x\nwant %x", m, err, got, buf.Bytes())
		}
	}
	for _, m := range extremes() {
		check(&m)
	}
	rapid.Check(t, func(r *rapid.T) { m := genMessage().Draw(r, "message"); check(&m) })
}

// Valid CBOR that another encoder would write is read too.
func TestForeignCBOR(t *testing.T) {
	c := codec(t, message.CBOR)
	want := message.Message{Timestamp: 5, Key: []byte("k"), Value: []byte("v"), Headers: []message.Header{{Key: "n", Value: []byte{}}}}
	for name, s := range map[string]string{
		"another order":     "a4" + "6176" + "4176" + "616b" + "416b" + "6174" + "05" + "6168" + "81" + "82616e40",
		"longer numbers":    "b804" + "6168" + "9801" + "8278016e" + "5800" + "616b" + "5801" + "6b" + "6174" + "1b0000000000000005" + "6176" + "590001" + "76",
		"indefinite length": "bf" + "6174" + "05" + "616b" + "5f416bff" + "6176" + "4176" + "6168" + "9f" + "82616e40" + "ff" + "ff",
		"null for nothing":  "a6" + "6169" + "f6" + "6174" + "05" + "616b" + "416b" + "6176" + "4176" + "6168" + "81" + "82616ef6" + "6178" + "00",
	} {
		var got message.Message
		if rest, err := c.DecodeMessage(unhex(t, s), &got); err != nil || len(rest) > 0 || !same(&got, &want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// What no batch can carry is refused, whatever the direction.
func TestMessagesThatAreNone(t *testing.T) {
	many := message.Message{Headers: make([]message.Header, message.DefaultLimits().Headers+1)}
	for _, c := range codecs(t) {
		for _, m := range []message.Message{{Priority: 8}, {Encoding: 4}, many, {Value: make([]byte, 9<<20)}} {
			b, err := c.AppendMessage([]byte("x"), &m)
			if err == nil || string(b) != "x" {
				t.Errorf("%v wrote %+.50v", c.Encoding(), m)
			}
			if err != nil && len(err.Error()) > 200 {
				t.Errorf("%v: an error of %d bytes", c.Encoding(), len(err.Error()))
			}
		}
	}
	for _, tt := range []struct {
		e message.Encoding
		b string // hex, or JSON
	}{
		{message.CBOR, "a1" + "6170" + "08"},                            // priority 8
		{message.CBOR, "a1" + "6165" + "04"},                            // encoding 4
		{message.CBOR, "a1" + "6170" + "190100"},                        // priority 256
		{message.CBOR, "a1" + "6169" + "4101"},                          // an id of one byte
		{message.CBOR, "a1" + "6171" + "01"},                            // an unknown key
		{message.CBOR, "a2" + "6174" + "01" + "6174" + "01"},            // twice the same key
		{message.CBOR, "a1" + "6174" + "1bffffffffffffffff"},            // a time of 64 bits
		{message.CBOR, "a1" + "6174" + "f90000"},                        // a float for a time
		{message.CBOR, "a1" + "616b" + "616b"},                          // text for a key
		{message.CBOR, "a1" + "6168" + "81" + "81616e"},                 // a header without value
		{message.CBOR, "a1" + "6168" + "81" + "8261ff40"},               // a name that is no UTF-8
		{message.CBOR, "a1" + "6174" + "c101"},                          // a tag
		{message.CBOR, "80"},                                            // no map
		{message.CBOR, "f6"},                                            // null
		{message.CBOR, "a1" + "6174"},                                   // cut off
		{message.CBOR, ""},                                              // nothing
		{message.MessagePack, "990000c00000c0c0c000"},                   // nine fields
		{message.MessagePack, "9a0000c00800c0c0c00000"},                 // priority 8
		{message.MessagePack, "9a0000c0cd010000c0c0c00000"},             // priority 256
		{message.MessagePack, "9a0000c00004c0c0c00000"},                 // encoding 4
		{message.MessagePack, "9acfffffffffffffffff00c00000c0c0c00000"}, // an offset of 64 bits
		{message.MessagePack, "9a0000c401010000c0c0c00000"},             // an id of one byte
		{message.MessagePack, "9a0000c0000001c0c00000"},                 // a number for a value
		{message.MessagePack, "9a0000c00000c0c09191a00000"},             // a header without value
		{message.MessagePack, "9a0000c00000c0c0a00000"},                 // text for headers
		{message.MessagePack, "9a0000c00000c0c0c000"},                   // cut off
		{message.MessagePack, ""},                                       // nothing
		{message.JSON, `{"priority":8}`},
		{message.JSON, `{"priority":256}`},
		{message.JSON, `{"encoding":"xml"}`},
		{message.JSON, `{"id":"01"}`},
		{message.JSON, `{"key":"a","key_base64":"YQ=="}`},
		{message.JSON, `{"key_base64":"?"}`},
		{message.JSON, `{"colour":1}`},
		{message.JSON, `{"offset":1.5}`},
		{message.JSON, `{"offset":9223372036854775808}`},
		{message.JSON, "{\"key\":\"\xff\"}"},
		{message.JSON, `{"offset":1,}`},
		{message.JSON, `[]`},
		{message.JSON, `null`},
		{message.JSON, `{`},
		{message.JSON, ` `},
	} {
		b := []byte(tt.b)
		if tt.e != message.JSON {
			b = unhex(t, tt.b)
		}
		var m message.Message
		if _, err := codec(t, tt.e).DecodeMessage(b, &m); err == nil {
			t.Errorf("%v took %q: %+v", tt.e, tt.b, m)
		}
	}
}
