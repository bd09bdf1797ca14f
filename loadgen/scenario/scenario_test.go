package scenario

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

var update = flag.Bool("update", false, "rewrite docs/scenarios.md and configs/scenarios")

const root = "../.."

func TestDefaultIsValid(t *testing.T) {
	s := Default()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if s.Duration() != 10*time.Second || s.Partitions() != 4 || s.Phases[0].Measured || !s.Phases[1].Measured {
		t.Errorf("default %+v", s)
	}
	if v := s.Topics[0].VisibilityLevel(&s.Producers); v != message.AckDurable {
		t.Errorf("visibility %v, want the producers' level", v)
	}
}

// What is written is read back as the same, with every kind of phase.
func TestResolvedRoundTrip(t *testing.T) {
	all := `version: 1
name: x.y
about: "# all: of it"
seed: 18446744073709551615
topics:
  - {name: a, partitions: 3, visibility: accepted, retention: 1h30m, retention_bytes: 3MiB, share: 7}
  - {name: "on", existing: true}
producers: {count: 3, ack: accepted, batch: 100000, linger: 5ms, compression: "always:lz4", codec: cbor, buffer: 1MiB}
consumers: {count: 3}
payload: {source: "entropy:0.3", size: 200B..4KiB}
keys: {count: 100, skew: 0.99}
phases:
  - {name: a, duration: 1s, measured: false}
  - {name: b, arrival: poisson, rate: 0.5}
  - {name: c, arrival: bursts, rate: 100, base: 1, on: 10ms, off: 90ms, spacing: poisson}
  - {name: d, arrival: sine, rate: 100, amplitude: 50, period: 10s}
  - {name: e, arrival: ramp, rate: 1, to: 200}
  - {name: f, arrival: staircase, rate: 1, to: 200, steps: 4}
  - {name: g, arrival: trace, file: x.trace, speed: 2}
objectives:
  - {metric: e2e_p99, at_most: 5ms, phase: b}
  - {metric: delivered_rate, at_least: 12.5}
limits: {drain: 3s, window: 128, quantum: 0s}
`
	s, err := Parse("all.yaml", []byte(all))
	if err != nil {
		t.Fatal(err)
	}
	text := s.YAML()
	again, err := Parse("all.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := again.YAML(); !bytes.Equal(got, text) {
		t.Errorf("read back as\n%s\nwant\n%s", got, text)
	}
	if s.Hash() != again.Hash() || s.Hash() == Default().Hash() {
		t.Errorf("hashes %s, %s, default %s", s.Hash(), again.Hash(), Default().Hash())
	}
	again.Name, again.About = "other", ""
	if s.Hash() != again.Hash() {
		t.Error("the hash depends on the name")
	}
	if s.Seed != 1<<64-1 || s.Name != "x.y" || s.About != "# all: of it" || s.Topics[1].Name != "on" || s.Producers.Linger != 5*time.Millisecond || s.Phases[1].Rate != 0.5 {
		t.Errorf("read as %+v", s)
	}
}

func TestJSON(t *testing.T) {
	s, err := Parse("x.json", []byte(`{
	"version": 1,
	"producers": {"count": 7, "ack": "none"},
	"phases": [{"name": "only", "duration": "2s", "rate": 1e3}]
}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "x" || s.Producers.Count != 7 || s.Phases[0].Rate != 1000 || len(s.Phases) != 1 {
		t.Errorf("%+v", s)
	}
	_, err = Parse("x.json", []byte("{\n \"version\": 1,\n \"producers\": {\n  \"cuont\": 7}\n}"))
	if err == nil || err.Error() != "x.json:4: producers.cuont: unknown setting; did you mean count?" {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"{", "[]", `{"version":1} x`, `{"version":1,"seed":1,"seed":2}`, `{"version":1,"seed":nul}`} {
		if _, err := Parse("x.json", []byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// Every violation comes at once, with its line.
func TestAllProblemsAtOnce(t *testing.T) {
	text := `version: 1
naem: x
loop: sideways
topics:
  - name: a
    partitions: 0
    visibility: durabel
  - name: a
    existing: true
    partitions: 3
producers:
  ack: accpeted
  linger: 5
  compression: zip
  batch: 5 bananas
  in_flight: 5
consumers: many
keys: {skew: 1}
phases:
  - {name: a, duration: 1ms, arrival: ramp}
  - {name: a, arrival: bursts, rate: -1, period: 1s}
  - nothing
objectives:
  - {metric: e2e_p98, at_most: 1ms}
  - {metric: ack_p50, at_least: 3}
  - {metric: ack_p50, at_most: 3s, phase: aa}
limits: {drain: forever}
`
	_, err := Parse("bad.yaml", []byte(text))
	e, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, fault.Invalid) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{
		"bad.yaml:2: naem: unknown setting; did you mean name?",
		`bad.yaml:3: loop: "sideways": want one of open, closed`,
		`bad.yaml:6: topics.0.partitions: "0": want a whole number, 1 to 4096`,
		`bad.yaml:7: topics.0.visibility: "durabel": want one of ack, accepted, durable; did you mean durable?`,
		`bad.yaml:8: topics.1.name: "a" is there twice`,
		"bad.yaml:10: topics.1.partitions: has a meaning only with a new topic",
		`bad.yaml:12: producers.ack: "accpeted": want one of none, accepted, durable; did you mean accepted?`,
		`bad.yaml:13: producers.linger: "5": want a duration, 0s to 10s, or client`,
		"bad.yaml:14: producers.compression",
		`bad.yaml:15: producers.batch: "5 bananas": want a size`,
		"bad.yaml:16: producers.in_flight: has a meaning only with loop closed",
		"bad.yaml:17: consumers: a string: want a table",
		"bad.yaml:18: keys.skew: has a meaning only with keys",
		`bad.yaml:20: phases.0.duration: "1ms": want a duration, 10ms to 1d`,
		"bad.yaml:20: phases.0.to: arrival ramp needs it",
		`bad.yaml:21: phases.1.name: "a" is there twice`,
		"bad.yaml:21: phases.1.rate",
		"bad.yaml:21: phases.1.on: arrival bursts needs it",
		"bad.yaml:21: phases.1.period: has a meaning only with arrival sine",
		"bad.yaml:22: phases.2: a string: want a table",
		`bad.yaml:24: objectives.0.metric: "e2e_p98": want one of`,
		"bad.yaml:25: objectives.1.at_least: has a meaning only with rates",
		"bad.yaml:25: objectives.1.at_most: is missing",
		`bad.yaml:26: objectives.2.phase: no phase is called "aa"; did you mean a?`,
		`bad.yaml:27: limits.drain: "forever"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no problem %q", want)
		}
	}
	last := 0
	for _, p := range e.Problems {
		if p.Line < last {
			t.Errorf("problem %v after one of line %d", p, last)
		}
		last = p.Line
	}
	if t.Failed() {
		t.Logf("problems:\n%v", err)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"no version":      "seed: 1\n",
		"other version":   "version: 2\n",
		"a list":          "- 1\n",
		"two documents":   "version: 1\n---\nversion: 1\n",
		"an alias":        "version: 1\nname: &a x\nabout: *a\n",
		"a broken table":  "version: 1\n  x: [\n",
		"not UTF-8":       "version: 1\nname: \xff\n",
		"too long":        "version: 1\n#" + strings.Repeat("x", document.FileBytesMax),
		"too deep":        "version: 1\nname: " + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "\n",
		"a name twice":    "version: 1\nseed: 1\nseed: 2\n",
		"nothing to load": "version: 1\ntopics: []\n",
		"too many":        "version: 1\nphases: [" + strings.Repeat("{},", 65) + "]\n",
		"too wide":        "version: 1\ntopics:\n" + strings.Repeat("  - {partitions: 4096}\n", 2),
		"no phase":        "version: 1\nphases: [{measured: false}]\n",
	} {
		if _, err := Parse("x.yaml", []byte(text)); !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), "x.yaml:") && name != "no version" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSettings(t *testing.T) {
	parse := func(all ...string) []Setting {
		var out []Setting
		for _, s := range all {
			x, err := ParseSetting(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, x)
		}
		return out
	}
	s, err := With(parse("phases.*.rate=77", "phases.main.arrival=poisson", "phases.0.duration=20ms", "producers.count=5", "topics.loadgen.partitions=9")...)
	if err != nil {
		t.Fatal(err)
	}
	if s.Phases[0].Rate != 77 || s.Phases[1].Rate != 77 || s.Phases[1].Arrival != "poisson" || s.Phases[0].Arrival != "constant" ||
		s.Phases[0].Duration != 20*time.Millisecond || s.Producers.Count != 5 || s.Topics[0].Partitions != 9 {
		t.Errorf("%+v", s)
	}
	// A * is for all that take it, whatever comes first.
	if s, err := With(parse("phases.*.rate=77", "phases.main.arrival=trace", "phases.main.file=x")...); err != nil || s.Phases[0].Rate != 77 {
		t.Errorf("%v", err)
	}
	if _, err := With(parse("phases.*.rate=77", "loop=closed")...); err != nil {
		t.Errorf("%v", err)
	}
	_, err = With(parse("phases.mian.rate=1", "producers=3", "producer.count=1", "phases.rate=3", "seed.x=1", "keys.skew=1", "phases.main.rate=fast")...)
	for _, want := range []string{
		"--set: phases.mian: no such item; there are 2", "--set: producers: a table", "--set: producer: unknown setting; did you mean producers?",
		"--set: phases: a list", "--set: seed: has no settings of its own", "--set: keys.skew: has a meaning only with keys", `--set: phases.1.rate: "fast"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no problem %q in\n%v", want, err)
		}
	}
	for _, bad := range []string{"", "x", "=3"} {
		if _, err := ParseSetting(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestNeeds(t *testing.T) {
	s, err := With(Setting{Path: "consumers.delivery", Value: "queue"}, Setting{Path: "producers.codec", Value: "json"}, Setting{Path: "producers.compression", Value: "auto"}, Setting{Path: "topics.0.retention", Value: "1h"}, Setting{Path: "keys.count", Value: "5"})
	if err != nil {
		t.Fatal(err)
	}
	n := s.Needs()
	if n.Mode != driver.Queue || n.Encoding != message.JSON || !n.Compression.Auto || !n.Retention || !n.Keys || n.Existing || n.Ack != message.AckDurable || n.Partitions != 4 {
		t.Errorf("needs %+v", n)
	}
}

func TestCompression(t *testing.T) {
	for _, good := range []string{"never", "auto", "always", "always:lz4", "threshold", "threshold:zstd"} {
		if c, err := parseCompression(good); err != nil || c.Auto != (good == "auto") {
			t.Errorf("%s: %+v, %v", good, c, err)
		}
	}
	for _, bad := range []string{"", "sometimes", "always:", "always:lzma", "never:zstd"} {
		if c, err := parseCompression(bad); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string][2]int{"1024": {1024, 1024}, "1KiB": {1024, 1024}, "200..4000": {200, 4000}, "200B..4KiB": {200, 4096}, "1MiB": {1 << 20, 1 << 20}} {
		if lo, hi, err := parseSizeRange(in); err != nil || lo != want[0] || hi != want[1] {
			t.Errorf("%q: %d, %d, %v", in, lo, hi, err)
		}
	}
	for _, in := range []string{"", "x", "100..", "..200", "1..2..3", "1k", "10", "2MiB", "300..200", "-5", "99999999999999999999GiB"} {
		if lo, hi, err := parseSizeRange(in); err == nil {
			t.Errorf("%q: %d, %d", in, lo, hi)
		}
	}
}

// The page and the files in configs are what the program has.
func TestShippedFilesAndReference(t *testing.T) {
	same := func(name string, want []byte) {
		name = filepath.Join(root, filepath.FromSlash(name))
		if *update {
			if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, want, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not as the program has it (%v); run go test ./loadgen/scenario -update", name, err)
		}
	}
	same("docs/scenarios.md", Reference())
	names := Shipped()
	if len(names) < 6 {
		t.Errorf("%d scenarios", len(names))
	}
	for _, n := range names {
		data, err := shipped.ReadFile("shipped/" + n + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		same("configs/scenarios/"+n+".yaml", data)
		s, err := Open(n)
		if err != nil {
			t.Errorf("%s: %v", n, err)
			continue
		}
		if s.Name != n || s.About == "" {
			t.Errorf("%s: name %q, about %q", n, s.Name, s.About)
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "configs/scenarios/*"))
	if err != nil || len(files) != len(names) {
		t.Errorf("%d files in configs/scenarios, %d shipped", len(files), len(names))
	}
	if _, err := Open("stedy"); err == nil || !strings.Contains(err.Error(), "did you mean steady?") {
		t.Errorf("error %v", err)
	}
}

// FuzzParse: no input panics, and what is accepted is written and read back.
func FuzzParse(f *testing.F) {
	for _, n := range Shipped() {
		data, err := shipped.ReadFile("shipped/" + n + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add("x.yaml", data)
	}
	f.Add("x.json", []byte(`{"version":1,"phases":[{"name":"a","arrival":"ramp","to":5}]}`))
	f.Fuzz(func(t *testing.T, file string, data []byte) {
		s, err := Parse(file, data)
		if err != nil {
			return
		}
		again, err := Parse("x.yaml", s.YAML())
		if err != nil {
			t.Fatalf("%v\n%s", err, s.YAML())
		}
		if s.Hash() != again.Hash() {
			t.Errorf("read back differently:\n%s\n%s", s.YAML(), again.YAML())
		}
	})
}
