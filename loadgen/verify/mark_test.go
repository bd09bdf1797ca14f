package verify

import "testing"

// What was lost, given up, delivered twice or out of order is counted in the
// span in which it happened, and there only.
func TestSpans(t *testing.T) {
	tr, err := New(Options{Producers: 1, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	// send sends n messages in partition p; lost ones are acknowledged only.
	send := func(p uint32, n int, lost, failed func(i int) bool) {
		l := tr.Lane(0, p)
		for i := range n {
			seq, ok := l.Send()
			if !ok {
				t.Fatal("window full")
			}
			switch {
			case failed != nil && failed(i):
				l.Failed(seq)
				continue
			default:
				l.Acked(seq)
			}
			if lost == nil || !lost(i) {
				l.Delivered(seq)
			}
		}
	}
	every := func(n int) func(int) bool { return func(i int) bool { return i%n == 1 } }
	send(0, 1000, nil, nil)
	a := tr.Mark()
	send(0, 700, every(100), nil)
	send(1, 300, nil, every(30))
	tr.Lane(0, 0).Delivered(5) // long settled
	tr.Corrupt()
	b := tr.Mark()
	send(0, 130, every(10), nil)
	send(1, 10, nil, nil)
	tr.Lane(0, 1).Delivered(1 << 40)
	c := tr.Mark()

	if got, want := tr.Between(a, b, false), (Span{Messages: 1000, Lost: 7, GivenUp: 10, Duplicated: 1, Corrupt: 1}); got != want {
		t.Errorf("first span %+v, want %+v", got, want)
	}
	if got, want := tr.Between(b, c, false), (Span{Messages: 140, Lost: 13, Phantom: 1}); got != want {
		t.Errorf("second span %+v, want %+v", got, want)
	}
	// The spans of all the time tell what Counts tells.
	all, counts := tr.Between(Mark{lanes: make([]laneMark, 2)}, tr.Mark(), true), tr.Counts()
	if all.Messages != counts.Sent || all.Lost != counts.Lost || all.GivenUp != counts.Failed || all.Duplicated != counts.Duplicated || all.Corrupt != counts.Corrupt {
		t.Errorf("all %+v, counts %+v", all, counts)
	}
	if !c.Quiet(c, 0) || c.Quiet(b, 0) || c.Quiet(c, 1) != (c.lanes[1].top == c.lanes[1].next) {
		t.Error("quiet lanes")
	}
	// On its way at the first mark: delivered in the span.
	l := tr.Lane(0, 1)
	seq, _ := l.Send()
	d := tr.Mark()
	l.Acked(seq)
	if got := tr.Between(d, tr.Mark(), true); got.Messages != 1 || got.Lost != 1 {
		t.Errorf("in flight: %+v", got)
	}
	l.Delivered(seq)
	if got := tr.Between(d, tr.Mark(), true); got.Messages != 1 || got.Lost != 0 {
		t.Errorf("in flight, and delivered: %+v", got)
	}
}
