package storage

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

func TestPartitionIDText(t *testing.T) {
	id := PartitionID{Topic: [16]byte{0x01, 0x91, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 2, 3, 4, 5, 6, 7}, Index: 3}
	const text = "01J4HMASW9NF6YY0820C20A1G7-3"
	if id.String() != text {
		t.Fatalf("%v", id)
	}
	for _, id := range []PartitionID{{}, id, {Topic: [16]byte{0x7f}, Index: 1<<32 - 1}} {
		if back, err := ParsePartitionID(id.String()); back != id || err != nil {
			t.Errorf("%v became %v, %v", id, back, err)
		}
	}
	for _, s := range []string{
		"", "-", "3", text[:26], text[:27], text + "-", text + "x", "x" + text, strings.ToLower(text),
		text[:27] + "03", text[:27] + "+3", text[:27] + "-3", text[:27] + "4294967296",
		"81J4HNVPW9NF6YY0G40R40M60E-3", strings.Repeat("0", 1000) + "-1",
	} {
		_, err := ParsePartitionID(s)
		if fault.CodeOf(err) != fault.Invalid || fault.Find(err).Field != "partition" {
			t.Errorf("%.40q: %v", s, err)
		}
		if len(err.Error()) > 200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}

func FuzzParsePartitionID(f *testing.F) {
	for _, s := range []string{"", "01J4HMASW9NF6YY0820C20A1G7-3", "01j4hnvpw9nf6yy0g40r40m60e-3", "ILO-0", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParsePartitionID(s); err == nil && id.String() != s {
			t.Fatalf("%q is accepted and prints as %q", s, id)
		}
	})
}

func TestLevels(t *testing.T) {
	l := LevelsOf(message.AckNone, message.AckDurable)
	if l != 5 || !l.Has(message.AckNone) || l.Has(message.AckAccepted) || !l.Has(message.AckDurable) {
		t.Errorf("%b", l)
	}
	if l.String() != "none, durable" || Levels(0).String() != "" {
		t.Errorf("%q, %q", l, Levels(0))
	}
	for set, want := range map[Levels]message.AckLevel{0: 0, 1: 0, 2: message.AckAccepted, 3: message.AckAccepted, 7: message.AckDurable} {
		if set.Strongest() != want {
			t.Errorf("strongest of %v is %v", set, set.Strongest())
		}
	}
}

func TestMetaNames(t *testing.T) {
	for _, name := range []string{"a", "topics", "0", "a.b_c-d", strings.Repeat("z", 64)} {
		if err := CheckMetaName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".a", "..", "A", "a/b", "a\x00", "é", strings.Repeat("z", 65), strings.Repeat("/", 1<<20)} {
		err := CheckMetaName(name)
		if fault.CodeOf(err) != fault.Invalid || fault.Find(err).Field != "name" || len(err.Error()) > 500 {
			t.Errorf("%.20q: %.200v", name, err)
		}
	}
}

func TestErrorsCarryCodesAndRanges(t *testing.T) {
	err := OutOfRange("read log x", 7, 10, 20)
	r, ok := errors.AsType[*RangeError](err)
	if !ok || *r != (RangeError{7, 10, 20}) || fault.CodeOf(err) != fault.OutOfRange {
		t.Errorf("%v", err)
	}
	const want = "read log x: offset: outside of the log (value 7 < limit 10) [log_start=10 log_end=20]: offset 7 is outside of [10, 20]"
	if err.Error() != want {
		t.Errorf("%q", err)
	}
	if err := OutOfRange("read log x", 21, 10, 20); !strings.Contains(err.Error(), "(value 21 > limit 20)") {
		t.Errorf("%q", err)
	}
	var gap error = &GapError{From: 3, Next: 9}
	if fault.CodeOf(gap) != fault.Corrupted || !errors.Is(gap, fault.Corrupted) || gap.Error() != "messages [3, 9) are lost to corruption" {
		t.Errorf("%v", gap)
	}
}

// countingLease counts its references.
type countingLease struct{ refs int }

func (c *countingLease) Retain()  { c.refs++ }
func (c *countingLease) Release() { c.refs-- }

// file is a SendFile over bytes.
type file struct{ *bytes.Reader }

func (file) OS() *os.File { return nil }

func TestRunReadAt(t *testing.T) {
	all := []byte("..0123456789..")
	for name, r := range map[string]*Run{
		"memory":      {Mem: all[2:12], Len: 10},
		"file":        {File: file{bytes.NewReader(all)}, Pos: 2, Len: 10},
		"end of file": {File: file{bytes.NewReader(all[:12])}, Pos: 2, Len: 10},
	} {
		for _, c := range []struct {
			off  int64
			n    int
			want string
			err  error
		}{
			{0, 10, "0123456789", nil}, {3, 4, "3456", nil}, {8, 2, "89", nil}, {8, 5, "89", io.EOF},
			{10, 1, "", io.EOF}, {99, 1, "", io.EOF}, {0, 0, "", nil},
		} {
			b := make([]byte, c.n)
			n, err := r.ReadAt(b, c.off)
			if string(b[:n]) != c.want || err != c.err {
				t.Errorf("%s: ReadAt(%d bytes, %d) = %q, %v", name, c.n, c.off, b[:n], err)
			}
		}
		if _, err := r.ReadAt(make([]byte, 1), -1); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	short := Run{File: file{bytes.NewReader(all[:5])}, Pos: 2, Len: 10}
	if n, err := short.ReadAt(make([]byte, 10), 0); n != 3 || err != io.EOF {
		t.Errorf("a file that became short: %d, %v", n, err)
	}
}

func TestRunLeases(t *testing.T) {
	var l countingLease
	l.Retain()
	r := Run{Mem: []byte("x"), Len: 1, Batches: 1}
	r.SetLease(&l)
	c := r
	c.Retain()
	r.Release()
	if l.refs != 1 || r.Mem != nil || r.Len != 0 {
		t.Fatalf("%d references, run %+v", l.refs, r)
	}
	r.Release() // is empty now
	c.Release()
	if l.refs != 0 {
		t.Fatalf("%d references", l.refs)
	}
	var none Run
	none.Retain()
	none.Release()
}
