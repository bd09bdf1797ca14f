package command

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/selftest"
)

func TestSelftestCommand(t *testing.T) {
	out, status := do(t, "selftest", "--quiet", "--duration", "120ms", "--stall", "60ms", "--every", "100", "--portask", "", "-o", "json")
	text, _, _ := strings.Cut(out, "\n}\n")
	var r selftest.Report
	if err := json.Unmarshal([]byte(text+"\n}"), &r); err != nil || len(r.Checks) < 10 || status != r.ExitStatus() || status == 4 {
		t.Errorf("status %d, %v: %s", status, err, out)
	}
	for _, args := range [][]string{{"selftest", "-o", "xml"}, {"selftest", "--portask", "/no/such/program"}, {"selftest", "--duration", "1ms"}, {"selftest", "x"}} {
		if out, status := do(t, args...); status != 1 {
			t.Errorf("%s: status %d, %s", args, status, out)
		}
	}
	r = selftest.Report{Checks: []selftest.Check{{Name: "a", Verdict: selftest.Slow}, {Name: "b", Verdict: selftest.Fail}}}
	if err := selftestVerdict(&r); ExitStatus(err) != 4 || err.Error() != "self-test: fail: b" {
		t.Errorf("%v", err)
	}
}
