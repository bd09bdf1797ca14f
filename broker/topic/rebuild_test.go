package topic

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// TestRebuild makes catalogues from logs and from what is left of an old one.
func TestRebuild(t *testing.T) {
	var old stored
	if err := json.Unmarshal([]byte(golden), &old); err != nil {
		t.Fatal(err)
	}
	known := ulid.MustParseStrict(old.Topics[0].ID)
	other := ulid.MustParseStrict("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	logs := []storage.PartitionID{{Topic: known, Index: 2}, {Topic: other, Index: 0}, {Topic: other, Index: PartitionsMax}}
	edit := func(from, to string) string {
		if !strings.Contains(golden, from) {
			t.Fatalf("%q is not in the catalogue", from)
		}
		return strings.ReplaceAll(golden, from, to)
	}
	for name, c := range map[string]struct{ left, want string }{
		"nothing left":  {"", RecoveredPrefix + known.String()},
		"no JSON":       {golden[:len(golden)/2], RecoveredPrefix + known.String()},
		"whole":         {golden, old.Topics[0].Name},
		"no name":       {edit(`"`+old.Topics[0].Name+`"`, `"a/b"`), RecoveredPrefix + known.String()},
		"id of nothing": {edit(known.String(), "01ARZ3NDEKTSV4RRFFQ69G5FAA"), RecoveredPrefix + known.String()},
		"wrong cluster": {edit(old.Cluster, "nonsense"), old.Topics[0].Name},
		"wrong version": {edit(`"version": 1`, `"version": 9`), old.Topics[0].Name},
	} {
		t.Run(name, func(t *testing.T) {
			blob, notes, err := Rebuild([]byte(c.left), logs)
			if err != nil || Check(blob) != nil {
				t.Fatalf("%s: %v", blob, err)
			}
			var st stored
			if err := json.Unmarshal(blob, &st); err != nil {
				t.Fatal(err)
			}
			got := map[string]storedTopic{}
			for _, s := range st.Topics {
				got[s.ID] = s
				if s.Visibility != message.AckDurable || s.RetentionMs != Unlimited || s.RetentionBytes != Unlimited {
					t.Errorf("%+v", s)
				}
				if !strings.Contains(strings.Join(notes, "\n"), s.Name) {
					t.Errorf("no note names %s: %q", s.Name, notes)
				}
			}
			if a, b := got[known.String()], got[other.String()]; len(got) != 2 || a.Name != c.want || a.Partitions != 3 ||
				b.Name != RecoveredPrefix+other.String() || b.Partitions != 1 {
				t.Errorf("%s", blob)
			}
		})
	}
}
