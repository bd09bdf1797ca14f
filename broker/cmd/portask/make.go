package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

// maker makes the messages that `portask produce` sends. It belongs to the
// goroutine that reads the input.
type maker struct {
	o       *produceFlags
	p       *client.Producer
	headers message.Headers // of every message
	pool    *message.Pool
	trace   message.Trace // of the whole run, with --trace
	value   []byte        // memory of encoded values
	own     message.Headers
	send    func(at place, m *message.Message) error
}

func newMaker(o *produceFlags, p *client.Producer, headers message.Headers, send func(place, *message.Message) error) *maker {
	k := &maker{o: o, p: p, headers: headers, pool: message.NewPool(), send: send}
	if o.trace {
		k.trace = message.NewTrace()
	}
	return k
}

// one sends a message; value is as it was read.
func (k *maker) one(at place, key, value []byte) error {
	m := k.pool.New() // the time is that of reading it, not of there being room for it
	defer k.pool.Free(m)
	if !k.o.ids {
		m.ID = ulid.ULID{}
	}
	if key == nil && k.o.key != "" {
		key = []byte(k.o.key)
	}
	m.Key, m.Headers = key, k.headers
	if k.o.trace {
		k.own = append(k.own[:0], k.headers...)
		k.own.SetTrace(k.trace.Child())
		m.Headers = k.own
	}
	if k.o.expire > 0 {
		// A batch has one expiry: to the second, so that messages share it.
		m.Expiry = m.Time().Add(k.o.expire + time.Second - time.Microsecond).Truncate(time.Second).UnixMicro()
	}
	if k.o.encoding == message.Raw {
		m.Value = value
		return k.send(at, m)
	}
	v, err := readJSON(value)
	if err == nil {
		m.Value = k.value[:0]
		err = k.p.Encode(m, v)
		k.value = m.Value
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return k.send(at, m)
}

// values sends each value of a stream of JSON, over lines or not.
func (k *maker) values(in *input) error {
	c, err := serialization.Default().Codec(message.JSON)
	if err != nil {
		return err
	}
	return eachStream(in.files, in.stdin, func(name string, r io.Reader) error {
		d := serialization.NewDecoder(r, c, serialization.DefaultOptions().Limits)
		for n := 1; ; n++ {
			value, err := d.Value()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := k.one(place{name, n}, nil, value); err != nil {
				return err
			}
		}
	})
}

// eachStream calls fn for each file, - being standard input, or for standard
// input if there are none. An error of fn ends it.
func eachStream(files []string, stdin io.Reader, fn func(name string, r io.Reader) error) error {
	if len(files) == 0 {
		files = []string{"-"}
	}
	open := func(name string) error {
		if name == "-" {
			return fn("stdin", stdin)
		}
		f, err := os.Open(name)
		if err != nil {
			return notFound(err)
		}
		defer f.Close()
		return fn(name, f)
	}
	for _, name := range files {
		if err := open(name); err != nil {
			return err
		}
	}
	return nil
}
