package document

import (
	"strings"
	"testing"
)

func TestDistance(t *testing.T) {
	long := strings.Repeat("a", 1000)
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"listen", "lisen", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}, {long, long + "b", 0}, {long, "", 64}} {
		if d := Distance(c.a, c.b); d != c.want {
			t.Errorf("%.10q, %.10q: %d, want %d", c.a, c.b, d, c.want)
		}
		if d := Distance(c.b, c.a); d != c.want {
			t.Errorf("%.10q, %.10q: %d, want %d", c.b, c.a, d, c.want)
		}
	}
}
