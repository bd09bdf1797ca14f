package pace

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func recorded(items ...Item) []byte {
	var b bytes.Buffer
	w, err := NewTraceWriter(&b)
	if err != nil {
		panic(err)
	}
	for _, x := range items {
		if err := w.Add(x); err != nil {
			panic(err)
		}
	}
	if err := w.Close(Recorded{Dropped: 3, Approximate: 2, Resent: 1}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestRecordedTrace(t *testing.T) {
	items := []Item{{Size: 100, Topic: 1}, {At: 1000, Size: 5, Topic: 2, Key: 77}, {At: 1000, Size: 1 << 20}, {At: 5_000_000_000, Key: 1 << 63}}
	b := recorded(items...)
	const golden = "2370747261636520320a016401d20f05024d000000000000000180804000b2b8afa025000000000000000000800004030201ece9df0d"
	if hex.EncodeToString(b) != golden {
		t.Errorf("bytes %x", b)
	}
	tr, err := ReadTrace(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range items {
		if tr.Item(i) != x {
			t.Errorf("message %d: %+v, want %+v", i, tr.Item(i), x)
		}
	}
	if r, ok := tr.Recorded(); !ok || r != (Recorded{4, 3, 2, 1}) || tr.Len() != 4 || tr.Topics() != 2 || !tr.Keyed() || tr.Span() != 5_000_000_000 {
		t.Errorf("%+v %v", r, ok)
	}
	if s := tr.Shape(); s.Len() != 4 || s.Keyed() || s.Topics() != 0 || s.Item(3) != (Item{At: 5_000_000_000}) {
		t.Errorf("shape %+v", s)
	}
	// A file that ends early is read as far as it goes, or refused; none is taken
	// for whole.
	for n := range len(b) {
		tr, err := ReadTrace(bytes.NewReader(b[:n]))
		if err != nil {
			continue
		}
		if _, ok := tr.Recorded(); ok {
			t.Errorf("%d of %d bytes count as whole", n, len(b))
		}
	}
	for i := len(ptraceHead); i < len(b); i++ {
		x := bytes.Clone(b)
		x[i] ^= 0x10
		if tr, err := ReadTrace(bytes.NewReader(x)); err == nil {
			if _, ok := tr.Recorded(); ok {
				t.Errorf("a flipped bit at %d was not seen", i)
			}
		}
	}
	if _, err := ReadTrace(bytes.NewReader(append(bytes.Clone(b), 0))); err == nil {
		t.Error("bytes behind the end")
	}
	for _, x := range []string{"", "\x01", strings.Repeat("\xff", 20), "\x01\xff\xff\xff\xff\xff\x01\x00", "\x01\x01\xff\x7f"} {
		if _, err := ReadTrace(strings.NewReader(ptraceHead + x)); err == nil {
			t.Errorf("%q was accepted", x)
		}
	}
}

func TestTraceWriterKeepsOrder(t *testing.T) {
	tr, err := ReadTrace(bytes.NewReader(recorded(Item{At: 500, Size: 1}, Item{At: 400, Size: 2}, Item{At: 600, Size: 3})))
	if err != nil || tr.Item(1).At != 500 || tr.Item(2).At != 600 {
		t.Errorf("%+v, %v", tr, err)
	}
}
