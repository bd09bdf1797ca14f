package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"testing"
	"time"
)

func TestTableIsComplete(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[string]Code{}
	for _, c := range Codes() {
		i := c.Info()
		if !name.MatchString(i.Name) {
			t.Errorf("code %d: name %q is not lower case with hyphens", c, i.Name)
		}
		if other, dup := seen[i.Name]; dup {
			t.Errorf("codes %d and %d share the name %q", other, c, i.Name)
		}
		seen[i.Name] = c
		if i.Category == CategoryNone || int(i.Category) >= len(categoryNames) {
			t.Errorf("code %d (%s): category %d", c, i.Name, i.Category)
		}
		if i.Text == "" || i.Text[len(i.Text)-1] == '.' {
			t.Errorf("code %d (%s): text %q", c, i.Name, i.Text)
		}
		if i.with(i.Bits()) != i {
			t.Errorf("code %d (%s): flags %d are not those of the row", c, i.Name, i.Bits())
		}
		if c > 255 {
			t.Errorf("code %d (%s) would allocate when compared: keep codes below 256", c, i.Name)
		}
	}
	if len(seen) < 30 {
		t.Errorf("only %d codes", len(seen))
	}
}

// The numbers are on the wire and in other people's logs: they may be added to,
// never changed.
func TestNumbersAreFrozen(t *testing.T) {
	for c, n := range map[Code]uint16{
		None: 0, Internal: 1, Invalid: 2, TooLarge: 3, NotFound: 4, Exists: 5, Timeout: 6, Canceled: 7, Full: 8,
		Corrupted: 9, Closed: 10, NotSupported: 11, ResourceExhausted: 12, ShuttingDown: 13, OutOfRange: 14, Expired: 15, MemoryExhausted: 16,
		ConnectionLost: 32, VersionUnsupported: 33, ProtocolViolation: 34, HandleUnknown: 35, CreditExceeded: 36, SlowPeer: 37,
		Unauthorized: 64, Fenced: 80, OutOfSequence: 81, DuplicateSequence: 82, LevelUnavailable: 83,
		StorageFailed: 96, StorageFull: 97, Locked: 98, NewerFormat: 99,
	} {
		if uint16(c) != n {
			t.Errorf("%v = %d, was %d", c, c, n)
		}
	}
	for c, n := range map[Category]uint8{
		CategoryNone: 0, CategoryMessage: 1, CategoryTopic: 2, CategoryConsumer: 3, CategoryStorage: 4, CategoryNetwork: 5,
		CategorySerialization: 6, CategoryCompression: 7, CategoryConfiguration: 8, CategorySecurity: 9, CategorySystem: 10,
	} {
		if uint8(c) != n {
			t.Errorf("%v = %d, was %d", c, c, n)
		}
	}
	if BitRetryable != 1 || BitRetryElsewhere != 2 || BitClosesHandle != 4 || BitClosesConnection != 8 {
		t.Error("flags moved")
	}
}

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		err  *Error
		want string
	}{
		{New(TooLarge, "parse frame").WithField("length").WithDetail("frame exceeds the maximum").WithLimit(5, 3).WithCause(io.EOF),
			"parse frame: length: frame exceeds the maximum (value 5 > limit 3): EOF"},
		{New(TooLarge, "parse frame").WithField("length").WithLimit(5, 12), "parse frame: length: too-large (value 5 < limit 12)"},
		{New(Full, "").WithField("handles").WithLimit(64, 64), "handles: full (value 64 = limit 64)"},
		{New(NotFound, "describe").WithDetail("topic %q", "orders"), `describe: topic "orders"`},
		{New(NotFound, "describe"), "describe: not-found"},
		{New(Code(999), ""), "code-999"},
		{New(Invalid, "").WithDetail("100%% sure"), "100% sure"},
		{nil, "<nil>"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestIsAndAs(t *testing.T) {
	cause := New(StorageFull, "append").WithCause(io.ErrShortWrite)
	err := fmt.Errorf("produce: %w", New(StorageFailed, "orders-0").WithCause(cause))
	for _, target := range []error{StorageFailed, StorageFull, &Error{Code: StorageFailed}, io.ErrShortWrite} {
		if !errors.Is(err, target) {
			t.Errorf("errors.Is(%v) is false", target)
		}
	}
	for _, target := range []error{NotFound, &Error{Code: NotFound}, (*Error)(nil), io.EOF} {
		if errors.Is(err, target) {
			t.Errorf("errors.Is(%v) is true", target)
		}
	}
	var e *Error
	if !errors.As(err, &e) || e.Op != "orders-0" {
		t.Errorf("errors.As found %+v", e)
	}
	var c Code
	if !errors.As(fmt.Errorf("x: %w", Fenced), &c) || c != Fenced {
		t.Errorf("errors.As found the code %v", c)
	}
	if !errors.Is(Fenced, Fenced) || errors.Is(Fenced, Closed) {
		t.Error("a Code is not its own sentinel")
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, None},
		{io.EOF, Internal},
		{NotFound, NotFound},
		{fmt.Errorf("a: %w", fmt.Errorf("b: %w", Locked)), Locked},
		{errors.Join(io.EOF, New(Full, "q"), Closed), Full},
		{fmt.Errorf("%w and %w", io.EOF, Closed), Closed},
		{errors.Join(io.EOF, fmt.Errorf("deep: %w", errors.Join(io.EOF, Fenced))), Fenced},
		{New(Invalid, "a").WithCause(New(Corrupted, "b")), Invalid},
		{fmt.Errorf("dial: %w", context.DeadlineExceeded), Timeout},
		{errors.Join(context.Canceled), Canceled},
		{(*Error)(nil), Internal},
		{fmt.Errorf("x: %w", Code(777)), Code(777)},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestOverrides(t *testing.T) {
	plain := New(TooLarge, "frame")
	if Retryable(plain) || plain.Info().ClosesConnection {
		t.Errorf("table row of too-large: %+v", plain.Info())
	}
	e := New(TooLarge, "frame").WithBits(BitRetryable | BitClosesConnection).WithCategory(CategoryNetwork).WithRetryAfter(time.Second)
	i := InfoOf(fmt.Errorf("x: %w", e))
	if !i.Retryable || i.RetryElsewhere || i.ClosesHandle || !i.ClosesConnection || i.Category != CategoryNetwork || i.Name != "too-large" {
		t.Errorf("overridden: %+v", i)
	}
	if i.Bits() != BitRetryable|BitClosesConnection || e.Bits() != i.Bits() {
		t.Errorf("bits %d and %d", i.Bits(), e.Bits())
	}
	if got := RetryAfter(errors.Join(e)); got != time.Second {
		t.Errorf("RetryAfter = %v", got)
	}
	if got := New(ConnectionLost, "").Bits(); got != 15 {
		t.Errorf("bits of connection-lost: %d", got)
	}
	if Retryable(New(Timeout, "").WithBits(0)) {
		t.Error("flags overridden by none are still set")
	}
	newer := New(Code(700), "").WithBits(BitRetryable)
	if !Retryable(newer) || newer.Info().Category != CategoryNone {
		t.Errorf("code of a newer version: %+v", newer.Info())
	}
	if Retryable(nil) || RetryAfter(nil) != 0 || RetryAfter(Timeout) != 0 {
		t.Error("nothing failed, yet a retry is advised")
	}
	if !Retryable(Timeout) || !Retryable(context.DeadlineExceeded) {
		t.Error("a timeout is not retryable")
	}
}

func TestFind(t *testing.T) {
	if e := Find(io.EOF); e != nil {
		t.Errorf("found %v", e)
	}
	if e := Find(fmt.Errorf("x: %w", Closed)); e == nil || e.Code != Closed {
		t.Errorf("found %v", e)
	}
	in := New(Closed, "y")
	if e := Find(errors.Join(io.EOF, in)); e != in {
		t.Errorf("found %v", e)
	}
}

func TestUnknownNumbersHaveNames(t *testing.T) {
	if got := Category(77).String(); got != "category-77" {
		t.Error(got)
	}
	if got := Code(17).String(); got != "code-17" || Code(17).Known() {
		t.Error(got)
	}
	if CategoryStorage.String() != "storage" {
		t.Error(CategoryStorage.String())
	}
}

var sink bool

func TestComparingAllocatesNothing(t *testing.T) {
	var err error = fmt.Errorf("wrapped: %w", New(Timeout, "op").WithCause(io.EOF))
	joined := errors.Join(io.EOF, err)
	code := Timeout
	for name, f := range map[string]func(){
		"errors.Is": func() { sink = errors.Is(err, Timeout) },
		"variable":  func() { sink = errors.Is(err, code) },
		"CodeOf":    func() { sink = CodeOf(joined) == Timeout },
		"Retryable": func() { sink = Retryable(joined) },
		"sentinel":  func() { var e error = Closed; sink = errors.Is(e, Closed) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkCodeOf(b *testing.B) {
	err := fmt.Errorf("wrapped: %w", New(Timeout, "op").WithCause(io.EOF))
	for _, c := range []struct {
		name string
		err  error
	}{{"form=code", Closed}, {"form=wrapped", err}, {"form=joined", errors.Join(io.EOF, err)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink = CodeOf(c.err) == Timeout
			}
		})
	}
}
