package serialization

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// order is what an application might send.
type order struct {
	Number  uint64            `json:"number" cbor:"n" msgpack:"number"`
	Lines   []line            `json:"lines" cbor:"l" msgpack:"lines"`
	Note    string            `json:"note,omitempty" cbor:"t,omitempty" msgpack:"note"`
	Tags    map[string]string `json:"tags" cbor:"g" msgpack:"tags"`
	Photo   []byte            `json:"photo" cbor:"p" msgpack:"photo"`
	Total   float64           `json:"total" cbor:"s" msgpack:"total"`
	Express *bool             `json:"express" cbor:"e" msgpack:"express"`
	Placed  time.Time         `json:"placed" cbor:"d" msgpack:"placed"`
}

type line struct {
	Article string `json:"article" cbor:"a" msgpack:"article"`
	Count   int32  `json:"count" cbor:"c" msgpack:"count"`
}

func orders() []order {
	yes := true
	return []order{
		{},
		{
			Number: math.MaxUint64, Lines: []line{{"bolt", -1}, {"", math.MaxInt32}}, Note: "„quoted“ \x00 <b>",
			Tags: map[string]string{"b": "2", "a": "1", "": ""}, Photo: []byte{0xff, 0, 1}, Total: -1.5e300,
			Express: &yes, Placed: time.Date(2026, 11, 23, 15, 4, 5, 123456789, time.UTC),
		},
	}
}

// A Go value of the application's type comes back from every codec, with every
// option.
func TestValuesRoundTrip(t *testing.T) {
	for _, o := range []func(*Options){
		func(*Options) {},
		func(o *Options) {
			o.CBOR.Canonical, o.CBOR.TimeTags, o.JSON.Indent, o.MessagePack.NamedFields = false, true, "  ", true
		},
		func(o *Options) {
			o.JSON.EscapeHTML, o.MessagePack.WideInts, o.MessagePack.CompactFloats = true, true, true
		},
		func(o *Options) { o.JSON.Indent, o.MessagePack.SortKeys = "\t", false },
	} {
		opts := DefaultOptions()
		o(&opts)
		r, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack} {
			for i, want := range orders() {
				m := message.Message{Value: []byte("old")}
				if err := r.Encode(&m, e, want); err != nil || m.Encoding != e {
					t.Fatalf("%v, order %d: %v", e, i, err)
				}
				var got order
				if err := r.Decode(&m, &got); err != nil {
					t.Fatalf("%v, order %d: %v", e, i, err)
				}
				if !got.Placed.Equal(want.Placed) {
					t.Errorf("%v, order %d: placed %v, want %v", e, i, got.Placed, want.Placed)
				}
				got.Placed = want.Placed
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%v, order %d:\ngot  %+v\nwant %+v", e, i, got, want)
				}
			}
		}
	}
}

// What the options promise of the bytes.
func TestForms(t *testing.T) {
	at := time.Unix(1_700_000_000, 5000).UTC()
	object := map[string]any{"b": "<&>", "a": int64(1)}
	for _, tt := range []struct {
		e    message.Encoding
		o    func(*Options)
		v    any
		want string
	}{
		{message.JSON, func(*Options) {}, object, `{"a":1,"b":"<&>"}`},
		{message.JSON, func(o *Options) { o.JSON.EscapeHTML = true }, object, `{"a":1,"b":"\u003c\u0026\u003e"}`},
		{message.JSON, func(o *Options) { o.JSON.Indent = " " }, object, "{\n \"a\": 1,\n \"b\": \"<&>\"\n}"},
		{message.CBOR, func(*Options) {}, object, "\xa2\x61a\x01\x61b\x63<&>"},
		{message.CBOR, func(*Options) {}, 1.5, "\xf9\x3e\x00"},
		{message.CBOR, func(o *Options) { o.CBOR.Canonical = false }, 1.5, "\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"},
		{message.CBOR, func(*Options) {}, at, "\x78\x1b2023-11-14T22:13:20.000005Z"},
		{message.CBOR, func(o *Options) { o.CBOR.TimeTags = true }, at, "\xc0\x78\x1b2023-11-14T22:13:20.000005Z"},
		{message.CBOR, func(o *Options) { o.CBOR.Time = TimeUnix }, at, "\x1a\x65\x53\xf1\x00"},
		{message.CBOR, func(o *Options) { o.CBOR.Time, o.CBOR.TimeTags = TimeUnix, true }, at, "\xc1\x1a\x65\x53\xf1\x00"},
		{message.CBOR, func(o *Options) { o.CBOR.Time = TimeMicros }, at, "\xfb\x41\xd9\x54\xfc\x40\x00\x00\x15"},
		{message.MessagePack, func(*Options) {}, object, "\x82\xa1a\x01\xa1b\xa3<&>"},
		{message.MessagePack, func(*Options) {}, line{"x", 2}, "\x92\xa1x\x02"},
		{message.MessagePack, func(o *Options) { o.MessagePack.NamedFields = true }, line{"x", 2}, "\x82\xa7article\xa1x\xa5count\x02"},
		{message.MessagePack, func(o *Options) { o.MessagePack.WideInts = true }, int64(2), "\xd3\x00\x00\x00\x00\x00\x00\x00\x02"},
		{message.MessagePack, func(o *Options) { o.MessagePack.CompactFloats = true }, 2.0, "\x02"},
		{message.MessagePack, func(*Options) {}, 2.0, "\xcb\x40\x00\x00\x00\x00\x00\x00\x00"},
		{message.Raw, func(*Options) {}, "text", "text"},
		{message.Raw, func(*Options) {}, []byte{0xff}, "\xff"},
	} {
		opts := DefaultOptions()
		tt.o(&opts)
		r, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Codec(tt.e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.AppendValue([]byte("-"), tt.v)
		if err != nil || string(got) != "-"+tt.want {
			t.Errorf("%v of %v: %q, %v; want %q", tt.e, tt.v, got, err, "-"+tt.want)
		}
	}
}

// genAny makes untyped data of the types that a decoder promises. integral:
// floats without a fraction too, which JSON turns into integers.
func genAny(depth int, forJSON bool) *rapid.Generator[any] {
	scalars := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Map(rapid.Bool(), func(v bool) any { return v }),
		rapid.Map(rapid.Int64(), func(v int64) any { return v }),
		rapid.Map(rapid.Uint64Range(1<<63, math.MaxUint64), func(v uint64) any { return v }),
		rapid.Map(rapid.String(), func(v string) any { return v }),
		rapid.Map(rapid.Float64(), func(v float64) any {
			if forJSON && v == math.Trunc(v) {
				return v + 0.5*math.Copysign(1, v)*boolTo(math.Abs(v) < 1<<50)
			}
			return v
		}).Filter(func(v any) bool { return !forJSON || v.(float64) != math.Trunc(v.(float64)) }),
	}
	if !forJSON {
		scalars = append(scalars, rapid.Map(rapid.SliceOf(rapid.Byte()), func(v []byte) any {
			if v == nil {
				v = []byte{}
			}
			return v
		}))
	}
	scalar := rapid.OneOf(scalars...)
	if depth == 0 {
		return scalar
	}
	inner := rapid.Deferred(func() *rapid.Generator[any] { return genAny(depth-1, forJSON) })
	return rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(inner, 0, 5), func(v []any) any {
			if v == nil {
				v = []any{}
			}
			return v
		}),
		rapid.Map(rapid.MapOfN(rapid.String(), inner, 0, 5), func(v map[string]any) any { return v }))
}

func boolTo(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Untyped data is the same Go value whatever encoding it went through, and
// after it went through all of them.
func TestUntypedValuesThroughAllCodecs(t *testing.T) {
	r := Default()
	rapid.Check(t, func(t *rapid.T) {
		want := genAny(3, true).Draw(t, "value")
		at, data := message.Raw, []byte(nil)
		for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack, message.CBOR, message.MessagePack, message.JSON} {
			var err error
			if at == message.Raw {
				c, _ := r.Codec(e)
				data, err = c.AppendValue(nil, want)
			} else {
				data, err = r.Transcode(nil, data, at, e)
			}
			if err != nil {
				t.Fatalf("to %v: %v", e, err)
			}
			at = e
			var got any
			if err := r.Decode(&message.Message{Value: data, Encoding: e}, &got); err != nil {
				t.Fatalf("%v %q: %v", e, data, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%v: got %#v, want %#v", e, got, want)
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) { // with bytes and every float: the binary ones
		want := genAny(3, false).Draw(t, "value")
		for _, e := range []message.Encoding{message.CBOR, message.MessagePack} {
			var m message.Message
			var got any
			if err := r.Encode(&m, e, want); err != nil {
				t.Fatal(err)
			}
			if err := r.Decode(&m, &got); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%v: got %#v, want %#v, %v", e, got, want, err)
			}
		}
	})
}

// What changes on the way from one encoding to another, and what is refused.
func TestTranscode(t *testing.T) {
	r := Default()
	for _, tt := range []struct {
		from message.Encoding
		in   string
		to   message.Encoding
		want string // empty: refused
	}{
		{message.JSON, ` {"b": [1, 1.5, null], "a": "x"} `, message.MessagePack, "\x82\xa1a\xa1x\xa1b\x93\x01\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xc0"},
		{message.MessagePack, "\x82\xa1b\x01\xa1a\xc4\x02\x00\xff", message.JSON, `{"a":"AP8=","b":1}`},
		{message.JSON, `18446744073709551615`, message.CBOR, "\x1b\xff\xff\xff\xff\xff\xff\xff\xff"},
		{message.CBOR, "\xc0\x74" + "2023-11-14T22:13:20Z", message.JSON, `"2023-11-14T22:13:20Z"`},
		{message.CBOR, "\xc1\x1a\x65\x53\xf1\x00", message.JSON, `"2023-11-14T22:13:20Z"`},
		{message.CBOR, "\xd8\x64\x01", message.JSON, `1`},                   // an unknown tag
		{message.CBOR, "\xc2\x41\x05", message.JSON, `5`},                   // a small bignum
		{message.MessagePack, "\xd6\xff\x65\x53\xf1\x00", message.CBOR, ""}, // see below
		{message.Raw, "plain", message.JSON, `"plain"`},
		{message.Raw, "\xff", message.JSON, `"/w=="`},
		{message.Raw, "plain", message.CBOR, "\x45plain"},
		{message.JSON, `"text"`, message.Raw, "text"},
		{message.CBOR, "\x42\x00\xff", message.Raw, "\x00\xff"},
		{message.JSON, `{"not": "text"}`, message.Raw, ""},
		{message.JSON, `1`, message.Raw, ""},
		{message.JSON, `1e400`, message.CBOR, ""},
		{message.CBOR, "\xf9\x7e\x00", message.JSON, ""},                                 // not a number
		{message.CBOR, "\xa1\x01\x02", message.JSON, ""},                                 // a key that is no text
		{message.CBOR, "\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00", message.JSON, ""}, // 65 bits
		{message.CBOR, "\xa2\x61a\x01\x61a\x02", message.JSON, ""},                       // a key twice
		{message.MessagePack, "\xd4\x05\x00", message.JSON, ""},                          // an extension of somebody's own
		{message.JSON, ``, message.CBOR, ""},
	} {
		got, err := r.Transcode([]byte("-"), []byte(tt.in), tt.from, tt.to)
		if tt.from == message.MessagePack && tt.in[0] == 0xd6 {
			// The zone in which a time of MessagePack comes out is the machine's.
			if err != nil || !strings.Contains(string(got), "2023-11-1") {
				t.Errorf("a time: %q, %v", got, err)
			}
			continue
		}
		if tt.want == "" {
			if err == nil || fault.InfoOf(err).Category != fault.CategorySerialization || string(got) != "-" {
				t.Errorf("%v %q to %v: %q, %v", tt.from, tt.in, tt.to, got, err)
			}
		} else if err != nil || string(got) != "-"+tt.want {
			t.Errorf("%v %q to %v: %q, %v; want %q", tt.from, tt.in, tt.to, got, err, tt.want)
		}
	}
	if _, err := r.Transcode(nil, nil, 9, message.CBOR); !errors.Is(err, fault.Invalid) {
		t.Errorf("from nowhere: %v", err)
	}
	if err := r.Decode(&message.Message{}, new(any)); !errors.Is(err, fault.Invalid) {
		t.Errorf("a null value: %v", err)
	}
}

// What does not fit the Go type, or is no value of the encoding, is refused
// with its reason.
func TestMisfits(t *testing.T) {
	r := Default()
	for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack, message.Raw} {
		c, err := r.Codec(e)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := c.AppendValue([]byte("x"), make(chan int)); err == nil || string(b) != "x" {
			t.Errorf("%v wrote a channel: %q", e, b)
		}
		text, _ := c.AppendValue(nil, "text")
		var n int
		if err := c.DecodeValue(text, &n); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: text into an int: %v", e, err)
		}
		if e == message.Raw {
			continue
		}
		if err := c.DecodeValue(append(text, text...), new(string)); !errors.Is(err, fault.Corrupted) {
			t.Errorf("%v: two values: %v", e, err)
		}
		for i := range text {
			if err := c.DecodeValue(text[:i], new(string)); !errors.Is(err, fault.Corrupted) {
				t.Errorf("%v: %d bytes of %d: %v", e, i, len(text), err)
			}
		}
		for _, v := range []any{map[string]any{"a": []any{1, "x"}}, []any{[]any{}}} {
			b, err := c.AppendValue(nil, v)
			if err != nil {
				t.Fatal(err)
			}
			for i := range b {
				if err := c.DecodeValue(b[:i], new(any)); err == nil {
					t.Errorf("%v: took %d bytes of %q", e, i, b)
				}
			}
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	o := DefaultOptions()
	o.Limits = Limits{}
	o.CBOR.Time = 9
	o.JSON.Indent = "->"
	_, err := New(o)
	for _, field := range []string{"limits.bytes", "limits.depth", "limits.elements", "limits.headers", "cbor.time", "json.indent"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named: %v", field, err)
		}
	}
}

// loud is a codec of an application's own.
type loud struct{ Codec }

func (loud) AppendValue(dst []byte, v any) ([]byte, error) {
	return append(dst, strings.ToUpper(fmt.Sprint(v))...), nil
}

func TestRegistryWith(t *testing.T) {
	raw, err := Default().Codec(message.Raw)
	if err != nil {
		t.Fatal(err)
	}
	r := Default().With(loud{raw})
	var m message.Message
	if err := r.Encode(&m, message.Raw, "quiet"); err != nil || string(m.Value) != "QUIET" {
		t.Errorf("%q, %v", m.Value, err)
	}
	if err := Default().Encode(&m, message.Raw, "quiet"); err != nil || string(m.Value) != "quiet" {
		t.Errorf("the default registry changed: %q, %v", m.Value, err)
	}
}

// JSON that stays JSON changes its layout, and nothing else.
func TestLayout(t *testing.T) {
	const in = `{"b":1.10,"a":[10000000000000000000000,"<&>"],"c":{}}`
	for _, tt := range []struct {
		o    JSONOptions
		want string
	}{
		{JSONOptions{}, in},
		{JSONOptions{EscapeHTML: true}, `{"b":1.10,"a":[10000000000000000000000,"\u003c\u0026\u003e"],"c":{}}`},
		{JSONOptions{Indent: " "}, "{\n \"b\": 1.10,\n \"a\": [\n  10000000000000000000000,\n  \"<&>\"\n ],\n \"c\": {}\n}"},
		{JSONOptions{Indent: "\t", EscapeHTML: true}, "{\n\t\"b\": 1.10,\n\t\"a\": [\n\t\t10000000000000000000000,\n\t\t\"\\u003c\\u0026\\u003e\"\n\t],\n\t\"c\": {}\n}"},
	} {
		o := DefaultOptions()
		o.JSON = tt.o
		r, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Transcode([]byte("x"), []byte(in), message.JSON, message.JSON)
		if string(got) != "x"+tt.want || err != nil {
			t.Errorf("%+v: %s, %v; want %s", tt.o, got, err, tt.want)
		}
		if tt.o == (JSONOptions{}) {
			continue
		}
		for _, bad := range []string{"", "{", "[1,]", "\xff", `"` + "\xff" + `"`, "1 2"} {
			if got, err := r.Transcode([]byte("x"), []byte(bad), message.JSON, message.JSON); !errors.Is(err, fault.Corrupted) || string(got) != "x" {
				t.Errorf("%+v, %q: %q, %v", tt.o, bad, got, err)
			}
		}
	}
}
