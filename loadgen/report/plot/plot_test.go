package plot

import (
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
)

// wellFormed fails if the drawing is not: a browser would then guess.
func wellFormed(t testing.TB, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, svg)
		}
	}
}

func TestLineIsWhereItsValuesAre(t *testing.T) {
	c := &Chart{
		X: Axis{Max: 10}, Y: Axis{Max: 100},
		Lines: []Line{{Name: "a", Class: "s1", X: []float64{0, 5, 10}, Y: []float64{0, 50, 100}}},
	}
	svg := c.SVG(62+86+500, 26+34+200) // 500 by 200 px to draw in
	wellFormed(t, svg)
	if !strings.Contains(svg, `d="M62.0 226.0L312.0 126.0L562.0 26.0"`) {
		t.Errorf("%s", svg)
	}
	if !strings.Contains(svg, `data-x0="62" data-x1="562"`) || !strings.Contains(svg, `data-min="0" data-max="10"`) {
		t.Errorf("the script is not told where: %s", svg)
	}
}

func TestGapsStayGaps(t *testing.T) {
	nan := math.NaN()
	c := &Chart{X: Axis{Max: 5}, Y: Axis{Kind: Log}, Lines: []Line{{Name: "a", Area: true, X: []float64{0, 1, 2, 3, 4, 5}, Y: []float64{10, 20, nan, 0, 30, 40}}}}
	svg := c.SVG(600, 260)
	wellFormed(t, svg)
	path := regexp.MustCompile(`class="line [^"]*" d="([^"]*)"`).FindStringSubmatch(svg)
	if path == nil || strings.Count(path[1], "M") != 2 || strings.Count(path[1], "L") != 2 || strings.Contains(svg, "NaN") {
		t.Errorf("drawn as %v", path)
	}
}

func TestScales(t *testing.T) {
	for _, tt := range []struct {
		a    Axis
		v    float64
		want float64
	}{
		{Axis{Min: 10, Max: 20}, 15, 0.5},
		{Axis{Kind: Log, Min: 1, Max: 10_000}, 100, 0.5},
		{Axis{Kind: Nines, Min: 0, Max: 0.9999}, 0.99, 0.5},
		{Axis{Kind: Nines, Min: 0, Max: 0.9999}, 0, 0},
	} {
		if got := tt.a.at(tt.v); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%+v: %v at %v, want %v", tt.a, tt.v, got, tt.want)
		}
	}
	for _, tt := range []struct {
		values []float64
		a      Axis
		lo, hi float64
	}{
		{[]float64{3, 5}, Axis{}, 0, 5.4},
		{[]float64{0, 0}, Axis{}, 0, 1},
		{nil, Axis{}, 0, 10},
		{nil, Axis{Kind: Log}, 1, 10},
		{[]float64{1.2e6, 60e6, 0, math.NaN(), math.Inf(1)}, Axis{Kind: Log}, 1e6, 100e6},
		{[]float64{1000}, Axis{Kind: Log}, 200, 5000},
	} {
		a := tt.a
		if a.span(tt.values, true); math.Abs(a.Min-tt.lo) > 1e-6*tt.hi || math.Abs(a.Max-tt.hi) > 1e-6*tt.hi {
			t.Errorf("%v: %v to %v, want %v to %v", tt.values, a.Min, a.Max, tt.lo, tt.hi)
		}
	}
}

// Every axis has ticks, few enough to be read, inside of it.
func TestTicks(t *testing.T) {
	for _, a := range []Axis{
		{Max: 1}, {Max: 33}, {Max: 86_400}, {Max: 7e9, Binary: true}, {Max: 47 << 20, Binary: true}, {Max: 0.003}, {Min: 5, Max: 6},
		{Kind: Log, Min: 1e3, Max: 2e3}, {Kind: Log, Min: 1e3, Max: 600e9}, {Kind: Log, Min: 2e6, Max: 50e6}, {Kind: Nines, Max: 0.9999995},
	} {
		for _, n := range []int{3, 5, 8} {
			all := a.ticks(n)
			if len(all) < 1 || len(all) > n+2 && a.Kind != Nines {
				t.Errorf("%+v, about %d: %v", a, n, all)
			}
			for _, v := range all {
				if v < a.Min-1e-9 || v > a.Max*1.0000001 {
					t.Errorf("%+v: tick %v outside", a, v)
				}
			}
		}
	}
	a := Axis{Max: 47 << 20, Binary: true}
	for _, v := range a.ticks(5) {
		if math.Mod(v, 1<<20) != 0 {
			t.Errorf("bytes at %v", v)
		}
	}
}

// Names at the ends of lines do not lie on one another, and stay in the picture.
func TestNamesAreApart(t *testing.T) {
	c := &Chart{X: Axis{Max: 1}, Y: Axis{Max: 10}}
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		c.Lines = append(c.Lines, Line{Name: n, X: []float64{0, 1}, Y: []float64{1, 0}})
	}
	svg := c.SVG(344, 240)
	last := -1000.0
	for _, m := range regexp.MustCompile(`class="name [^"]*" x="[^"]*" y="([^"]*)"`).FindAllStringSubmatch(svg, -1) {
		var y float64
		if err := xml.Unmarshal([]byte("<y>"+m[1]+"</y>"), &y); err != nil || y-last < lineHeight-0.01 || y > 240 {
			t.Errorf("name at %s after %v", m[1], last)
		}
		last = y
	}
	if last < 0 {
		t.Error("no names")
	}
}

func TestBandsOutsideAreLeftOut(t *testing.T) {
	c := &Chart{X: Axis{Max: 10}, Y: Axis{Max: 1}, Bands: []Band{
		{At: -5, Until: 2, Name: "half in", Class: "phase"}, {At: 11, Until: 12, Name: "behind", Class: "phase"}, {At: -3, Until: -1, Name: "before", Class: "phase"}, {At: 5, Name: "moment", Class: "fault"},
	}}
	svg := c.SVG(600, 240)
	wellFormed(t, svg)
	if strings.Contains(svg, "behind") || strings.Contains(svg, "before") || !strings.Contains(svg, "half in") || !strings.Contains(svg, "moment") || strings.Count(svg, "<rect class=\"band") != 1 {
		t.Errorf("%s", svg)
	}
}

// Whatever it is given, a chart is well-formed, and texts are texts.
func FuzzSVG(f *testing.F) {
	f.Add("a<b>&\"'", 1.0, 2.0, 3.0, uint8(0), 400)
	f.Add("", math.NaN(), math.Inf(1), -1.0, uint8(1), 900)
	f.Add("</svg><script>", 1e300, 1e-300, 0.0, uint8(2), 344)
	f.Fuzz(func(t *testing.T, name string, a, b, c float64, kind uint8, w int) {
		if w < 200 || w > 2000 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0xfffd || r > 0xd7ff }) {
			return
		}
		ch := &Chart{
			Title: name, Y: Axis{Kind: Kind(kind % 3)}, X: Axis{Max: 3},
			Lines: []Line{{Name: name, X: []float64{0, 1, 2}, Y: []float64{a, b, c}, Area: true, Dots: true}}, Bands: []Band{{At: a, Until: b, Name: name}}, Levels: []Level{{At: c, Name: name}},
		}
		if kind%3 == 2 {
			ch.Y.Max = 0.999
		}
		svg := ch.SVG(w, 240)
		if len(svg) > 200_000 || strings.Contains(svg, "<script") {
			t.Fatalf("%d bytes", len(svg))
		}
		wellFormed(t, svg)
	})
}
