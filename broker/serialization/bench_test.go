package serialization

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/portask/portask/broker/message"
)

// plain is the message as a user of the libraries would declare it.
type plain struct {
	Offset    int64         `cbor:"o" json:"offset" msgpack:"o"`
	Timestamp int64         `cbor:"t" json:"timestamp" msgpack:"t"`
	ID        []byte        `cbor:"i" json:"id" msgpack:"i"`
	Priority  uint8         `cbor:"p" json:"priority" msgpack:"p"`
	Encoding  uint8         `cbor:"e" json:"encoding" msgpack:"e"`
	Key       []byte        `cbor:"k" json:"key" msgpack:"k"`
	Value     []byte        `cbor:"v" json:"value" msgpack:"v"`
	Headers   []plainHeader `cbor:"h" json:"headers" msgpack:"h"`
	Due       int64         `cbor:"d" json:"due" msgpack:"d"`
	Expiry    int64         `cbor:"x" json:"expiry" msgpack:"x"`
}

type plainHeader struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	Value []byte
}

func plainOf(m *message.Message) *plain {
	p := &plain{
		Offset: int64(m.Offset), Timestamp: m.Timestamp, ID: m.ID[:], Priority: m.Priority, Encoding: uint8(m.Encoding),
		Key: m.Key, Value: m.Value, Due: m.DueTime, Expiry: m.Expiry,
	}
	for _, h := range m.Headers {
		p.Headers = append(p.Headers, plainHeader{Name: h.Key, Value: h.Value})
	}
	return p
}

// libraries are plain uses: what a user would write without this package.
var libraries = []struct {
	name      string
	encoding  message.Encoding
	marshal   func(any) ([]byte, error)
	unmarshal func([]byte, any) error
}{
	{"fxamacker", message.CBOR, cbor.Marshal, cbor.Unmarshal},
	{"encoding-json", message.JSON, json.Marshal, json.Unmarshal},
	{"vmihailenco", message.MessagePack, msgpack.Marshal, msgpack.Unmarshal},
}

// BenchmarkMessage is a whole message with a value of 1 KiB.
func BenchmarkMessage(b *testing.B) {
	m := kib()
	for i, c := range codecs(b) {
		lib := libraries[i]
		ours, err := c.AppendMessage(nil, m)
		if err != nil {
			b.Fatal(err)
		}
		p := plainOf(m)
		theirs, err := lib.marshal(p)
		if err != nil {
			b.Fatal(err)
		}
		name := "codec=" + c.Encoding().String()
		b.Run(name+"/op=encode/by=portask", func(b *testing.B) {
			b.SetBytes(int64(len(m.Value)))
			b.ReportAllocs()
			buf := make([]byte, 0, 4096)
			for b.Loop() {
				if _, err := c.AppendMessage(buf, m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/op=encode/by="+lib.name, func(b *testing.B) {
			b.SetBytes(int64(len(m.Value)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := lib.marshal(p); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/op=decode/by=portask", func(b *testing.B) {
			b.SetBytes(int64(len(m.Value)))
			b.ReportAllocs()
			var out message.Message
			for b.Loop() {
				if _, err := c.DecodeMessage(ours, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/op=decode/by="+lib.name, func(b *testing.B) {
			b.SetBytes(int64(len(m.Value)))
			b.ReportAllocs()
			for b.Loop() {
				var out plain
				if err := lib.unmarshal(theirs, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkValue is an application's struct of some 150 bytes.
func BenchmarkValue(b *testing.B) {
	v := orders()[1]
	for i, c := range codecs(b) {
		lib := libraries[i]
		data, err := c.AppendValue(nil, &v)
		if err != nil {
			b.Fatal(err)
		}
		theirs, err := lib.marshal(&v)
		if err != nil {
			b.Fatal(err)
		}
		name := "codec=" + c.Encoding().String()
		b.Run(name+"/op=encode/by=portask", func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 4096)
			for b.Loop() {
				if _, err := c.AppendValue(buf, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/op=encode/by="+lib.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := lib.marshal(&v); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/op=decode/by=portask", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var out order
				if err := c.DecodeValue(data, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/op=decode/by="+lib.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var out order
				if err := lib.unmarshal(theirs, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBatch is 64 whole messages of 1 KiB, to bytes and from a stream.
func BenchmarkBatch(b *testing.B) {
	const count = 64
	ms := make([]message.Message, count)
	for i := range ms {
		ms[i] = *kib()
	}
	for _, c := range codecs(b) {
		data, err := AppendBatch(nil, c, pointers(ms))
		if err != nil {
			b.Fatal(err)
		}
		b.Run("codec="+c.Encoding().String()+"/op=encode/batch=64", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			buf := make([]byte, 0, len(data))
			for b.Loop() {
				if _, err := AppendBatch(buf, c, pointers(ms)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*count)/b.Elapsed().Seconds(), "msg/s")
		})
		b.Run("codec="+c.Encoding().String()+"/op=decode/batch=64", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			var out []message.Message
			r := bytes.NewReader(nil)
			for b.Loop() {
				r.Reset(data)
				d := NewDecoder(r, c, DefaultOptions().Limits)
				for n := 0; n < count; n += len(out) {
					if out, err = d.Next(out[:0]); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*count)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
