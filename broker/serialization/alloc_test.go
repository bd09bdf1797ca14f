package serialization

import (
	"bytes"
	"testing"

	"github.com/portask/portask/broker/message"
)

// kib is the message of the targets: 1 KiB of value with key, id and header.
func kib() *message.Message {
	m := sample()
	m.Value = bytes.Repeat([]byte("0123456789abcdef"), 64)
	m.Headers = m.Headers[:1]
	return &m
}

// Whole messages cost no allocation, but for bytes that JSON has in base64, and a
// decoded value is not copied.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocation budgets are checked without the race detector")
	}
	buf := make([]byte, 0, 4096)
	for _, e := range []message.Encoding{message.CBOR, message.JSON, message.MessagePack} {
		c := codec(t, e)
		m := kib()
		if e == message.JSON {
			m.Headers = message.Headers{{Key: "text", Value: []byte("also")}}
		}
		b, err := c.AppendMessage(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		var out message.Message
		for name, f := range map[string]func() bool{
			"AppendMessage": func() bool { _, err := c.AppendMessage(buf[:0], m); return err == nil },
			"DecodeMessage": func() bool { _, err := c.DecodeMessage(b, &out); return err == nil },
			"Size":          func() bool { n, err := c.Size(b); return err == nil && n == len(b) },
		} {
			if !f() {
				t.Errorf("%v: %s failed", e, name)
			}
			if n := testing.AllocsPerRun(100, func() { f() }); n != 0 {
				t.Errorf("%v: %s allocates %v times, want 0", e, name, n)
			}
		}
		at := bytes.Index(b, m.Value)
		if &out.Value[0] != &b[at] || cap(out.Value) != len(out.Value) {
			t.Errorf("%v: the value is a copy, or has room behind it", e)
		}
		if h := bytes.Index(b, []byte(m.Headers[0].Value)); &out.Headers[0].Value[0] != &b[h] {
			t.Errorf("%v: a header is a copy", e)
		}
	}
}
