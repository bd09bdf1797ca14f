package monitor

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the reference in docs/monitoring.md")

const (
	beginReference = "<!-- The table of metrics, written by its test; change metrics.go. -->\n"
	endReference   = "<!-- End of the table. -->\n"
)

// kind follows from the name, as Prometheus' conventions want it.
func (m *metric) kind() string {
	switch {
	case strings.HasSuffix(m.name, "_total"):
		return "counter"
	case strings.HasSuffix(m.name, "_latency_seconds"):
		return "histogram"
	}
	return "gauge"
}

// The reference in docs/monitoring.md has every metric, and what the page says
// beside it names none that is not there.
func TestReference(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "monitoring.md")
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), beginReference)
	_, tail, ok2 := strings.Cut(rest, endReference)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	var b bytes.Buffer
	known := map[string]bool{}
	b.WriteString(head + beginReference + "\n| metric | labels | kind | meaning |\n| --- | --- | --- | --- |\n")
	all := slices.Concat(brokerDescs, systemDescs)
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	for _, m := range all {
		known[m.name] = true
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, strings.Join(m.labels, ", "), m.kind(), m.help)
	}
	b.WriteString("\n" + endReference + tail)
	for word := range strings.FieldsFuncSeq(head+tail, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(word, "_bucket"), "_count"), "_sum")
		if strings.HasPrefix(word, "portask_") && !known[name] {
			t.Errorf("%s names %s, which is not a metric", file, word)
		}
	}
	switch {
	case bytes.Equal(doc, b.Bytes()):
	case *update:
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what the metrics are; go test ./broker/monitor -run TestReference -update", file)
	}
}
