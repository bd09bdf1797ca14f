package gate

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/portask/portask/ci/verdict"
)

// waiverKey begins a waiver in a commit message, in any case and with blanks
// before the colon, as git reads the key of a trailer.
const waiverKey = "perf-accept:"

// waiverLine finds what begins like a waiver: the key as one may misspell it, the
// separator, and the rest. Without a colon it is one if a percentage is its
// second word; else it is prose.
var waiverLine = regexp.MustCompile(`(?i)^(perf[-_ ]?accept(?:s|ed)?)(?:[ \t]*([:=])(.*)|[ \t]+(\S+[ \t]+[0-9.,+-]+[ \t]?%.*))$`)

// Limits of waivers: a message with more is no list of exceptions any more, and
// one of more than this is a switch.
const (
	waiversMax = 20
	waiverMax  = 5.0 // times base
	reasonMin  = 10  // bytes: it is read by people
)

// Waivers reads the trailers of a commit message,
//
//	perf-accept: NAME MAX% REASON
//
// which accept that the benchmark, counter or accepted figure NAME gets worse
// by up to MAX per cent. The name is one word: a counter of a benchmark goes by
// the benchmark's name. Upper and lower case of the key are the same, and blanks
// may stand before the colon. A line that begins like a waiver and is none is an
// error that quotes it: it would be believed to work.
func Waivers(commit, message string) ([]verdict.Waiver, error) {
	var out []verdict.Waiver
	for line := range strings.Lines(message) {
		m := waiverLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		if !strings.EqualFold(m[1]+m[2], waiverKey) {
			return nil, fmt.Errorf("commit %.10s: %.200q looks like a waiver and is none: want %q", commit, strings.TrimSpace(line), waiverKey+" NAME MAX% REASON")
		}
		f := strings.Fields(m[3])
		if len(f) < 3 {
			return nil, fmt.Errorf("commit %.10s: %q: want %q", commit, strings.TrimSpace(line), waiverKey+" NAME MAX% REASON")
		}
		number, percent := strings.CutSuffix(f[1], "%")
		limit, err := strconv.ParseFloat(number, 64)
		if err != nil || !percent || !(limit > 0) || limit > 100*waiverMax {
			return nil, fmt.Errorf("commit %.10s: %s %s: the limit is %q, want above 0%% and at most %.0f%%", commit, waiverKey, f[0], f[1], 100*waiverMax)
		}
		reason := strings.Join(f[2:], " ")
		if len(reason) < reasonMin {
			return nil, fmt.Errorf("commit %.10s: %s %s: the reason %q is shorter than %d letters", commit, waiverKey, f[0], reason, reasonMin)
		}
		if len(out) == waiversMax {
			return nil, fmt.Errorf("commit %.10s: more than %d waivers", commit, waiversMax)
		}
		out = append(out, verdict.Waiver{Name: f[0], Max: limit / 100, Reason: reason, Commit: commit})
	}
	return out, nil
}

// Waive returns a copy of the first waiver for name that covers an effect, and
// marks it as used; nil if there is none.
func Waive(waivers []verdict.Waiver, name string, effect float64) *verdict.Waiver {
	for i := range waivers {
		if w := &waivers[i]; w.Name == name && effect <= w.Max {
			w.Used = true
			c := *w
			return &c
		}
	}
	return nil
}
