package live

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/portask/portask/loadgen/load"
)

func snapshot(second int) load.Snapshot {
	v := load.Interval{
		Start: float64(second - 1), End: float64(second), Phase: "main", Offered: 20_000, Sent: 20_000, Delivered: 19_990, Outstanding: 12_345,
		Target: &load.TargetSample{CPUs: 0.51, RSSBytes: 32 << 20}, Generator: 0.9, Spin: 0.6,
	}
	v.Latency.E2E = load.Quantiles{Count: 19_990, P50: int64(second) * 1_000_000, P99: 9_000_000, P999: 20_000_000}
	v.Latency.Ack = load.Quantiles{Count: 19_990, P99: 8_000_000}
	v.Latency.Lag = load.Quantiles{Count: 19_990, P99: 42_000}
	return load.Snapshot{Elapsed: time.Duration(second) * time.Second, Planned: 24 * time.Second, Last: v}
}

// screen is what a terminal shows after b, without colours.
func screen(t *testing.T, b string) []string {
	t.Helper()
	lines := []string{""}
	row := 0
	for i := 0; i < len(b); {
		if m := regexp.MustCompile(`^\x1b\[(\d*)([AJKm]|;\d+m)`).FindStringSubmatch(b[i:]); m != nil {
			switch m[2] {
			case "A":
				n := 0
				fmt.Sscan(m[1], &n)
				if row -= n; row < 0 {
					t.Fatalf("the cursor left the screen")
				}
				lines[row] = "" // what is there is overwritten from its start
			case "J":
				lines = lines[:row+1]
			}
			i += len(m[0])
			continue
		}
		if b[i] == '\n' {
			if row++; row == len(lines) {
				lines = append(lines, "")
			} else {
				lines[row] = ""
			}
			i++
			continue
		}
		lines[row] += b[i : i+1]
		i++
	}
	return lines
}

func TestTable(t *testing.T) {
	for _, columns := range []int{60, 100, 200} {
		var b bytes.Buffer
		d := New(&b, Options{Title: "kv-1k on portask, ack durable", Size: func() (int, int) { return columns, 40 }})
		for i := 1; i <= 9; i++ {
			d.Update(snapshot(i))
		}
		d.Event("fault: kill")
		d.Update(snapshot(10))
		all := screen(t, b.String())
		text := strings.Join(all, "\n")
		if all[0] != "fault: kill" || strings.Count(text, "delivered") != 1 {
			t.Errorf("an event does not stay above the table:\n%s", text)
		}
		for _, want := range []string{
			`kv-1k on portask, ack durable  main +10 / 24 s`, `offered +20,000 /s  █`, `end to end p50 +10 ms  ▁`, ` p99\.9 +20 ms`, `dispatch lag p99 +42 µs`, `backlog +12,345`,
			`errors +0`, `target CPU +51 %`, `target memory +32 MiB`, `generator CPU +30 %`,
		} {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("%d columns: no %s in:\n%s", columns, want, text)
			}
		}
		for _, l := range all {
			if n := utf8.RuneCountInString(l); n > columns {
				t.Errorf("a line of %d columns on %d: %q", n, columns, l)
			}
		}
		d.End()
		if got := screen(t, b.String()); len(got) != 2 || got[1] != "" {
			t.Errorf("left behind: %q", got)
		}
	}
}

func TestTroubleIsSeenWithoutColour(t *testing.T) {
	var b bytes.Buffer
	d := New(&b, Options{NoColor: true, Size: func() (int, int) { return 90, 40 }})
	s := snapshot(3)
	s.Failed, s.Last.Latency.Lag.P99 = 7, 5_000_000
	s.Elapsed = 30 * time.Second
	d.Update(s)
	text := b.String()
	if regexp.MustCompile(`\x1b\[[\d;]*m`).MatchString(text) {
		t.Errorf("colours: %q", text)
	}
	// What such an interval would report is no latency, as in a run's result.
	for _, want := range []string{`end to end p50 +– `, ` p99 +– `, ` p99\.9 +– `, `acknowledged p99 +– `, `dispatch lag p99 ! +5 ms`, `errors +7`, `draining for 6 s`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
}

// With fewer than 10,000 messages a p99.9 is nearly the maximum, and not shown.
func TestTailOfFew(t *testing.T) {
	var b bytes.Buffer
	d := New(&b, Options{NoColor: true, Size: func() (int, int) { return 90, 40 }})
	s := snapshot(3)
	s.Last.Latency.E2E.Count = 9_999
	d.Update(s)
	if text := b.String(); !regexp.MustCompile(` p99\.9 +– `).MatchString(text) || !regexp.MustCompile(` p99 +9 ms `).MatchString(text) {
		t.Error(text)
	}
}

// No terminal, --plain, or one too small: a line a second, nothing else.
func TestLines(t *testing.T) {
	for name, o := range map[string]Options{
		"no terminal": {},
		"plain":       {Plain: true, Size: func() (int, int) { return 100, 40 }},
		"small":       {Size: func() (int, int) { return 40, 10 }},
	} {
		var b bytes.Buffer
		d := New(&b, o)
		d.Update(snapshot(1))
		d.Event("fault: kill")
		d.Update(snapshot(2))
		d.End()
		lines := strings.Split(b.String(), "\n")
		if len(lines) != 4 || lines[1] != "fault: kill" || lines[3] != "" || strings.Contains(b.String(), "\x1b") || !strings.Contains(lines[2], "delivered 19,990/s") {
			t.Errorf("%s: %q", name, lines)
		}
	}
}

func TestSpark(t *testing.T) {
	for _, tt := range []struct {
		y     []float64
		width int
		log   bool
		want  string
	}{
		{nil, 5, false, ""},
		{[]float64{0, 1, 2, 4, 8}, 5, false, " ▂▃▅█"},
		{[]float64{9, 9, 8, 8}, 2, false, "██"},
		{[]float64{1, 10, 100, 1000}, 9, true, "▁▃▆█"},
		{[]float64{100, 101, 100}, 9, true, "███"},
		{[]float64{1}, 0, true, ""},
	} {
		if got := spark(tt.y, tt.width, tt.log); got != tt.want {
			t.Errorf("%v in %d: %q, want %q", tt.y, tt.width, got, tt.want)
		}
	}
}
