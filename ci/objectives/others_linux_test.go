package objectives

import (
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	all, steal, err := parseStat("cpu  100 20 30 4000 50 60 70 8 0 0\ncpu0 1 2 3\n")
	if err != nil || all != 1500*time.Millisecond || steal != 80*time.Millisecond {
		t.Errorf("%v, %v, %v", all, steal, err)
	}
	for _, text := range []string{"", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu a 2 3 4 5 6 7 8 9"} {
		if _, _, err := parseStat(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	if u, err := readUsage(); err != nil || u.all <= 0 || u.own <= 0 {
		t.Errorf("%+v, %v", u, err)
	}
}
