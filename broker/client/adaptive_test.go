package client

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

func chooserOf(tb testing.TB) *chooser {
	tb.Helper()
	return newChooser(&policies{artefact: adaptive.Embedded()}, "orders", "test")
}

// lines is a body of n bytes that compresses well.
func lines(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, `{"order":%d,"status":"delivered","country":"NL","amount":%d}`+"\n", i, i*7919%100000)
	}
	return b[:n]
}

// What a chooser makes of a body can be read, whatever it chose, and its counts
// add up.
func TestChooserCompresses(t *testing.T) {
	ch := chooserOf(t)
	ch.conditions(adaptive.Conditions{Link: adaptive.Reading{Value: 2.5e6, Source: adaptive.Local}})
	noise := make([]byte, 64<<10)
	x := uint64(1)
	for i := range noise {
		x = x*6364136223846793005 + 1442695040888963407
		noise[i] = byte(x >> 56)
	}
	var in uint64
	for i, body := range [][]byte{lines(64 << 10), noise, lines(3000), lines(100), make([]byte, 64<<10)} {
		for range 60 {
			out, a := ch.compress([]byte("head"), body)
			if !strings.HasPrefix(string(out), "head") {
				t.Fatal("what stood before is gone")
			}
			if a == message.None {
				if len(out) != 4 {
					t.Fatalf("body %d: raw, and %d bytes appended", i, len(out)-4)
				}
			} else if back, err := compression.AppendDecompress(nil, out[4:], a, len(body), compression.Limits{}); err != nil || !bytes.Equal(back, body) {
				t.Fatalf("body %d by %v: %v", i, a, err)
			}
			if n := len(out) - 4; n > ch.bound(len(body)) {
				t.Fatalf("body %d: %d bytes, bound %d", i, n, ch.bound(len(body)))
			}
			in += uint64(len(body))
		}
	}
	c, ok := ch.explain()
	if !ok {
		t.Fatal("nothing to explain")
	}
	var batches, bytesIn uint64
	compressed := false
	for _, u := range c.Uses {
		batches, bytesIn = batches+u.Batches, bytesIn+u.In
		compressed = compressed || u.Arm != adaptive.Raw && u.Out < u.In
		if u.Batches > 0 && u.Predicted == 0 {
			t.Errorf("%v: no prediction", u.Arm)
		}
	}
	if batches != 300 || bytesIn != in || !compressed || len(c.Turns) == 0 {
		t.Errorf("%d batches, %d bytes of %d, %+v", batches, bytesIn, in, c.Turns)
	}
	r, ok := ch.report(compression.Adaptive)
	if !ok || r.Batches != 300 || len(r.Arms) != adaptive.Arms {
		t.Errorf("%+v", r)
	}
	var back wire.Report
	if err := back.Parse(r.Append(nil)); err != nil {
		t.Error(err)
	}
	if _, ok := chooserOf(t).explain(); ok {
		t.Error("explains what it never did")
	}
}

// What is decided for a batch is decided without allocating.
func TestChooserAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	ch := chooserOf(t)
	body := lines(64 << 10)
	out := make([]byte, 0, ch.bound(len(body)))
	for range 100 {
		ch.compress(out, body)
	}
	// The least of a few windows: what compressing takes is measured, and where
	// that says to use another algorithm, its first coder is made.
	for what, f := range map[string]func(){
		"decision": func() {
			d, _, _ := ch.decide(body)
			ch.observe(d, len(body), len(body)/4, true, 0)
		},
		"batch": func() { ch.compress(out, body) },
	} {
		n := math.Inf(1)
		for i := 0; i < 8 && n > 0; i++ {
			n = min(n, testing.AllocsPerRun(50, f))
		}
		if n != 0 {
			t.Errorf("%v allocations a %s", n, what)
		}
	}
}

// A recorded log of several choosers makes the same decisions again.
func TestDecisionsReplay(t *testing.T) {
	var log bytes.Buffer
	cfg, other, stranger := defaults(), defaults(), defaults()
	record := WithDecisionLog(&log, 0)
	record(&cfg)
	record(&other)
	record(&stranger)
	own, err := os.ReadFile(filepath.Join("..", "compression", "adaptive", "artefact.json"))
	if err != nil {
		t.Fatal(err)
	}
	stranger.artefact = append(own, '\n')
	p, p2 := cfg.policies(), other.policies()
	if x := stranger.policies(); x.rec != nil || x.note != "" || p.rec == nil || p2.rec != p.rec {
		t.Fatalf("recorders %p, %p, and %p of another artefact (%s)", p.rec, p2.rec, x.rec, x.note)
	}
	a, b := newChooser(&p, "a", "x"), newChooser(&p2, "b", "x")
	for i := range 500 {
		a.compress(nil, lines(8<<10+i))
		b.compress(nil, lines(300))
		if i%100 == 0 {
			a.conditions(adaptive.Conditions{CPU: adaptive.Reading{Value: float64(i) / 600, Source: adaptive.Local}, Link: adaptive.Reading{Value: 1e6, Source: adaptive.Local, Age: int64(i)}})
		}
	}
	p.close(&cfg)
	p2.close(&other)
	var first, second bytes.Buffer
	r, err := adaptive.Replay(bytes.NewReader(log.Bytes()), p.artefact, &first, false)
	if err != nil || r.Differ != 0 || r.Decisions != 1000 || r.Truncated {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := adaptive.Replay(bytes.NewReader(log.Bytes()), p.artefact, &second, false); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("printed otherwise the second time: %v", err)
	}
}

// An artefact that is damaged or of another kind is refused, and the embedded one
// decides, which is said.
func TestBadArtefact(t *testing.T) {
	for _, b := range []string{"", "{", `{"format":"something else"}`, strings.Repeat("x", adaptive.ArtefactMaxBytes+1)} {
		cfg := defaults()
		WithPolicyArtefact([]byte(b))(&cfg)
		p := cfg.policies()
		if p.artefact != adaptive.Embedded() || !strings.Contains(p.note, "embedded") {
			t.Errorf("%.20q: note %q", b, p.note)
		}
	}
	cfg := defaults()
	if p := cfg.policies(); p.note != "" {
		t.Errorf("without one: %q", p.note)
	}
}

// BenchmarkDecide is what deciding costs a batch, all told: two turns at the lock,
// the decision, and the observation; without encoding.
func BenchmarkDecide(b *testing.B) {
	for _, bench := range []struct {
		name string
		body []byte
	}{{"body=64KiB", lines(64 << 10)}, {"body=4KiB", lines(4 << 10)}} {
		b.Run(bench.name, func(b *testing.B) {
			ch := chooserOf(b)
			b.ReportAllocs()
			clock := beginThread()
			defer func() { b.ReportMetric(float64(clock.end())/float64(b.N), "cpu-ns/op") }()
			for b.Loop() {
				d, _, _ := ch.decide(bench.body)
				if d.Arm != adaptive.Raw {
					ns := int64(0)
					if d.Measure {
						ns = 100_000
					}
					ch.observe(d, len(bench.body), len(bench.body)/4, true, ns)
				}
			}
		})
	}
}
