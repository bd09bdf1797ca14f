package scenario

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConnections(t *testing.T) {
	s, err := Parse("x.yaml", []byte(`version: 1
kind: connections
topics:
  - {name: held, partitions: 2}
connections: {count: 18000, steps: "1000,5000, 18000", heartbeat: 10s, hold: 1m, cost_at_most: 250B}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Connections.Points(); !slices.Equal(got, []int{1000, 5000, 18000}) || s.Duration() != time.Minute || s.Connections.CostAtMost != 250 {
		t.Errorf("%+v, points %v", s.Connections, got)
	}
	text := string(s.YAML())
	again, err := Parse("x.yaml", []byte(text))
	if err != nil || again.Hash() != s.Hash() {
		t.Errorf("read back: %v\n%s", err, text)
	}
	for _, not := range []string{"producers", "phases", "limits", "loop"} {
		if strings.Contains(text, not+":") {
			t.Errorf("%s is written:\n%s", not, text)
		}
	}
	if strings.Contains(string(Default().YAML()), "connections:") {
		t.Error("a load is written with connections")
	}
	s = Default()
	s.Kind = KindConnections
	if got := s.Connections.Points(); !slices.Equal(got, []int{500, 2500, 5000, 10_000}) || s.Validate() != nil {
		t.Errorf("points %v, %v", got, s.Validate())
	}
}

func TestConnectionsAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"kind: connections\nphases: [{rate: 5}]\n":                     ":3: phases: has a meaning only with kind load",
		"kind: connections\nproducers: {count: 5}\n":                   ":3: producers: has a meaning only with kind load",
		"kind: connections\nloop: closed\n":                            ":3: loop: has a meaning only with kind load",
		"connections: {count: 5}\n":                                    ":2: connections: has a meaning only with kind connections",
		"kind: connection\n":                                           "did you mean connections",
		"kind: connections\nconnections: {count: 0}\n":                 "connections.count",
		"kind: connections\nconnections: {count: 10000001}\n":          "connections.count",
		"kind: connections\nconnections: {count: 5, steps: \"1,6\"}\n": "the last is 6: want count, 5",
		"kind: connections\nconnections: {count: 5, steps: \"5,5\"}\n": "connections.steps",
		"kind: connections\nconnections: {count: 5, steps: \"a\"}\n":   "want numbers between commas",
		"kind: connections\nconnections: {heartbeat: 1ms}\n":           "connections.heartbeat",
		"kind: connections\ntopics: [{name: a}, {name: b}]\n":          "connections subscribe one",
	} {
		_, err := Parse("x.yaml", []byte("version: 1\n"+text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := With(Setting{Path: "kind", Value: "connections"}, Setting{Path: "phases.0.rate", Value: "5"}); err == nil || !strings.Contains(err.Error(), "phases") {
		t.Errorf("a rate for connections: %v", err)
	}
}
