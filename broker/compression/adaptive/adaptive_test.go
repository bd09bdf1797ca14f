package adaptive

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression"
)

// text is a body that compresses well, of n bytes.
func text(n int) []byte {
	return bytes.Repeat([]byte("time=2026-01-02T03:04:05Z level=info msg=\"batch stored\" partition=3 offset=4711\n"), n/80+1)[:n]
}

// random is one that does not.
func random(n int) []byte {
	b, x := make([]byte, n), uint64(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// link is the reading of one of so many Mbit/s.
func link(mbit float64) Reading { return Reading{Value: mbit * 125e3, Source: Local} }

// run lets a new Decider decide for n copies of body, with real outputs and the
// times of the embedded profiles, and returns what it used.
func run(t testing.TB, d *Decider, body []byte, n int) (used [Arms]int) {
	t.Helper()
	sizes := map[Arm]int{}
	for range n {
		x := d.Decide(body)
		used[x.Arm]++
		if x.Arm == Raw {
			continue
		}
		if _, ok := sizes[x.Arm]; !ok {
			out, err := compression.AppendCompress(nil, body, x.Arm.Algorithm(), x.Arm.Level())
			if err != nil {
				t.Fatal(err)
			}
			sizes[x.Arm] = len(out)
		}
		ns := int64(0)
		if x.Measure {
			ns = int64(x.Token.encode)
		}
		d.Observe(x.Token, len(body), sizes[x.Arm], ns, 0)
	}
	return used
}

func most(used [Arms]int) Arm {
	best := Raw
	for a := range Arm(Arms) {
		if used[a] > used[best] {
			best = a
		}
	}
	return best
}

func TestPricesDecide(t *testing.T) {
	cpu := func(v float64) Reading { return Reading{Value: v, Source: Local} }
	for _, tt := range []struct {
		name string
		body []byte
		c    Conditions
		ok   func(Arm) bool
	}{
		{"slow link, idle CPU: strong", text(64 << 10), Conditions{CPU: cpu(0.1), Link: link(5)}, func(a Arm) bool { return a >= 4 }},
		{"fast link, busy CPU: hardly", text(64 << 10), Conditions{CPU: cpu(0.9), Link: link(1e5)}, func(a Arm) bool { return a <= 3 }},
		{"random bytes: never", random(64 << 10), Conditions{CPU: cpu(0.5), Link: link(100)}, func(a Arm) bool { return a == Raw }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := New(Embedded(), Options{})
			d.SetConditions(tt.c)
			if used := run(t, d, tt.body, 300); !tt.ok(most(used)) {
				t.Errorf("used %v, mostly %s", used, most(used))
			}
		})
	}
}

func TestReadingsThatMakeNoSense(t *testing.T) {
	inf := math.Inf(1)
	for _, v := range []float64{math.NaN(), inf, -inf, -1} {
		var c Conditions
		for i := range readings {
			*c.at(i) = Reading{Value: v, Source: Local}
		}
		if got, want := c.Sanitised(), (Conditions{}).Sanitised(); got != want {
			t.Errorf("%v: %+v, want the defaults", v, got)
		}
	}
	good := Conditions{CPU: Reading{0.5, Local, StaleAfter}, Link: Reading{1e9, Broker, 0}}
	if s := good.Sanitised(); s.CPU != (Reading{0.5, Local, 0}) || s.Link != (Reading{1e9, Broker, 0}) {
		t.Errorf("good readings became %+v", s)
	}
	for name, r := range map[string]Reading{
		"stale": {0.5, Local, StaleAfter + 1}, "clock went back": {0.5, Local, -1}, "no source": {0.5, Unknown, 0}, "odd source": {0.5, 9, 0},
	} {
		if s := (Conditions{CPU: r}).Sanitised(); s.CPU != (Reading{Value: 0.25}) {
			t.Errorf("%s: %+v", name, s.CPU)
		}
	}
	if s := (Conditions{Link: Reading{0, Local, 0}, Latency: Reading{0, Local, 0}}).Sanitised(); s.Link.Value != 125e6 || s.Latency.Source != Unknown {
		t.Errorf("zeros: %+v", s)
	}
	if s := good.Sanitised(); s.Sanitised() != s {
		t.Error("sanitising twice changes something")
	}
}

func TestLogarithms(t *testing.T) {
	for x := 1e-6; x < 1e12; x *= 1.37 {
		if got, want := log2(x), math.Log2(x); math.Abs(got-want) > 1e-5 {
			t.Fatalf("log2(%v) = %v, want %v", x, got, want)
		}
		if got := exp2(log2(x)); math.Abs(got/x-1) > 1e-5 {
			t.Fatalf("exp2(log2(%v)) = %v", x, got)
		}
	}
}

func TestArmNames(t *testing.T) {
	for a := range Arm(Arms) {
		if got, ok := ParseArm(a.String()); !ok || got != a || strings.Contains(a.String(), " ") {
			t.Errorf("%d: %s, %v", a, got, ok)
		}
	}
	if _, ok := ParseArm("zip-9"); ok || Arm(Arms).String() != "invalid" {
		t.Error("an unknown arm has a name")
	}
}
