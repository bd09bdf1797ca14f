package topic

import (
	"errors"
	"strings"
	"testing"

	"github.com/portask/portask/broker/storage"
)

// TestMissingLogIsReported: a partition whose log somebody removed begins again
// at offset 0. That loses messages, so it is said, once for each log.
func TestMissingLogIsReported(t *testing.T) {
	fsys := prepared(t)
	eng := mustOpenDisk(t, fsys)
	b := mustStart(t, eng)
	old, err := b.Lookup("old")
	if err != nil {
		t.Fatal(err)
	}
	lost := storage.PartitionID{Topic: old.ID, Index: 1}
	if strings.Contains(b.log.String(), "is missing") {
		t.Errorf("nothing is missing yet: %s", b.log.String())
	}
	if err := errors.Join(b.stop(), eng.RemoveLog(lost)); err != nil {
		t.Fatal(err)
	}
	b = mustStart(t, eng)
	if said := b.log.String(); strings.Count(said, "is missing") != 1 || !strings.Contains(said, lost.String()) {
		t.Errorf("the broker says %q", said)
	}
	if got, err := b.holds("old"); err != nil || len(got) != 3 || got[0] != 2 || got[1] != 0 || got[2] != 2 {
		t.Errorf("topic old holds %v: %v", got, err)
	}
	if err := errors.Join(b.stop(), eng.Close()); err != nil {
		t.Error(err)
	}
}
