package serialization

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

func pointers(ms []message.Message) iter.Seq[*message.Message] {
	return func(yield func(*message.Message) bool) {
		for i := range ms {
			if !yield(&ms[i]) {
				return
			}
		}
	}
}

func numbered(n, size int) []message.Message {
	ms := make([]message.Message, n)
	for i := range ms {
		ms[i] = message.Message{Offset: message.Offset(i), Value: bytes.Repeat([]byte{byte(i)}, size)}
	}
	return ms
}

func TestBatchRoundTrip(t *testing.T) {
	want := extremes()
	for _, c := range codecs(t) {
		b, err := AppendBatch([]byte("before"), c, pointers(want))
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		got, err := DecodeBatch(b, c, nil)
		if err != nil || !slices.EqualFunc(got, want, func(a, b message.Message) bool { return same(&a, &b) }) {
			t.Fatalf("%v: %d messages of %d, %v", c.Encoding(), len(got), len(want), err)
		}
		first := &got[0]
		if got, err = DecodeBatch(b, c, got[:0]); err != nil || &got[0] != first {
			t.Errorf("%v: the memory was not reused: %v", c.Encoding(), err)
		}
		if c.Encoding() == message.JSON && bytes.Count(b, []byte("\n")) != len(want) {
			t.Errorf("%d lines for %d messages", bytes.Count(b, []byte("\n")), len(want))
		}
	}
}

// An error names the message, and what stands before it is there.
func TestBatchErrorsAreCounted(t *testing.T) {
	ms := numbered(5, 10)
	for _, c := range codecs(t) {
		good, err := AppendBatch(nil, c, pointers(ms[:3]))
		if err != nil {
			t.Fatal(err)
		}
		bad := slices.Clone(ms)
		bad[3].Priority = 9
		b, err := AppendBatch(nil, c, pointers(bad))
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "message 3:") || !bytes.Equal(b, good) {
			t.Errorf("%v: %v, %d bytes of %d", c.Encoding(), err, len(b), len(good))
		}
		got, err := DecodeBatch(append(good, 0xc1), c, nil)
		if err == nil || !strings.Contains(err.Error(), "message 3:") || len(got) != 3 {
			t.Errorf("%v: %d messages, %v", c.Encoding(), len(got), err)
		}
		got, err = NewDecoder(bytes.NewReader(append(good, 0xc1)), c, DefaultOptions().Limits).Next(nil)
		if err != nil || len(got) != 3 {
			t.Errorf("%v: a stream gives %d messages, %v", c.Encoding(), len(got), err)
		}
	}
}

// readAll reads a stream to its end.
func readAll(r io.Reader, c Codec, lim Limits) (all []message.Message, err error) {
	d := NewDecoder(r, c, lim)
	var ms []message.Message
	for {
		if ms, err = d.Next(ms[:0]); err != nil {
			if _, again := d.Next(nil); !errors.Is(again, err) {
				err = fmt.Errorf("%w, and then %w", err, again)
			}
			return all, err
		}
		if len(ms) == 0 {
			return all, errors.New("neither a message nor an error")
		}
		for i := range ms {
			all = append(all, *ms[i].Clone())
		}
	}
}

// However the bytes come in, the same messages come out.
func TestDecoder(t *testing.T) {
	want := append(extremes(), numbered(3000, 40)...)
	lim := DefaultOptions().Limits
	for _, c := range codecs(t) {
		b, err := AppendBatch(nil, c, pointers(want))
		if err != nil {
			t.Fatal(err)
		}
		short, err := AppendBatch(nil, c, pointers(numbered(200, 3)))
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			r    io.Reader
			want []message.Message
		}{
			"whole":    {bytes.NewReader(b), want},
			"halves":   {iotest.HalfReader(bytes.NewReader(b)), want},
			"with EOF": {iotest.DataErrReader(bytes.NewReader(b)), want},
			"by bytes": {iotest.OneByteReader(bytes.NewReader(short)), numbered(200, 3)},
			"nothing":  {strings.NewReader(""), nil},
			"blank":    {strings.NewReader(map[bool]string{true: " \n\t\r\n"}[c.Encoding() == message.JSON]), nil},
		} {
			got, err := readAll(tt.r, c, lim)
			if !errors.Is(err, io.EOF) || !slices.EqualFunc(got, tt.want, func(a, b message.Message) bool { return same(&a, &b) }) {
				t.Errorf("%v, %s: %d messages of %d, %v", c.Encoding(), name, len(got), len(tt.want), err)
			}
		}
	}
}

// A stream that is cut off, damaged, too large or broken gives the messages
// before and then the reason.
func TestDecoderErrors(t *testing.T) {
	lim := DefaultOptions().Limits
	lim.Bytes = 4096
	boom := errors.New("boom")
	for _, c := range codecs(t) {
		good, err := AppendBatch(nil, c, pointers(numbered(3, 100)))
		if err != nil {
			t.Fatal(err)
		}
		large, err := AppendBatch(nil, c, pointers(numbered(1, 5000)))
		if err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			name string
			r    io.Reader
			n    int
			want error
		}{
			{"cut off", bytes.NewReader(good[:len(good)-10]), 2, fault.Corrupted},
			{"damaged", bytes.NewReader(append(slices.Clone(good), "\xc1\xc1\xc1"...)), 3, nil},
			{"too large", bytes.NewReader(append(slices.Clone(good), large...)), 3, fault.TooLarge},
			{"broken", io.MultiReader(bytes.NewReader(good), iotest.ErrReader(boom)), 3, boom},
		}
		for _, tt := range tests {
			got, err := readAll(tt.r, c, lim)
			if len(got) != tt.n || err == nil || errors.Is(err, io.EOF) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v, %s: %d messages, %v", c.Encoding(), tt.name, len(got), err)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("message %d:", tt.n)) {
				t.Errorf("%v, %s: the message is not named: %v", c.Encoding(), tt.name, err)
			}
		}
	}
}

// values reads all of a stream.
func values(d *Decoder) (all []string, err error) {
	for {
		v, err := d.Value()
		if err != nil {
			again, same := d.Value()
			if again != nil || same != err {
				return all, fmt.Errorf("then %q, %w", again, same)
			}
			return all, err
		}
		all = append(all, string(bytes.TrimSpace(v)))
	}
}

// However the bytes come in, the same values come out: also those that end only
// where the next begins.
func TestDecoderValues(t *testing.T) {
	lim := DefaultOptions().Limits
	for _, tt := range []struct {
		c    Codec
		in   string
		want []string
	}{
		{codec(t, message.JSON), "{\"a\":\n  1}\n[2,\n3] 12 345\ttrue\"x y\"\"\" null\r\n-1.5e3", []string{"{\"a\":\n  1}", "[2,\n3]", "12", "345", "true", `"x y"`, `""`, "null", "-1.5e3"}},
		{codec(t, message.JSON), " 7 ", []string{"7"}},
		{codec(t, message.JSON), "\n", nil},
		{codec(t, message.CBOR), "\x01\x82\x01\x02\x61a", []string{"\x01", "\x82\x01\x02", "\x61a"}},
		{codec(t, message.MessagePack), "\x01\x92\x01\x02\xa1a", []string{"\x01", "\x92\x01\x02", "\xa1a"}},
	} {
		for name, r := range map[string]io.Reader{
			"whole":    strings.NewReader(tt.in),
			"with EOF": iotest.DataErrReader(strings.NewReader(tt.in)),
			"by bytes": iotest.OneByteReader(strings.NewReader(tt.in)),
			"halves":   iotest.HalfReader(strings.NewReader(tt.in)),
		} {
			got, err := values(NewDecoder(r, tt.c, lim))
			if !slices.Equal(got, tt.want) || err != io.EOF {
				t.Errorf("%v, %s: %q, %v; want %q", tt.c.Encoding(), name, got, err, tt.want)
			}
		}
	}
	// A value that was typed in full does not wait for the next.
	r, w := io.Pipe()
	defer w.Close()
	go io.WriteString(w, "12\n")
	if v, err := NewDecoder(r, codec(t, message.JSON), lim).Value(); string(v) != "12\n" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	lim.Bytes = 100
	for in, want := range map[string]error{
		"1 {\"a\":":                     fault.Corrupted,
		"1 2]":                          fault.Corrupted,
		"1 " + strings.Repeat("9", 200): fault.TooLarge,
		"1 " + strings.Repeat("[", 50):  fault.TooLarge,
	} {
		got, err := values(NewDecoder(iotest.OneByteReader(strings.NewReader(in)), codec(t, message.JSON), lim))
		n := len(got)
		if n == 0 || got[0] != "1" || !errors.Is(err, want) || !strings.Contains(err.Error(), fmt.Sprintf("value %d:", n)) {
			t.Errorf("%.20q: %q, %v", in, got, err)
		}
	}
}
