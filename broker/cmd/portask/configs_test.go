package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/fault"
)

var update = flag.Bool("update", false, "rewrite configs/*.yaml and the reference in docs/configuration.md")

var root = filepath.Join("..", "..", "..")

// plainOptions are the defaults without what this process's GOGC and GOMEMLIMIT
// say.
func plainOptions() *brokerOptions {
	o := newBrokerOptions()
	o.gcPercent, o.memoryLimit = 100, autoMemory
	return o
}

// compare holds a generated file against what the repository has.
func compare(t *testing.T, name string, want []byte) {
	t.Helper()
	file := filepath.Join(root, filepath.FromSlash(name))
	got, err := os.ReadFile(file)
	if err == nil && bytes.Equal(got, want) {
		return
	}
	if !*update {
		t.Errorf("%s is not what the table of settings says (%v); go test ./broker/cmd/portask -run TestShipped -update", name, err)
		return
	}
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

var shipped = map[string]string{"default": "configs/config.yaml", "dev": "configs/config.dev.yaml", "prod": "configs/config.prod.yaml"}

func TestShippedConfigurations(t *testing.T) {
	for profile, name := range shipped {
		write, err := writerOf(profile, document.YAML)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		compare(t, name, b.Bytes())
		above := "#"
		for n, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
			if len(line) > 120 {
				t.Errorf("%s:%d: %d bytes", name, n+1, len(line))
			}
			key := strings.TrimSpace(line)
			// A nested table is named by its settings, each of which is explained.
			if key != "" && key[0] != '#' && !strings.HasSuffix(key, ":") && !strings.HasPrefix(strings.TrimSpace(above), "#") {
				t.Errorf("%s:%d: %s: no comment", name, n+1, key)
			}
			above = line
		}
	}
}

// The defaults in config.yaml are the defaults.
func TestShippedDefaults(t *testing.T) {
	o, empty := plainOptions(), plainOptions()
	snap, err := o.schema().Load(config.Sources{File: filepath.Join(root, "configs", "config.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := empty.schema().Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if ch := config.Diff(defaults, snap); len(ch) > 0 {
		t.Errorf("%+v", ch)
	}
	for _, s := range snap.Settings {
		if s.Origin.Layer != config.LayerFile {
			t.Errorf("%s is not in config.yaml", s.Path)
		}
	}
}

const (
	beginReference = "<!-- The table of settings, written by its test; change settings.go. -->\n"
	endReference   = "<!-- End of the table. -->\n"
)

func TestShippedReference(t *testing.T) {
	name := "docs/configuration.md"
	doc, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), beginReference)
	_, tail, ok2 := strings.Cut(rest, endReference)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", name)
	}
	var b bytes.Buffer
	b.WriteString(head + beginReference + "\n")
	if err := plainOptions().schema().Reference(&b); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n" + endReference + tail)
	compare(t, name, b.Bytes())
}

// A validator that knows nothing of Portask accepts what is shipped, and every
// default.
func TestShippedSchema(t *testing.T) {
	raw, err := plainOptions().schema().JSONSchema("Portask")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("portask.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("portask.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range shipped {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the table allows by itself, the components allow: each setting at its
// least and its most, the others at their defaults.
func TestTableAgreesWithComponents(t *testing.T) {
	together := map[string]string{ // what a limit needs beside it to make sense
		"performance.producer_memory": "performance.produce_memory=1GiB",
		"performance.produce_memory":  "performance.producer_memory=64KiB",
		"limits.message":              "limits.batch=8188KiB",
		"limits.batch":                "limits.message=1KiB",
		"performance.gc_percent":      "performance.memory_limit=1GiB",
	}
	for k := range plainOptions().schema().Keys() {
		limits := k.Value.Limits()
		switch k.Value.Type() {
		case "count", "size", "duration":
		default:
			continue
		}
		limits, word, _ := strings.Cut(limits, ", or ")
		words := strings.Split(word, ", or ")
		least, most, ok := strings.Cut(limits, " to ")
		if !ok {
			t.Errorf("%s: limits %q", k.Path(), limits)
		}
		for _, text := range append([]string{least, most}, words...) {
			if text == "" {
				continue
			}
			o := plainOptions()
			var set []config.Override
			if path, value, ok := strings.Cut(together[k.Path()], "="); ok {
				set = append(set, config.Override{Path: path, Name: "test", Text: value})
			}
			set = append(set, config.Override{Path: k.Path(), Name: "test", Text: text})
			if _, err := o.schema().Load(config.Sources{Flags: set}); err != nil {
				t.Errorf("%s = %s: %v", k.Path(), text, err)
			}
		}
	}
}

// inForce is everything that a reload changes: what Server.Reload takes, and what
// the process does by itself.
func (o *brokerOptions) inForce() string {
	s := &o.server
	return fmt.Sprint(s.SlowConsumer, s.ProducerBytes, s.DeliverBytes, s.Algorithms, s.Encodings, s.Compression, s.CompressionLevel, s.CompressionStrategy, o.artefact, s.Encoding, s.RetentionEvery, s.Topics,
		o.logLevel, o.gcPercent, o.memoryLimit, o.shutdownTimeout, o.monitor.Interval, o.monitor.MutexFraction, o.monitor.BlockRate)
}

// A setting is called live if, and only if, a reload changes it.
func TestLiveSettingsAreThoseThatReloadChanges(t *testing.T) {
	for k := range plainOptions().schema().Keys() {
		var others []string
		switch k.Value.Type() {
		case "bool":
			others = []string{"true", "false"}
		case "string":
			others = []string{"127.0.0.1:1"}
		case "word", "list":
			others = strings.FieldsFunc(strings.NewReplacer(" or ", ",", "of ", "", " ", "").Replace(k.Value.Limits()), func(r rune) bool { return r == ',' })
		default:
			least, rest, _ := strings.Cut(k.Value.Limits(), " to ")
			most, _, _ := strings.Cut(rest, ", or ")
			others = []string{least, most}
		}
		changes := false
		for _, text := range others {
			o := plainOptions()
			before := o.inForce()
			if _, err := o.schema().Load(config.Sources{Flags: []config.Override{{Path: k.Path(), Text: text}}}); err == nil {
				changes = changes || o.inForce() != before
			}
		}
		if changes != k.Live {
			t.Errorf("%s: live is %t; a reload changes it: %t", k.Path(), k.Live, changes)
		}
	}
}

// Every violation that a component can report is shown under a key of the table.
func TestViolationsHaveKeys(t *testing.T) {
	o := plainOptions()
	o.server.Loops, o.server.DeliverBytes, o.server.ProducerBytes, o.server.Listen = -1, 1, 1, "nowhere"
	o.server.Limits.BatchBytes, o.server.Limits.MessageBytes, o.server.Limits.Messages = 1<<31-1, 1<<31-1, 1<<31-1
	o.server.Limits.DecompressedBytes, o.server.Limits.DecompressedRatio = 1<<31-1, -1
	o.disk.SegmentAge, o.disk.FirstBytes, o.disk.DurableEvery, o.disk.Spares, o.disk.OpenSegments, o.disk.LowPercent, o.disk.ReserveBytes =
		-1, 1, -1, 1<<20, 1<<20, 101, 1<<31
	m := &o.monitor
	m.listen, m.clients, m.Interval, m.TopicSeries, m.PartitionSeries, m.MutexFraction, m.BlockRate, m.FlightBytes, m.FlightAge =
		"nowhere", "nobody", -1, -2, -2, -1, -1, 1, -1
	known := map[string]bool{}
	for k := range plainOptions().schema().Keys() {
		if k.Field != "" {
			known[k.Field] = true
		}
	}
	var count int
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		count++
		var f *fault.Error
		if !errors.As(err, &f) || !known[f.Field] {
			t.Errorf("no key for %v", err)
		}
	}
	walk(o.check())
	if count != 25 {
		t.Errorf("%d violations: %v", count, o.check())
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, f := range []document.Format{document.YAML, document.JSON, document.TOML} {
		b.Run("format="+f.String(), func(b *testing.B) {
			write, err := writerOf("default", f)
			if err != nil {
				b.Fatal(err)
			}
			var text bytes.Buffer
			if err := write(&text); err != nil {
				b.Fatal(err)
			}
			file := filepath.Join(b.TempDir(), "config."+f.String())
			if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
				b.Fatal(err)
			}
			l := launch{file: file}
			b.Run("way=load", func(b *testing.B) {
				b.SetBytes(int64(text.Len()))
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := l.load(); err != nil {
						b.Fatal(err)
					}
				}
			})
			// What the library alone takes to decode the same bytes into a map,
			// without lines, names, types or limits.
			plain := map[document.Format]func([]byte, any) error{document.YAML: yaml.Unmarshal, document.JSON: json.Unmarshal, document.TOML: toml.Unmarshal}[f]
			b.Run("way=plain", func(b *testing.B) {
				b.SetBytes(int64(text.Len()))
				b.ReportAllocs()
				for b.Loop() {
					var m map[string]any
					if err := plain(text.Bytes(), &m); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
