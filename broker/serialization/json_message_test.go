package serialization

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/portask/portask/broker/message"
)

// jsonCodecs are the forms that are written by hand.
func jsonCodecs(tb testing.TB) []*jsonCodec {
	tb.Helper()
	plain := codec(tb, message.JSON).(*jsonCodec)
	html := *plain
	html.o.EscapeHTML = true
	return []*jsonCodec{plain, &html}
}

// agrees holds what is written and read by hand against the library.
func agrees(tb rapid.TB, c *jsonCodec, m *message.Message) {
	tb.Helper()
	got, err := c.AppendMessage([]byte("before"), m)
	if err != nil {
		tb.Fatalf("%+v: %v", m, err)
	}
	want, err := c.generalAppend([]byte("before"), m)
	if err != nil || !bytes.Equal(got, want) {
		tb.Fatalf("wrote %s, the library %s, %v", got, want, err)
	}
	got = got[len("before"):]
	var fast, slow message.Message
	n, ok := parseJSON(got, &fast, nil, &c.lim)
	if !ok || n != len(got) {
		tb.Fatalf("%s is not read by hand: %d, %t", got, n, ok)
	}
	if _, err := c.generalDecode(got, &slow, nil); err != nil || !same(&fast, &slow) || !same(&fast, m) {
		tb.Fatalf("%s: by hand %+v, library %+v, %v", got, fast, slow, err)
	}
}

func TestJSONAgainstTheLibrary(t *testing.T) {
	for _, c := range jsonCodecs(t) {
		for _, m := range append(extremes(), sample()) {
			agrees(t, c, &m)
		}
		// Every byte and every escape, alone and in company.
		for i := range 256 {
			agrees(t, c, &message.Message{Value: []byte{byte(i)}, Key: []byte{'a', byte(i), 'b'}})
		}
		for _, s := range []string{"\u2027\u2028\u2029\u202a", "\xe2", "\xe2\x80", "a\u2028", "\u2029b", "\x00\x1f\x7f\u0080", "𝄞", `\"/`, "<script>&amp;</script>", "\xed\xa0\x80", "\ufffd"} {
			agrees(t, c, &message.Message{Value: []byte(s), Headers: message.Headers{{Key: s, Value: []byte(s)}, {Key: "", Value: []byte{}}}})
		}
		rapid.Check(t, func(t *rapid.T) {
			m := genMessage().Draw(t, "message")
			agrees(t, c, &m)
		})
	}
}

// What is read by hand and what is left to the library.
func TestJSONForms(t *testing.T) {
	c := jsonCodecs(t)[0]
	for in, byHand := range map[string]bool{
		`{}`: true,
		" {\n\t\"offset\" : 5 , \"value\" : \"a\" ,\"headers\":[ ] }\r\n":  true,
		`{"headers":[{"value":"v","name":"n"},{},{"name_base64":"AP8="}]}`: true,
		`{"value":"\u0041\/\u00e9\u2028"}`:                                 true,
		`{"offset":-9223372036854775808}`:                                  true,
		`{"value":"\ud834\udd1e"}`:                                         false, // a pair
		`{"Value":"x"}`:                                                    false,
		`{"value":null}`:                                                   false,
		`{"offset":-0}`:                                                    false,
		`{"value":"a","value":"b"}`:                                        false,
		`{"headers":null}`:                                                 false,
		`{"id":"01hf7yat00tvqj4tktz6k9xq5d"}`:                              true,
		`{"value_base64":"YQ=="}`:                                          true,
		`{"value_base64":"Y\nQ=="}`:                                        true,
	} {
		var fast, slow message.Message
		n, ok := parseJSON([]byte(in), &fast, nil, &c.lim)
		if ok != byHand {
			t.Errorf("%s: read by hand %t, want %t", in, ok, byHand)
		}
		rest, err := c.generalDecode([]byte(in), &slow, nil)
		if err != nil || ok && (n != len(in)-len(rest) || !same(&fast, &slow)) {
			t.Errorf("%s: by hand %+v, library %+v, %v", in, fast, slow, err)
		}
	}
	for _, bad := range []string{
		``, `{`, `[]`, `{"offset"}`, `{"offset":}`, `{"offset":01}`, `{"offset":1.5}`, `{"offset":9223372036854775808}`, `{"offset":"1"}`, `{"offset":1,}`,
		`{"priority":8}`, `{"priority":-1}`, `{"encoding":"xml"}`, `{"id":"x"}`, `{"other":1}`, `{"value":"` + "\n" + `"}`, `{"value":"\x"}`, `{"value":"\u12g4"}`,
		`{"value":"a`, `{"value":"a\`, `{"value":"` + "\xff" + `"}`, `{"value":"a","value_base64":"YQ=="}`, `{"value_base64":"Y"}`, `{"headers":[{"name":"a"},]}`,
		`{"headers":[` + strings.Repeat(`{},`, c.lim.Headers) + `{}]}`, `{"headers":[{"name":"a","other":1}]}`, `{"value":"a"`, `{,}`, `{"value":"a" "key":"b"}`,
	} {
		var m message.Message
		if _, ok := parseJSON([]byte(bad), &m, nil, &c.lim); ok {
			t.Errorf("%q is read by hand: %+v", bad, m)
		}
		if _, err := c.DecodeMessage([]byte(bad), &m); err == nil {
			t.Errorf("%q is a message: %+v", bad, m)
		}
	}
}

// FuzzJSONMessage: the reader by hand takes nothing that the library refuses and
// gives the same message; what is written of it is what the library writes.
func FuzzJSONMessage(f *testing.F) {
	messageSeeds(f)
	f.Add([]byte(`{"headers":[{"value":"v","name":"n"},{},{"name_base64":"AP8="}],"offset":-1,"value":"\u0041\/\n"}`))
	f.Add([]byte(" {\n\"key_base64\" : \"YQ==\" , \"priority\":7}\n{}"))
	c := jsonCodecs(f)
	small := *c[0]
	small.lim.Elements, small.lim.Bytes, small.lim.Headers = 40, 1000, 2
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range append(c, &small) {
			var fast, slow message.Message
			n, ok := parseJSON(b, &fast, nil, &c.lim)
			if !ok {
				continue
			}
			rest, err := c.generalDecode(b, &slow, nil)
			if err != nil || len(b)-len(rest) != n || !same(&fast, &slow) {
				t.Fatalf("%q: by hand %d bytes, %+v; library %d bytes, %+v, %v", b, n, fast, len(b)-len(rest), slow, err)
			}
			if c != &small {
				agrees(t, c, &fast)
			}
		}
	})
}
