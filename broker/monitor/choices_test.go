package monitor

import (
	"strings"
	"testing"

	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/wire"
)

// What a producer says of itself is printed on the terminal of whoever asks: it
// forges no line there and steers nothing.
func TestReportsAreFitToPrint(t *testing.T) {
	x := ChoicesOf(&wire.Report{Artefact: "a\x1b]0;b\a", Note: "é is not used\r\ntopic orders: 1 batches\t\u009b31m\u202e"})
	if x.Artefact != "a?]0;b?" || x.Note != "é is not used??topic orders: 1 batches??31m?" {
		t.Errorf("%q, %q", x.Artefact, x.Note)
	}
	other := ChoicesOf(&wire.Report{Arms: []wire.ReportArm{{Algorithm: server.OtherArm}}})
	if other.Arms[0].Arm != "other" || other.Chosen != "other" {
		t.Errorf("%+v", other)
	}
	var b strings.Builder
	if err := x.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 5 {
		t.Errorf("%d lines, not 5:\n%s", n, b.String())
	}
}
