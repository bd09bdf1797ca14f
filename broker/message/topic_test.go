package message

import (
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
)

func TestTopicNames(t *testing.T) {
	for _, good := range []string{"a", "orders", "A-Z_0.9", "...", "-", strings.Repeat("x", MaxTopicBytes)} {
		if err := CheckTopicName("create topic", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                       `create topic: topic: "" is not a name`,
		".":                      `create topic: topic: "." is not a name`,
		"..":                     `create topic: topic: ".." is not a name`,
		"../x":                   `"../x" has a character other than a-z, A-Z, 0-9, '.', '_' and '-' at byte 2`,
		"kä":                     "at byte 1",
		"a\x00b":                 "at byte 1",
		"tail ":                  "at byte 4",
		strings.Repeat("x", 250): "create topic: topic: the name is too long (value 250 > limit 249)",
	} {
		err := CheckTopicName("create topic", bad)
		code := fault.Invalid
		if len(bad) > MaxTopicBytes {
			code = fault.TooLarge
		}
		f := fault.Find(err)
		if f == nil || f.Code != code || f.Field != "topic" || f.Info().Category != fault.CategoryTopic || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A topic's name is checked on every request that carries one.
func TestTopicNameCheckAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	name := strings.Repeat("x", MaxTopicBytes)
	if n := testing.AllocsPerRun(100, func() {
		if CheckTopicName("subscribe", name) != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
