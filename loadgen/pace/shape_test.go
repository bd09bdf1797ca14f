package pace

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func shapes() map[string]Shape {
	return map[string]Shape{
		"flat":                    Flat(777.7),
		"slow":                    Flat(0.3),
		"ramp up":                 Ramp{From: 10, To: 5000, Over: 7 * time.Second},
		"ramp from nothing":       Ramp{From: 0, To: 3000, Over: 5 * time.Second},
		"ramp down":               Ramp{From: 4000, To: 1, Over: 9 * time.Second},
		"level ramp":              Ramp{From: 500, To: 500, Over: 3 * time.Second},
		"staircase":               Staircase{From: 100, To: 3000, Steps: 7, Over: 8 * time.Second},
		"staircase down":          Staircase{From: 3000, To: 100, Steps: 3, Over: 8 * time.Second},
		"bursts":                  Bursts{Rated: 5000, Base: 30, On: 130 * time.Millisecond, Off: 370 * time.Millisecond},
		"bursts out of nothing":   Bursts{Rated: 100, On: 100 * time.Millisecond, Off: 900 * time.Millisecond},
		"sine":                    Sine{Mean: 2000, Amplitude: 1500, Period: 3 * time.Second},
		"sine that touches the 0": Sine{Mean: 1000, Amplitude: 1000, Period: 700 * time.Millisecond},
	}
}

// Due is the integral of Rate, and When its inverse.
func TestShapesAreIntegralsAndInverses(t *testing.T) {
	const step = 100 * time.Microsecond
	for name, s := range shapes() {
		sum := 0.0
		for at := time.Duration(0); at < 10*time.Second; at += step {
			if at%(37*step) == 0 {
				if due := s.Due(at); math.Abs(due-sum) > 1e-3*(1+sum) {
					t.Fatalf("%s: %v messages are due by %v, the rate's integral is %v", name, due, at, sum)
				}
			}
			sum += (s.Rate(at) + s.Rate(at+step/2)) / 2 * step.Seconds()
		}
		last := -1.0
		for n := 0.0; n < s.Due(10*time.Second); n += 0.37 {
			w := s.When(n)
			if w < last {
				t.Fatalf("%s: message %v is due at %v, after %v", name, n, w, last)
			}
			last = w
			if due := s.Due(time.Duration(w)); math.Abs(due-n) > 1e-4*(1+n/1e3)+1e-9*s.Rate(time.Duration(w)) {
				t.Fatalf("%s: %v messages are due by When(%v) = %v", name, due, n, time.Duration(w))
			}
		}
	}
	if w := Flat(0).When(0); !math.IsInf(w, 1) {
		t.Errorf("no rate: When = %v", w)
	}
	// A burst's first message is due when the burst begins, not when the one
	// before it ended.
	b := Bursts{Rated: 100, On: 100 * time.Millisecond, Off: 900 * time.Millisecond}
	for n, want := range map[float64]time.Duration{0: 0, 9: 90 * time.Millisecond, 10: time.Second, 20: 2 * time.Second, 25: 2050 * time.Millisecond} {
		if got := time.Duration(b.When(n)).Round(time.Microsecond); got != want {
			t.Errorf("message %v of bursts is due at %v, want %v", n, got, want)
		}
	}
}

func collect(t *testing.T, seed uint64, phases ...Phase) (times []int64, phase []int) {
	t.Helper()
	s, err := NewSequence(1000, seed, phases...)
	if err != nil {
		t.Fatal(err)
	}
	for {
		at := s.Next()
		if at == Never {
			if s.Next() != Never {
				t.Fatal("something follows the end")
			}
			return times, phase
		}
		times, phase = append(times, at), append(phase, s.Phase())
	}
}

// For every shape, evenly and at random, alone and after another: times never
// decrease, the same seed gives the same ones, and in any interval there are as
// many as the integral of the rate says.
func TestCountsFollowTheIntegral(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, shape := range shapes() {
		for _, poisson := range []bool{false, true} {
			phases := []Phase{
				{Length: 3 * time.Second, Shape: Flat(100), Random: poisson},
				{Length: 10 * time.Second, Shape: shape, Random: poisson},
			}
			name := fmt.Sprintf("%s, random %v", name, poisson)
			times, in := collect(t, 7, phases...)
			again, _ := collect(t, 7, phases...)
			other, _ := collect(t, 8, phases...)
			if !reflect.DeepEqual(times, again) {
				t.Errorf("%s: the same seed gave other times", name)
			}
			if reflect.DeepEqual(times, other) == poisson {
				t.Errorf("%s: another seed: the same times = %v", name, !poisson)
			}
			seq, err := NewSequence(1000, 7, phases...)
			if err != nil {
				t.Fatal(err)
			}
			second := int64(1000 + 3*time.Second)
			for i, at := range times {
				if i > 0 && at < times[i-1] || at < 1000 || at >= second+int64(10*time.Second) || (in[i] == 0) != (at < second) {
					t.Fatalf("%s: message %d is due at %d in phase %d", name, i, at, in[i])
				}
			}
			for range 200 {
				from := 1000 + random.Int64N(int64(13*time.Second))
				to := from + random.Int64N(int64(13*time.Second)+1000-from)
				got := 0
				for _, at := range times {
					if at >= from && at < to {
						got++
					}
				}
				want := seq.Due(from, to)
				slack := 2.01 // one for the end of each phase
				if poisson {
					slack = 6*math.Sqrt(want) + 3
				}
				if math.Abs(float64(got)-want) > slack {
					t.Fatalf("%s: %d messages in [%v, %v), the integral is %.2f", name, got, time.Duration(from), time.Duration(to), want)
				}
			}
		}
	}
}

// Gaps of a random flat phase are exponential: their deviation is their mean.
func TestPoissonGaps(t *testing.T) {
	times, _ := collect(t, 7, Phase{Length: 200 * time.Second, Shape: Flat(1000), Random: true})
	var sum, squares float64
	for i := 1; i < len(times); i++ {
		d := float64(times[i]-times[i-1]) / 1e6 // ms, mean 1
		sum += d
		squares += d * d
	}
	n := float64(len(times) - 1)
	mean := sum / n
	if sd := math.Sqrt(squares/n - mean*mean); math.Abs(mean-1) > 0.02 || math.Abs(sd-1) > 0.02 {
		t.Errorf("gaps of %.3f ± %.3f ms, want 1 ± 1", mean, sd)
	}
}

func TestTraceIsReplayed(t *testing.T) {
	tr, err := ReadTrace(strings.NewReader(TraceHead + "\n# a comment\n0,100,0\n1000000,200,ff\r\n1000000,300,0\n5000000,50,1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if least, most := tr.Sizes(); tr.Len() != 4 || least != 50 || most != 300 {
		t.Errorf("%d messages of %d to %d B", tr.Len(), least, most)
	}
	s, err := NewSequence(100, 1, Phase{Length: 2 * time.Millisecond, Trace: tr, Speed: 2}, Phase{Length: 2 * time.Second, Shape: Flat(1)})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		at   int64
		item Item
	}{
		{100, Item{At: 0, Size: 100, Key: 0}}, {500_100, Item{At: 1_000_000, Size: 200, Key: 0xff}}, {500_100, Item{At: 1_000_000, Size: 300, Key: 0}},
		{2_000_100, Item{}}, {1_002_000_100, Item{}}, // what was due at 2.5 ms is behind the phase's end
	}
	for i, w := range want {
		if at := s.Next(); at != w.at || s.Item() != w.item {
			t.Errorf("message %d: due at %d as %+v, want %d as %+v", i, at, s.Item(), w.at, w.item)
		}
	}
	if d := s.Due(0, 500_101); d != 3 {
		t.Errorf("%v due within the first half millisecond, want 3", d)
	}
	var b bytes.Buffer
	if n, err := tr.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatal(n, err)
	}
	again, err := ReadTrace(&b)
	if err != nil || !reflect.DeepEqual(again.items, tr.items) {
		t.Errorf("written and read: %+v, %v", again, err)
	}
}

func TestBadTraces(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "without messages",
		"0,1,0\n":                              "line 1",
		TraceHead + "\n":                       "without messages",
		TraceHead + "\n5,1,0\n4,1,0\n":         "line 3: due at 4",
		TraceHead + "\n1,2\n":                  "line 2",
		TraceHead + "\n-1,2,0\n":               "time",
		TraceHead + "\n1,x,0\n":                "size",
		TraceHead + "\n1,9999999999,0\n":       "size",
		TraceHead + "\n1,1,xyz\n":              "key",
		TraceHead + "\n1,1,1,0\n":              "topic",
		TraceHead + strings.Repeat("x", 10000): "a line of more than",
	} {
		if _, err := ReadTrace(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
	if _, err := NewTrace([]Item{{At: 2}, {At: 1}}); err == nil {
		t.Error("decreasing times were accepted")
	}
	for _, p := range []Phase{{}, {Length: time.Second}, {Length: time.Second, Trace: new(Trace)}, {Length: time.Second, Trace: new(Trace), Shape: Flat(1)}} {
		if _, err := NewSequence(0, 1, p); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
	if _, err := NewSequence(0, 1); err == nil {
		t.Error("no phases were accepted")
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add([]byte(TraceHead + "\n0,100,0\n1000000,200,ff\n"))
	f.Add(recorded(Item{Size: 100, Topic: 1}, Item{At: 1000, Size: 5, Topic: 2, Key: 77}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := ReadTrace(bytes.NewReader(b))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := tr.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		again, err := ReadTrace(&out)
		if err != nil || !reflect.DeepEqual(tr.items, again.items) {
			t.Errorf("read back as %v, %v", again, err)
		}
	})
}

// BenchmarkNext is what an intended time costs, on the pacer's thread.
func BenchmarkNext(b *testing.B) {
	for _, name := range []string{"flat", "ramp up", "staircase", "bursts", "sine"} {
		for _, random := range []bool{false, true} {
			b.Run(fmt.Sprintf("shape=%s/random=%v", strings.ReplaceAll(name, " ", "-"), random), func(b *testing.B) {
				s, err := NewSequence(0, 1, Phase{Length: 1 << 60, Shape: shapes()[name], Random: random})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					s.Next()
				}
			})
		}
	}
}
