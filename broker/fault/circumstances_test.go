package fault

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestDetails(t *testing.T) {
	inner := New(Corrupted, "read batch").With("position", 4096).With("file", "a b.seg")
	err := New(StorageFailed, "append").WithLimit(5, 3).With("partition", 3).With("note", "").With("path", "x\ny").WithCause(inner)
	want := `append: storage-failed (value 5 > limit 3) [partition=3 note="" path="x\ny"]: ` +
		`read batch: corrupted [position=4096 file="a b.seg"]`
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	wrapped := fmt.Errorf("outer: %w", errors.Join(io.EOF, err))
	for key, want := range map[string]string{"partition": "3", "position": "4096", "note": ""} {
		if got, ok := DetailOf(wrapped, key); !ok || got != want {
			t.Errorf("%s: %q, %v", key, got, ok)
		}
	}
	for _, e := range []error{nil, io.EOF, Closed, (*Error)(nil), errors.Join(io.EOF)} {
		if got, ok := DetailOf(e, "partition"); ok {
			t.Errorf("%v has a detail %q", e, got)
		}
	}
	if _, ok := DetailOf(wrapped, "colour"); ok {
		t.Error("a detail that nobody gave")
	}
}

func TestCollection(t *testing.T) {
	if err := Collect("open topic", "partition", []error{nil, nil}); err != nil {
		t.Errorf("nothing failed: %v", err)
	}
	errs := []error{nil, New(Full, "append").WithField("queue"), nil, fmt.Errorf("x: %w", io.EOF)}
	err := Collect("open topic", "partition", errs)
	want := "open topic: 2 of 4 failed: partition 1: append: queue: full; partition 3: x: EOF"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	var c *Collection
	if !errors.As(fmt.Errorf("outer: %w", err), &c) {
		t.Fatal("errors.As does not find it")
	}
	if !slices.Equal(c.Items(), []Item{{1, errs[1]}, {3, errs[3]}}) {
		t.Errorf("items %v", c.Items())
	}
	for _, target := range []error{Full, io.EOF} {
		if !errors.Is(err, target) {
			t.Errorf("errors.Is(%v) is false", target)
		}
	}
	if errors.Is(err, Closed) {
		t.Error("errors.Is finds what is not there")
	}
	var many []error
	for range 30 {
		many = append(many, Timeout)
	}
	text := Collect("", "message", many).Error()
	if !strings.HasPrefix(text, "30 of 30 failed: message 0: timeout; ") || !strings.HasSuffix(text, "; message 9: timeout; and 20 more") {
		t.Errorf("got %s", text)
	}
}

// The code of many failures is one that tells whether trying all again can
// help.
func TestCodeOfACollection(t *testing.T) {
	final := New(Timeout, "").WithBits(0)
	for _, tt := range []struct {
		errs  []error
		code  Code
		retry bool
	}{
		{[]error{Timeout, Full}, Timeout, true},
		{[]error{Timeout, New(NotFound, "a"), Exists}, NotFound, false},
		{[]error{nil, io.EOF}, Internal, false},
		{[]error{Full, io.EOF}, Internal, false},
		{[]error{Full, final}, Timeout, false},
		{[]error{Full, Collect("", "", []error{Full, Fenced})}, Fenced, false},
	} {
		err := fmt.Errorf("outer: %w", Collect("op", "item", tt.errs))
		if got := CodeOf(err); got != tt.code || Retryable(err) != tt.retry {
			t.Errorf("%v: %v, retryable %v", err, got, Retryable(err))
		}
	}
}

func makeError() *Error { return New(Internal, "x") }

func TestStacksOnlyWhenAsked(t *testing.T) {
	if s := Stack(makeError()); s != "" {
		t.Errorf("nobody asked:\n%s", s)
	}
	if s := Stack(fmt.Errorf("a: %w", makeError().WithStack())); !strings.Contains(s, "TestStacksOnlyWhenAsked") || strings.Contains(s, "fault.(*Error).WithStack") {
		t.Errorf("asked for:\n%s", s)
	}
	CaptureStacks(true)
	defer CaptureStacks(false)
	err := makeError()
	outer := New(Full, "y").WithCause(errors.Join(io.EOF, err))
	s := Stack(outer)
	if !strings.HasPrefix(s, "github.com/portask/portask/broker/fault.makeError\n") {
		t.Errorf("not where the cause was made:\n%s", s)
	}
	if Stack(err.WithStack()) != s {
		t.Error("the place moved")
	}
	for _, e := range []error{nil, io.EOF, Closed, errors.Join(io.EOF)} {
		if s := Stack(e); s != "" {
			t.Errorf("%v: %s", e, s)
		}
	}
}

func breakInvariant() { panic("position 7 of 5") }

func TestRecovered(t *testing.T) {
	run := func(f func()) (err error) {
		defer func() {
			if e := Recovered("run", recover()); e != nil {
				err = e
			}
		}()
		f()
		return nil
	}
	if err := run(func() {}); err != nil {
		t.Errorf("no panic: %v", err)
	}
	err := run(breakInvariant)
	if err == nil || err.Error() != "run: panic: position 7 of 5" || CodeOf(err) != Internal {
		t.Errorf("got %v", err)
	}
	if s := Stack(err); !strings.Contains(s, "fault.breakInvariant\n") {
		t.Errorf("the panic's place is missing:\n%s", s)
	}
	if err = run(func() { panic(fmt.Errorf("wrapped: %w", io.EOF)) }); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

// What is not asked for costs nothing: a plain error is one allocation, and
// asking a collection for its code none.
func TestAllocations(t *testing.T) {
	var e *Error
	if n := testing.AllocsPerRun(100, func() { e = New(Full, "x") }); n > 1 {
		t.Errorf("New allocates %v times", n)
	}
	_ = e
	err := Collect("op", "item", []error{Timeout, New(Full, "x")})
	if n := testing.AllocsPerRun(100, func() { sink = CodeOf(err) == Full && Retryable(err) }); n != 0 {
		t.Errorf("the code of a collection allocates %v times", n)
	}
}

func BenchmarkNew(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("stack=%v", on), func(b *testing.B) {
			CaptureStacks(on)
			defer CaptureStacks(false)
			b.ReportAllocs()
			for b.Loop() {
				sink = New(TooLarge, "parse frame").WithField("length").WithLimit(5, 3) != nil
			}
		})
	}
}
