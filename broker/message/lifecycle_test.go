package message

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portask/portask/broker/fault"
)

// Every change from every state: those of the picture are taken, the others
// refused without an effect.
func TestTransitions(t *testing.T) {
	allowed := map[[2]State]bool{
		{Pending, Processing}: true, {Pending, Expired}: true, {Pending, Dead}: true,
		{Processing, Pending}: true, {Processing, Acknowledged}: true, {Processing, Expired}: true, {Processing, Dead}: true,
	}
	start := time.Unix(1000, 0)
	for from := range numStates {
		for to := range numStates + 1 {
			l := Lifecycle{created: start, state: from, attempts: 1}
			before := l
			err := l.To(to, start.Add(time.Second))
			if allowed[[2]State{from, to}] {
				if err != nil || l.State() != to {
					t.Errorf("%v to %v: %v, %v", from, to, l.State(), err)
				}
				continue
			}
			if !errors.Is(err, fault.Invalid) || l != before {
				t.Errorf("%v to %v: %v, %v", from, to, l.State(), err)
			}
			if got, _ := fault.DetailOf(err, "from"); got != from.String() {
				t.Errorf("%v to %v: from %q", from, to, got)
			}
		}
	}
	for s, final := range map[State]bool{Pending: false, Processing: false, Acknowledged: true, Expired: true, Dead: true} {
		if s.Final() != final {
			t.Errorf("%v: final %v", s, s.Final())
		}
	}
	if State(9).String() != "state 9" || Dead.String() != "dead" {
		t.Errorf("%v, %v", State(9), Dead)
	}
}

func TestTimesOfALife(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	l := NewLifecycle(at(0))
	check := func(now int, age, attempt, processing time.Duration, attempts int) {
		t.Helper()
		if l.Age(at(now)) != age*time.Second || l.Attempt(at(now)) != attempt*time.Second ||
			l.Processing(at(now)) != processing*time.Second || l.Attempts() != attempts {
			t.Errorf("at %d: age %v, attempt %v, processing %v, attempts %d", now, l.Age(at(now)), l.Attempt(at(now)), l.Processing(at(now)), l.Attempts())
		}
	}
	to := func(s State, now int) {
		t.Helper()
		if err := l.To(s, at(now)); err != nil {
			t.Fatal(err)
		}
	}
	check(2, 2, 0, 0, 0)
	to(Processing, 3)
	check(5, 5, 2, 2, 1)
	to(Pending, 6) // given back
	check(8, 8, 0, 3, 1)
	to(Processing, 10)
	check(11, 11, 1, 4, 2)
	to(Acknowledged, 14)
	check(50, 14, 0, 7, 2)
	if l.Created() != at(0) {
		t.Error(l.Created())
	}

	l = NewLifecycle(at(10)) // the clock is set back: nothing is negative
	to(Processing, 5)
	to(Dead, 0)
	check(0, 0, 0, 0, 1)
}

// Whatever is tried, a final state is the last, and processing is never longer
// than the age.
func TestLivesEndOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		l := NewLifecycle(now)
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "pause")))
			was := l
			err := l.To(State(rapid.Uint8Range(0, uint8(numStates)).Draw(t, "to")), now)
			if was.state.Final() && (err == nil || l != was) {
				t.Fatalf("%v was left for %v", was.state, l.state)
			}
			if l.Processing(now) > l.Age(now) || l.Attempt(now) > l.Processing(now) {
				t.Fatalf("attempt %v, processing %v, age %v", l.Attempt(now), l.Processing(now), l.Age(now))
			}
		}
	})
}

func BenchmarkLifecycle(b *testing.B) {
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		l := NewLifecycle(now)
		if l.To(Processing, now) != nil || l.To(Acknowledged, now) != nil {
			b.Fatal("refused")
		}
	}
}
