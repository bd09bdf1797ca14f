package message

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
)

// same compares headers with a nil value the same as an empty one.
func sameHeaders(a, b Headers) bool {
	return slices.EqualFunc(a, b, func(x, y Header) bool { return x.Key == y.Key && string(x.Value) == string(y.Value) })
}

func TestHeadersRoundTrip(t *testing.T) {
	var h Headers
	for _, v := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		h.SetInt("n", v)
		if got, err := h.Int("n"); got != v || err != nil {
			t.Errorf("%d came back as %d, %v", v, got, err)
		}
	}
	for _, v := range []float64{0, math.Copysign(0, -1), 0.1, -1e300, 5e-324, math.MaxFloat64, math.Inf(1), math.Inf(-1)} {
		h.SetFloat("f", v)
		got, err := h.Float("f")
		if got != v || math.Signbit(got) != math.Signbit(v) || err != nil {
			t.Errorf("%v came back as %v, %v", v, got, err)
		}
	}
	h.SetFloat("f", math.NaN())
	if got, err := h.Float("f"); !math.IsNaN(got) || err != nil {
		t.Errorf("NaN came back as %v, %v", got, err)
	}
	for _, v := range []bool{true, false} {
		h.SetBool("b", v)
		if got, err := h.Bool("b"); got != v || err != nil {
			t.Errorf("%v came back as %v, %v", v, got, err)
		}
	}
	for _, v := range []time.Time{
		time.Unix(0, 0).UTC(),
		time.Date(2026, 2, 28, 23, 59, 59, 123456789, time.FixedZone("", -5*3600-1800)),
		time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if err := h.SetTime("t", v); err != nil {
			t.Errorf("%v: %v", v, err)
		}
		got, err := h.Time("t")
		if !got.Equal(v) || err != nil {
			t.Errorf("%v came back as %v, %v", v, got, err)
		}
		_, zone := got.Zone()
		if _, want := v.Zone(); zone != want {
			t.Errorf("%v came back in zone %d", v, zone)
		}
	}
	for _, v := range []string{"", "grüße", "a=b,c"} {
		h.SetText("s", v)
		if got, err := h.Text("s"); got != v || err != nil {
			t.Errorf("%q came back as %q, %v", v, got, err)
		}
	}
	h.SetBytes("raw", []byte{0, 255})
	if got, err := h.Bytes("raw"); string(got) != "\x00\xff" || err != nil {
		t.Errorf("%x, %v", got, err)
	}
	if len(h) != 6 {
		t.Errorf("%d headers of six names: %v", len(h), h)
	}
	h.SetContentType("application/json")
	if got := h.ContentType(); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	if got := (Headers{}).ContentType(); got != "" {
		t.Errorf("content type %q of a message without", got)
	}
}

// The forms are a promise to other clients.
func TestHeaderForms(t *testing.T) {
	var h Headers
	h.SetInt("int", -42)
	h.SetFloat("float", 0.1)
	h.SetFloat("large", math.Inf(1))
	h.SetFloat("small", math.Inf(-1))
	h.SetBool("bool", true)
	if err := h.SetTime("time", time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)); err != nil {
		t.Fatal(err)
	}
	want := Headers{
		{"int", []byte("-42")}, {"float", []byte("0.1")}, {"large", []byte("Inf")}, {"small", []byte("-Inf")},
		{"bool", []byte("true")}, {"time", []byte("2026-01-02T03:04:05.6Z")},
	}
	if !sameHeaders(h, want) {
		t.Errorf("%s, want %s", h, want)
	}
}

func TestHeadersMisread(t *testing.T) {
	h := Headers{{"n", []byte("4.5")}, {"f", []byte("1,5")}, {"b", []byte("True")}, {"t", []byte("2026-01-02 03:04")}, {"big", []byte("9223372036854775808")}, {"long", make([]byte, 1000)}}
	for name, err := range map[string]error{
		"n":    second(h.Int("n")),
		"big":  second(h.Int("big")),
		"long": second(h.Int("long")),
		"f":    second(h.Float("f")),
		"b":    second(h.Bool("b")),
		"t":    second(h.Time("t")),
	} {
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.Invalid || f.Field != "headers."+name || f.Info().Category != fault.CategoryMessage || len(err.Error()) > 300 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err := range []error{second(h.Int("N")), second(h.Float("")), second(h.Bool("x")), second(h.Time("x")), second(h.Text("x")), second(h.Bytes("x")), second(h.Trace())} {
		if err != error(fault.NotFound) {
			t.Errorf("a header that is not there: %v", err)
		}
	}
	before := slices.Clone(h)
	for _, v := range []time.Time{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 90)), time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 24*3600))} {
		if err := h.SetTime("t", v); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", v, err)
		}
	}
	if !sameHeaders(h, before) {
		t.Errorf("a refused time changed %s to %s", before, h)
	}
}

func second[T any](_ T, err error) error { return err }

// Set replaces the first and removes the others; what a value was stored in is
// not written to.
func TestHeadersThatRepeat(t *testing.T) {
	view := []byte("one")
	h := Headers{{"a", []byte("0")}, {"x", view}, {"b", []byte("1")}, {"x", []byte("two")}, {"x", []byte("three")}, {"c", []byte("2")}}
	if got, _ := h.Text("x"); got != "one" {
		t.Errorf("the first is %q", got)
	}
	h.SetInt("x", 7)
	if want := (Headers{{"a", []byte("0")}, {"x", []byte("7")}, {"b", []byte("1")}, {"c", []byte("2")}}); !sameHeaders(h, want) {
		t.Errorf("%s, want %s", h, want)
	}
	if string(view) != "one" {
		t.Errorf("the value before is %q now", view)
	}
	h = append(h, Header{"a", []byte("3")})
	if n := h.Remove("a"); n != 2 || h.Has("a") || !h.Has("b") {
		t.Errorf("%d removed, %s left", n, h)
	}
	if n := h.Remove("a"); n != 0 {
		t.Errorf("%d removed of none", n)
	}
}

func TestTrace(t *testing.T) {
	const text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	h := Headers{{HeaderTraceParent, []byte(text)}, {HeaderTraceState, []byte("congo=t61rcWkgMzE")}}
	tr, err := h.Trace()
	if err != nil || tr.String() != text || tr.Flags != 1 || tr.State != "congo=t61rcWkgMzE" {
		t.Fatalf("%+v, %v", tr, err)
	}
	child := tr.Child()
	if child.ID != tr.ID || child.Span == tr.Span || child.State != tr.State || child.Flags != tr.Flags {
		t.Errorf("%v has the child %v", tr, child)
	}
	h.SetTrace(child)
	if back, err := h.Trace(); back != child || err != nil || len(h) != 2 {
		t.Errorf("%+v, %v, %s", back, err, h)
	}
	child.State = ""
	h.SetTrace(child)
	if back, err := h.Trace(); back != child || err != nil || len(h) != 1 {
		t.Errorf("%+v, %v, %s", back, err, h)
	}
	a, b := NewTrace(), NewTrace()
	if a.ID == b.ID || a.Span == b.Span || a.Flags != 1 || a.ID == [16]byte{} {
		t.Errorf("two new traces: %v, %v", a, b)
	}
	// A later version may say more behind what is known of it.
	later := "cc" + text[2:] + "-what-comes"
	if tr, ok := parseTraceParent([]byte(later)); !ok || tr.String() != text {
		t.Errorf("%q: %v", later, tr)
	}
	for _, bad := range []string{
		"", text[:54], text + "-", text + "0", "ff" + text[2:], "cc" + text[2:] + "x",
		strings.ToUpper(text), strings.Replace(text, "4bf9", "4bg9", 1), strings.ReplaceAll(text, "-", "_"),
		"00-" + strings.Repeat("0", 32) + text[35:], text[:36] + strings.Repeat("0", 16) + text[52:],
	} {
		h := Headers{{HeaderTraceParent, []byte(bad)}}
		if tr, err := h.Trace(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, %v", bad, tr, err)
		}
	}
}

func FuzzTraceParent(f *testing.F) {
	f.Add([]byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
	f.Add([]byte("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, ok := parseTraceParent(b)
		if !ok {
			return
		}
		if want := "00" + string(b[2:traceParentBytes]); tr.String() != want {
			t.Errorf("%q is %v", b, tr)
		}
	})
}

// Whatever a header holds, reading it takes no memory worth the name, and what
// is read can be set and read again.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte("42"))
	f.Add([]byte("-1.5e3"))
	f.Add([]byte("true"))
	f.Add([]byte("2026-01-02T03:04:05.6+01:00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := Headers{{"x", b}}
		if v, err := h.Int("x"); err == nil {
			h.SetInt("y", v)
			if back, err := h.Int("y"); back != v || err != nil {
				t.Errorf("%q: %d, %d, %v", b, v, back, err)
			}
		}
		if v, err := h.Float("x"); err == nil {
			h.SetFloat("y", v)
			if back, err := h.Float("y"); back != v && !math.IsNaN(v) || err != nil {
				t.Errorf("%q: %v, %v, %v", b, v, back, err)
			}
		}
		if v, err := h.Time("x"); err == nil {
			if err := h.SetTime("y", v); err != nil {
				t.Errorf("%q: %v: %v", b, v, err)
			} else if back, err := h.Time("y"); !back.Equal(v) || err != nil {
				t.Errorf("%q: %v, %v, %v", b, v, back, err)
			}
		}
	})
}

func TestHeaderAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocation budgets are checked without the race detector")
	}
	h := Headers{{"a", []byte("1")}, {"b", []byte("true")}, {"c", []byte("0.5")}, {HeaderTraceParent, []byte(NewTrace().String())}}
	for name, f := range map[string]func(){
		"Int":   func() { _, _ = h.Int("a") },
		"Bool":  func() { _, _ = h.Bool("b") },
		"Float": func() { _, _ = h.Float("c") },
		"Trace": func() { _, _ = h.Trace() },
		"none":  func() { _, _ = h.Int("none") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times, want 0", name, n)
		}
	}
}

// BenchmarkHeaders reads the last of so many headers.
func BenchmarkHeaders(b *testing.B) {
	for _, n := range []string{"4", "16", "64"} {
		var h Headers
		count := map[string]int{"4": 4, "16": 16, "64": 64}[n]
		for i := range count {
			h.SetInt("header-"+string(rune('a'+i)), int64(i))
		}
		last := h[count-1].Key
		b.Run("headers="+n+"/type=int", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Int(last); err != nil {
					b.Fatal(err)
				}
			}
		})
		index := make(map[string][]byte, count)
		b.Run("headers="+n+"/type=map-made-and-read", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				clear(index)
				for i := range h {
					index[h[i].Key] = h[i].Value
				}
				if _, ok := index[last]; !ok {
					b.Fatal("not there")
				}
			}
		})
	}
}
