package main

import (
	"fmt"
	"io"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

// codecNames is how flags name what --codec takes.
const codecNames = "raw, cbor, json or msgpack"

// parseCodec reads --codec.
func parseCodec(s string) (message.Encoding, error) {
	e, err := message.ParseEncoding(s)
	if err != nil {
		return 0, usagef("--codec %q: want %s", s, codecNames)
	}
	return e, nil
}

// wholeCodec returns the codec of --messages.
func wholeCodec(r *serialization.Registry, e message.Encoding) (serialization.Codec, error) {
	if e == message.Raw {
		return nil, usagef("--messages: name their encoding with --codec: cbor, json or msgpack")
	}
	return r.Codec(e)
}

// readJSON returns the Go value of a line or file of JSON.
func readJSON(b []byte) (v any, err error) {
	c, err := serialization.Default().Codec(message.JSON)
	if err != nil {
		return nil, err
	}
	return v, c.DecodeValue(b, &v)
}

// eachMessage calls fn for each whole message of the files, or of stdin if there
// are none. The message is valid during the call. An error of fn ends it.
func eachMessage(c serialization.Codec, files []string, stdin io.Reader, fn func(at place, m *message.Message) error) error {
	return eachStream(files, stdin, func(name string, r io.Reader) error { return messagesOf(c, name, r, fn) })
}

func messagesOf(c serialization.Codec, name string, r io.Reader, fn func(at place, m *message.Message) error) error {
	d := serialization.NewDecoder(r, c, serialization.DefaultOptions().Limits)
	var ms []message.Message
	for n := 0; ; {
		var err error
		ms, err = d.Next(ms[:0])
		for i := range ms {
			n++
			if err := fn(place{name, n}, &ms[i]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// transcoder turns values into one encoding, whatever they come in.
type transcoder struct {
	codecs *serialization.Registry
	to     message.Encoding // Raw: values stay as they are stored
	layout bool             // values that are in that encoding already get the codecs' layout
	buf    []byte
}

// value returns the value of m, valid until the next call.
func (t *transcoder) value(m *message.Message) ([]byte, error) {
	if t.to == message.Raw || m.Value == nil || m.Encoding == t.to && !t.layout {
		return m.Value, nil
	}
	var err error
	if t.buf, err = t.codecs.Transcode(t.buf[:0], m.Value, m.Encoding, t.to); err != nil {
		return nil, fmt.Errorf("offset %d: %w", m.Offset, err)
	}
	return t.buf, nil
}
