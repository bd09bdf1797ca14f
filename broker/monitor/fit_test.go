package monitor

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// However many topics and producers there are, an answer is no longer than its bound,
// and says what is not in it.
func TestExplainedFits(t *testing.T) {
	arms := make([]ArmChoice, 12)
	for i := range arms {
		arms[i] = ArmChoice{Arm: "brotli-balanced", Batches: 1 << 40, BytesIn: 1 << 50, BytesOut: 1 << 50, EncodeNs: 1 << 50}
	}
	topic := func(name string, producers int) TopicChoices {
		x := TopicChoices{Topic: name, Arms: arms}
		for range producers {
			x.Producers = append(x.Producers, ProducerChoices{Producer: strings.Repeat("p", 64), Note: strings.Repeat("n", 256), Arms: arms})
		}
		return x
	}
	for _, c := range []struct{ topics, producers int }{{512, 2}, {1, 1024}, {3, 600}, {2, 1}} {
		var x Explained
		for i := range c.topics {
			x.Topics = append(x.Topics, topic(fmt.Sprint("topic-", i), c.producers))
		}
		x.fit(explainedBytes)
		b, err := json.MarshalIndent(x, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > explainedBytes+4096 || len(x.Topics) == 0 || len(x.Topics)+x.LeftOut != c.topics {
			t.Errorf("%d topics of %d producers: %d bytes, %d topics, %d left out", c.topics, c.producers, len(b), len(x.Topics), x.LeftOut)
		}
		if first := &x.Topics[0]; len(first.Producers)+first.Others != c.producers {
			t.Errorf("%d producers and %d others of %d", len(first.Producers), first.Others, c.producers)
		}
		if c.topics*c.producers < 10 && x.LeftOut+x.Topics[0].Others > 0 {
			t.Errorf("something is left out of %d topics of %d producers", c.topics, c.producers)
		}
		var text strings.Builder
		if err := x.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if said := strings.Contains(text.String(), "topics more"); said != (x.LeftOut > 0) {
			t.Errorf("%d topics left out, and the text says so: %v", x.LeftOut, said)
		}
	}
}
