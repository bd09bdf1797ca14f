package report_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/report/reporttest"
)

// golden compares with a file; with UPDATE_GOLDEN set it writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = "testdata/" + name
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s (UPDATE_GOLDEN=1 writes it anew) differs at %d: ...%s\nwant ...%s", name, at, got[max(0, at-60):min(len(got), at+60)], want[max(0, at-60):min(len(want), at+60)])
	}
}

// short is the run with so few intervals that a golden file is readable. Its
// histograms are left out: their compressed form is the library's affair.
func short() *report.Document {
	d := reporttest.Document()
	d.Hash, d.Resolved = "0123456789abcdef", "version: 1\n" // of which package scenario has its own tests
	d.Measured.Series, d.Evidence.Samples = d.Measured.Series[:2], d.Evidence.Samples[:1]
	d.Measured.Total.Histograms, d.Measured.Phases[1].Histograms = load.Histograms{}, load.Histograms{}
	return d
}

// The JSON of a result is a format: what changes here needs a new schema version,
// unless it is a field more.
func TestGoldenJSON(t *testing.T) {
	var b bytes.Buffer
	if err := report.WriteJSON(&b, short()); err != nil {
		t.Fatal(err)
	}
	golden(t, "result.json", b.Bytes())
}

func TestGoldenMarkdownAndCSV(t *testing.T) {
	var b bytes.Buffer
	if err := report.Markdown(&b, short()); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.md", b.Bytes())
	b.Reset()
	if err := report.WriteCSV(&b, short()); err != nil {
		t.Fatal(err)
	}
	golden(t, "intervals.csv", b.Bytes())
}

func TestJSONRoundTrip(t *testing.T) {
	d := reporttest.Document()
	var b bytes.Buffer
	if err := report.WriteJSON(&b, d); err != nil {
		t.Fatal(err)
	}
	written := b.String()
	got, err := report.ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Counts != d.Counts || got.Measured.Total.Latency != d.Measured.Total.Latency || !reflect.DeepEqual(got.Environment, d.Environment) ||
		!reflect.DeepEqual(got.Labels, d.Labels) || !got.Measured.Total.Histograms.E2E.Equals(d.Measured.Total.Histograms.E2E) {
		t.Errorf("came back as %+v", got)
	}
	var again bytes.Buffer
	if err := report.WriteJSON(&again, got); err != nil || again.String() != written {
		t.Errorf("written again it is another: %v", err)
	}
}

func TestReadJSONRefuses(t *testing.T) {
	var whole bytes.Buffer
	if err := report.WriteJSON(&whole, short()); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"schema": 99}`: "99, this program reads",
		`{"points": []}`: "no schema",
		`[`:              "unexpected end",
		`{"schema": 2}`:  "result: no run_id, began, scenario, scenario_hash, resolved, system, durability, topics, loop, ack, visibility, payload, counts, wire, generator, complete",
		strings.Replace(whole.String(), `"counts": {`, `"sums": {`, 1):               "result: no counts",
		strings.Replace(whole.String(), `"counts": {`, `"counts": [{`, 1):            "invalid character",
		strings.Replace(whole.String(), `"producers": 3`, `"producers": "three"`, 1): "cannot unmarshal",
	} {
		_, err := report.ReadJSON(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
		if strings.Contains(text, `"schema": 99`) != errors.Is(err, report.ErrSchema) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func FuzzReadJSON(f *testing.F) {
	var b bytes.Buffer
	if err := report.WriteJSON(&b, short()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"schema": 2}`))
	f.Add([]byte(`{"schema": 2, "rejected": {"series": [{}]}, "invalid": [{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := report.ReadJSON(bytes.NewReader(b))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := errors.Join(report.Markdown(&out, d), report.WriteCSV(&out, d), report.Table(&out, d.Result)); err != nil {
			t.Error(err)
		}
	})
}

func TestCSV(t *testing.T) {
	d := reporttest.Document()
	d.Measured.Series[1].Target = nil
	d.Measured.Series[1].Latency.Ack = load.Quantiles{}
	var b bytes.Buffer
	if err := report.WriteCSV(&b, d); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != reporttest.Seconds+1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	cell := func(row int, name string) string {
		for i, n := range rows[0] {
			if n == name {
				return rows[row+1][i]
			}
		}
		t.Fatalf("no column %s in %v", name, rows[0])
		return ""
	}
	for name, want := range map[string]string{"start_s": "1.000", "phase": "warm-up", "delivered": "4990", "target_cpus": "", "target_rss_bytes": "", "ack_p99_ns": "", "valid": "1"} {
		if got := cell(1, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if cell(0, "target_fds") != "40" || cell(0, "ack_p99_ns") == "" {
		t.Errorf("%v", rows[1])
	}
	b.Reset()
	if err := report.WriteCSV(&b, reporttest.Invalid()); err != nil || !strings.HasSuffix(strings.TrimSpace(b.String()), ",0") {
		t.Errorf("an invalid run's intervals are not marked: %v", err)
	}
}

func TestMarkdownOfAnInvalidRunHasNoFigures(t *testing.T) {
	d := reporttest.Invalid()
	d.Faults = nil
	d.Notes = []string{"a | b <c>"}
	var b bytes.Buffer
	if err := report.Markdown(&b, d); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	if strings.Contains(s, "msg/s") || strings.Contains(s, " ms") || !strings.Contains(s, "# orders: INVALID") || !strings.Contains(s, "| sent | 165,000 |") || !strings.Contains(s, `a \| b &lt;c>`) {
		t.Errorf("%s", s)
	}
}

// The page of reports names every field that evidence and environment can have.
func TestPageOfReports(t *testing.T) {
	b, err := os.ReadFile("../../docs/reports.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	seen := map[reflect.Type]bool{}
	var walk func(x reflect.Type)
	walk = func(x reflect.Type) {
		for x.Kind() == reflect.Pointer || x.Kind() == reflect.Slice {
			x = x.Elem()
		}
		if x.Kind() != reflect.Struct || seen[x] || x == reflect.TypeFor[load.Result]() {
			return
		}
		seen[x] = true
		for i := range x.NumField() {
			f := x.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "" && !strings.Contains(page, "`"+name+"`") {
				t.Errorf("%v.%s: the page does not name `%s`", x, f.Name, name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[report.Document]())
	if !seen[reflect.TypeFor[evidence.Sample]()] {
		t.Errorf("walked %v", seen)
	}
}
