package html

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/report/reporttest"
	"github.com/portask/portask/loadgen/search"
)

func render(t testing.TB, d *report.Document) string {
	t.Helper()
	heat := NewHeat()
	for i := range reporttest.Seconds {
		h := reporttest.Histograms(i)
		heat.Add(float64(i), float64(i+1), h.E2E)
	}
	var b bytes.Buffer
	if err := Write(&b, d, Options{Heat: heat}); err != nil {
		t.Fatal(err)
	}
	checkPage(t, b.String())
	return b.String()
}

// checkPage: one file that fetches nothing, with its tags in order.
func checkPage(t testing.TB, page string) {
	t.Helper()
	if m := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]+\.|https?://|@import|url\([^#]|<link|<iframe|<script[^>]+src|srcset`).FindString(page); m != "" {
		t.Errorf("the page refers to something outside: %q", m)
	}
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "data:image/png;base64,") {
			t.Errorf("the page fetches %q", m[1])
		}
	}
	if !strings.Contains(page, `content="default-src 'none'; `) {
		t.Error("the page may fetch what it likes")
	}
	var open []string
	body := regexp.MustCompile(`(?s)<(style|script)>.*?</(style|script)>`).ReplaceAllString(page, "")
	for _, m := range regexp.MustCompile(`<(/?)([a-zA-Z0-9]+)[^>]*?(/?)>`).FindAllStringSubmatch(body, -1) {
		switch {
		case m[3] == "/" || m[2] == "meta":
		case m[1] == "":
			open = append(open, m[2])
		case len(open) == 0 || open[len(open)-1] != m[2]:
			t.Fatalf("</%s> closes %v", m[2], open)
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("open at the end: %v", open)
	}
	data := regexp.MustCompile(`const DATA=(.*?);\n`).FindStringSubmatch(page)
	var charts map[string]chartData
	if data == nil {
		t.Fatal("no data for the script")
	}
	if err := json.Unmarshal([]byte(data[1]), &charts); err != nil {
		t.Errorf("data for the script: %v", err)
	}
	for name, c := range charts {
		for _, l := range c.Lines {
			if len(l.Y) != len(c.X) {
				t.Errorf("chart %s: line %s has %d values at %d times", name, l.Name, len(l.Y), len(c.X))
			}
		}
	}
}

func TestPage(t *testing.T) {
	page := render(t, reporttest.Document())
	at := -1
	for _, want := range []string{
		"<h2>Objectives met</h2>", "All 2 of them.", // the verdict first
		`<h3>delivered</h3><p class="big">4,998 <span>msg/s</span>`, "<h2>Objectives</h2>", "✓ met", "≤ 500 ms", "<h2>Latency over time</h2>", "objective p99 ≤ 500 ms",
		"<h2>Where messages fell</h2>", "<h2>Latency by percentile</h2>", "99.99 %", "<h2>Throughput</h2>", "<h2>Backlog</h2>", "<h2>CPU</h2>", "<h2>Memory of the target</h2>", "Go heap",
		"<h2>Disk and network</h2>", "<h2>Inside of the broker, p99</h2>", "<h2>Dispatch lag</h2>", "<h2>Every message accounted for</h2>", "164,995", "<h2>Latencies</h2>", "in the fault kill at 20 s",
		"<h2>Phases</h2>", "warm-up (not measured)", "<h2>Faults</h2>", "<h2>What the broker says</h2>", "produce durable", "<h2>Target</h2>", "disklog", "<h2>Payload</h2>", "3.63 : 1",
		"<h2>Generator and its machine</h2>", "CPU X 3000, 8", "performance", "<h2>Evidence</h2>", "cpu.pb.gz", "<h2>Notes</h2>", "producer 1: connection reset", "the flight recorder is off",
		"<h2>Scenario, as resolved</h2>", "name: orders",
	} {
		i := strings.Index(page, want)
		if i < 0 {
			t.Errorf("no %q", want)
		} else if i < at {
			t.Errorf("%q stands too early", want)
		} else {
			at = i
		}
	}
	if strings.Contains(page, "not a result") && strings.Contains(page, `class="charts rejected"`) {
		t.Error("a valid run is marked as none")
	}
	// wide is what narrow windows and paper leave out: no line may be called that.
	if regexp.MustCompile(`class="[^"]* wide[" ]`).MatchString(page) || !strings.Contains(page, ` bold"`) {
		t.Error("main lines of charts are missing, or left out with the wide charts")
	}
	// Each chart for wide and for narrow windows, faults and the profile marked in it.
	if wide, narrow := strings.Count(page, `<div class="wide">`), strings.Count(page, `<div class="narrow">`); wide != narrow || wide < 10 {
		t.Errorf("%d wide charts, %d narrow ones", wide, narrow)
	}
	if n := strings.Count(page, `class="band fault"`); n < 10 {
		t.Errorf("the fault is marked %d times", n)
	}
	if !strings.Contains(page, `class="mark profile"`) {
		t.Error("the profile is not marked")
	}
}

func TestVerdicts(t *testing.T) {
	problem := []load.Problem{{Kind: "x", Phase: "main", Text: "because <of> this"}}
	for _, tt := range []struct {
		name   string
		change func(*report.Document)
		want   []string
		not    []string
	}{
		{"violation", func(d *report.Document) { d.Violations, d.Counts.Lost = problem, 3 },
			[]string{`class="verdict violation"`, "Data violation", "because &lt;of&gt; this", `class="tile bad"`, `<tr class="bad"><td>lost</td><td class="n">3</td>`}, nil},
		{"missed", func(d *report.Document) { d.Missed = problem; d.Measured.Total.Latency.E2E.P99 = 9e8 }, []string{`class="verdict missed"`, "Objective missed", "✕ missed", "900 ms"}, nil},
		{"invalid", func(d *report.Document) { d.Rejected, d.Measured, d.Result.Invalid = d.Measured, nil, problem },
			[]string{`class="verdict invalid"`, "Invalid", "Not a result.", `class="charts rejected"`}, []string{`class="tile `, "<h2>Latencies</h2>", "<h2>Phases</h2>", "<h2>Objectives</h2>"}},
		{"nothing measured", func(d *report.Document) { d.Measured, d.Result.Invalid = nil, problem }, []string{"Invalid"}, []string{"<h2>Latency over time</h2>"}},
		{"ack none", func(d *report.Document) { d.Ack, d.Counts.Lost = "none", 5; d.Resolved = "" }, []string{"<h2>Valid</h2>", "at ack none losses are allowed"}, []string{`<tr class="bad">`}},
		{"closed loop", func(d *report.Document) {
			d.Loop = "closed"
			for i := range d.Measured.Series {
				d.Measured.Series[i].Offered = 0
			}
		}, []string{"service time"}, []string{"<h2>Dispatch lag</h2>", ">offered</text>"}},
		{"no evidence, no environment, no faults", func(d *report.Document) { d.Evidence, d.Environment, d.Faults = nil, nil, nil }, []string{"Objectives met"}, []string{"<h2>Faults</h2>", "<h2>What the broker says</h2>", "Go heap"}},
		{"hostile names", func(d *report.Document) {
			d.Scenario, d.System.Version, d.Result.Notes = "</title><script>alert(1)</script>", "</script><b>", []string{"<img src=x>"}
			d.Measured.Phases[1].Name = "</text><script>"
			d.Evidence.Latencies[0].Name = "</script><script>alert(2)</script>"
			d.Evidence.Samples[5].LatencyP99 = map[string]int64{d.Evidence.Latencies[0].Name: 5}
		}, nil, []string{"<script>alert", "<img src", "</text><script>", "</script><b>"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := reporttest.Document()
			tt.change(d)
			page := render(t, d)
			for _, w := range tt.want {
				if !strings.Contains(page, w) {
					t.Errorf("no %q", w)
				}
			}
			for _, n := range tt.not {
				if strings.Contains(page, n) {
					t.Errorf("there is %q", n)
				}
			}
		})
	}
}

// A long run's charts keep the worst of what they merge.
func TestBinsLoseNoSpike(t *testing.T) {
	var series []load.Interval
	for i := range 1799 {
		v := load.Interval{Start: float64(i), End: float64(i + 1), Sent: 10, Delivered: 10, Outstanding: 1}
		v.Latency.E2E = load.Quantiles{Count: 10, P99: 5e6, Max: 6e6}
		if i == 777 {
			v.Latency.E2E.Max, v.Outstanding = 9e9, 4000
		}
		series = append(series, v)
	}
	all := binned(series)
	if len(all) > barsMax || all[len(all)-1].at != 1799 {
		t.Errorf("%d points until %v", len(all), all[len(all)-1].at)
	}
	top, most, sent := 0.0, 0.0, 0.0
	for _, b := range all {
		top, most, sent = max(top, b.top), max(most, b.outstanding), sent+b.sent
	}
	if top != 9e9 || most != 4000 || sent != 17_990 {
		t.Errorf("highest %v, backlog %v, %v sent", top, most, sent)
	}
	if n := len(trimmed(append(series, load.Interval{Start: 1799, End: 1799.02, Sent: 9}))); n != 1799 {
		t.Errorf("%d intervals with the rest of a second", n)
	}
}

func TestHeatIsBounded(t *testing.T) {
	h := NewHeat()
	var want float64
	for i := range 5000 {
		x := reporttest.Histograms(0).E2E
		h.Add(float64(i)+0.01, float64(i)+1.01, x)
		want += float64(x.TotalCount())
		if i == 600 {
			break // histograms take their time; the next step is far away
		}
	}
	h.Add(86_000, 86_001, reporttest.Histograms(0).E2E)
	want += 500
	h.Add(5, 5, nil)
	got := 0.0
	for i := range h.columns {
		for _, n := range h.columns[i] {
			got += n
		}
	}
	if len(h.columns) > heatColumns || got != want {
		t.Errorf("%d columns with %v values, want %v", len(h.columns), got, want)
	}
}

func TestSearchPage(t *testing.T) {
	r := &search.Result{
		Schema: search.Schema, Scenario: "kv", System: "portask", Objective: "e2e_p99 at most 1ms", Seconds: 200, Outcome: search.Found, Value: 40_000, Refuted: 42_000, Resolution: 0.05,
		Points: []search.Point{{Offered: 40_000, Achieved: 39_990, P50: 2e5, P99: 9e5, P999: 2e6, Verdict: search.Pass, Stage: "bracket"}, {Offered: 80_000, Achieved: 55_000, P50: 9e8, P99: 3e9, Verdict: search.Fail, Why: "p99 <3s>", Stage: "narrow"}},
	}
	for i, p := range r.Points {
		r.Curve = append(r.Curve, search.Level{Offered: p.Offered, Achieved: p.Achieved, P50: p.P50, P99: p.P99, P999: p.P999, Passed: 1 - i, Failed: i})
	}
	var b bytes.Buffer
	if err := WriteSearch(&b, r, reporttest.Document().Environment); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	checkPage(t, page)
	for _, want := range []string{`class="verdict pass"`, "40,000 messages a second", "<h2>Hockey stick</h2>", "<h2>Achieved over offered</h2>", "fail: p99 &lt;3s&gt;", "CPU X 3000", ">40,000</text>"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	for outcome, want := range map[search.Outcome]string{search.Generator: "No number", search.Below: "Below the lowest rate", search.AtLeast: "At least 40,000"} {
		b.Reset()
		r.Outcome = outcome
		if err := WriteSearch(&b, r, nil); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%s: no %q, %v", outcome, want, err)
		}
	}
	r.Points[0].Violations = []string{"7 lost"}
	b.Reset()
	if err := WriteSearch(&b, r, nil); err != nil || !strings.Contains(b.String(), "at 40,000 msg/s: 7 lost") || !strings.Contains(b.String(), "Data violation") {
		t.Errorf("a violation: %v", err)
	}
}

func TestNines(t *testing.T) {
	for p, want := range map[float64]string{0: "0 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.99999: "99.999 %"} {
		if got := nines(p); got != want {
			t.Errorf("%v: %s, want %s", p, got, want)
		}
	}
	if s := fmt.Sprint(rounded(123456), rounded(0), rounded(-0.00123456)); s != "123500 0 -0.001235" {
		t.Error(s)
	}
}
