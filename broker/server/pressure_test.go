package server

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// Who wants the load is told it when it changes by a step, and the fan-out of his
// topic; who takes advice on the strategy, while that is adaptive; nobody else.
func TestLoadIsToldToWhoWantsIt(t *testing.T) {
	now := wire.Load{CPU: 40, Memory: 60, Disk: wire.LoadUnknown, Link: 200}
	asked := 0
	r := newRig(t, Options{Load: func() wire.Load { asked++; return now }})
	opts := r.s.opts
	r.topic("orders", 2, message.AckAccepted)
	c := r.open()
	h, a := r.adviser(c, "orders", wire.WantLoad)
	if want := (wire.Advice{HasAccept: true, Accept: 0x3f, HasFanOut: true}); a != want {
		t.Fatalf("opened with %+v, want %+v", a, want)
	}
	// The second look tells those that had no answer since the first.
	look := func() { r.s.measureLoad(); r.quiet(c); r.s.measureLoad() }
	other := r.open()
	follower, a := r.adviser(other, "orders", wire.WantCompression|wire.WantStrategy)
	if want := (wire.Advice{HasCompression: true, HasStrategy: true, Strategy: uint8(compression.Threshold), HasAccept: true, Accept: 0x3f}); a != want {
		t.Fatalf("opened with %+v, want %+v", a, want)
	}
	look()
	r.advised(c, h, wire.Advice{HasLoad: true, Load: wire.Load{CPU: 40, Memory: 60, Disk: wire.LoadUnknown, Link: wire.LoadUnknown}})
	r.quiet(other)

	now.CPU, now.Memory = 44, 56 // by less than a step
	look()
	r.quiet(c)
	now.CPU, now.Memory = 45, 56
	look()
	r.advised(c, h, wire.Advice{HasLoad: true, Load: wire.Load{CPU: 45, Memory: 60, Disk: wire.LoadUnknown, Link: wire.LoadUnknown}})

	// Three subscriptions to two partitions.
	reader := r.open()
	for i := range 3 {
		r.request(reader, 0, wire.OpSubscribe, &wire.Subscribe{Topic: "orders", Partition: uint32(i % 2), Start: wire.StartLatest})
		r.answer(reader, wire.OpSubscribe.Response(), new(wire.SubscribeOK))
	}
	look()
	r.advised(c, h, wire.Advice{HasFanOut: true, FanOut: 2})
	r.end(reader, nil)
	look()
	r.advised(c, h, wire.Advice{HasFanOut: true})

	// The strategy becomes adaptive: now the follower is told, at once.
	r.reload(&opts, func(o *Options) { o.CompressionStrategy = wire.Choose(compression.Adaptive) })
	r.advised(other, follower, wire.Advice{HasStrategy: true, Strategy: uint8(compression.Adaptive),
		HasLoad: true, Load: wire.Load{CPU: 45, Memory: 60, Disk: wire.LoadUnknown, Link: wire.LoadUnknown}, HasFanOut: true})
	r.quiet(c)
	// never: a client that knows no strategies is told not to compress either.
	old, _ := r.adviser(other, "orders", wire.WantCompression)
	r.reload(&opts, func(o *Options) {
		o.CompressionStrategy, o.Compression = wire.Choose(compression.Threshold), message.Zstd
	})
	r.told(other, map[uint32]wire.Advice{
		old:      {HasCompression: true, Algorithm: message.Zstd},
		follower: {HasCompression: true, Algorithm: message.Zstd, HasStrategy: true, Strategy: uint8(compression.Threshold)},
	})
	r.reload(&opts, func(o *Options) { o.CompressionStrategy = wire.Choose(compression.Never) })
	r.told(other, map[uint32]wire.Advice{
		old:      {HasCompression: true},
		follower: {HasCompression: true, HasStrategy: true, Strategy: uint8(compression.Never)},
	})

	// Nobody wants it any more: it is looked at less often, for HELLO_OK.
	r.end(c, nil)
	r.end(other, nil)
	if n := r.s.loadWanted.Load(); n != 0 {
		t.Errorf("%d producers want the load after all have gone", n)
	}
	now.CPU, asked = 90, 0
	for range 4 * loadRest {
		r.s.measureLoad()
	}
	if asked != 4 {
		t.Errorf("read %d times in %d seconds in which nobody wanted it", asked, 4*loadRest)
	}
	if got := r.hello(); !got.HasLoad || got.Load.CPU != 90 {
		t.Errorf("HELLO_OK says %+v", got)
	}
}

// hello connects and returns what the broker answers.
func (r *rig) hello() (ok wire.HelloOK) {
	r.t.Helper()
	c := r.connect()
	r.bytes(c, wire.AppendPreface(nil, 1, 1))
	r.request(c, 0, wire.OpHello, &wire.Hello{ClientName: "rig"})
	r.answer(c, wire.OpHello.Response(), &ok)
	return ok
}

// Whoever connects is told the load, as far as it is known.
func TestLoadInHello(t *testing.T) {
	r := newRig(t, Options{Load: func() wire.Load { return wire.Load{CPU: 40, Memory: 60, Disk: wire.LoadUnknown, Link: 200} }})
	if ok := r.hello(); ok.HasLoad {
		t.Errorf("%+v before anything was read", ok)
	}
	r.s.measureLoad()
	want := wire.Load{CPU: 40, Memory: 60, Disk: wire.LoadUnknown, Link: wire.LoadUnknown}
	if ok := r.hello(); !ok.HasLoad || ok.Load != want || len(ok.Opcodes) == 0 {
		t.Errorf("%+v, want %+v", ok, want)
	}
}

// A change of the load goes out with the next answer, in the same write; nobody is
// woken or written to for its sake. A producer that has no answer coming is told a
// second later.
func TestLoadRidesWithAnswers(t *testing.T) {
	now := wire.Load{CPU: 40, Memory: 60, Disk: 10, Link: 20}
	r := newRig(t, Options{Load: func() wire.Load { return now }})
	r.topic("orders", 1, message.AckAccepted)
	r.s.measureLoad()
	c := r.open()
	busy, a := r.adviser(c, "orders", wire.WantLoad)
	if !a.HasLoad || a.Load != now {
		t.Fatalf("opened with %+v", a)
	}
	idle, _ := r.adviser(r.open(), "orders", wire.WantLoad)
	send := func() {
		t.Helper()
		r.produce(c, busy, 0, batchOf(t, message.Producer{}, "m", 3))
		r.turn()
	}
	ack := func() {
		t.Helper()
		if h := r.answer(c, wire.OpProduce.Response(), new(wire.ProduceOK)); h.Handle != busy {
			t.Fatalf("handle %d", h.Handle)
		}
	}
	send()
	ack()
	r.quiet(c)
	for _, cpu := range []uint8{50, 60, 55, 70} {
		now.CPU = cpu
		r.s.measureLoad()
		r.quiet(c)
		send()
		if n, want := len(r.out[c]), wire.HeaderBytes+wire.ProduceOKBytes+wire.HeaderBytes+2+8; n != want {
			t.Fatalf("%d bytes written in the turn of the answer, want answer and advice, %d", n, want)
		}
		ack()
		r.advised(c, busy, wire.Advice{HasLoad: true, Load: now})
		send()
		ack()
		r.quiet(c)
	}
	other := evloop.Conn{Index: c.Index + 1, Gen: 1}
	for _, cpu := range []uint8{60, 70} { // a second after 50, and after 55
		r.advised(other, idle, wire.Advice{HasLoad: true, Load: wire.Load{CPU: cpu, Memory: 60, Disk: 10, Link: 20}})
	}
	r.s.measureLoad()
	r.quiet(other)
	r.quiet(c)
}

// At ack level none it is the next CREDIT that news go out with.
func TestLoadRidesWithCredit(t *testing.T) {
	now := wire.Load{CPU: 40}
	r := newRig(t, Options{Load: func() wire.Load { return now }, ProducerBytes: 64 << 10})
	r.topic("orders", 1, message.AckAccepted)
	r.s.measureLoad()
	c := r.open()
	r.request(c, 0, wire.OpOpenProducer, &wire.OpenProducer{Topic: "orders", Ack: message.AckNone, Wants: wire.WantLoad})
	h := r.answer(c, wire.OpOpenProducer.Response(), new(wire.OpenProducerOK)).Handle
	now.CPU = 50
	r.s.measureLoad()
	for b := batchOf(t, message.Producer{}, strings.Repeat("m", 1<<10), 4); len(r.out[c]) == 0; {
		r.produce(c, h, 0, b)
		r.turn()
	}
	r.answer(c, wire.OpCredit, new(wire.Credit))
	r.advised(c, h, wire.Advice{HasLoad: true, Load: now})
	r.quiet(c)
}

// Telling with an answer allocates nothing, whether something is new or not.
func TestTellAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	now := wire.Load{CPU: 10}
	r := newRig(t, Options{Load: func() wire.Load { return now }})
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.adviser(c, "orders", wire.WantLoad)
	i, p := r.l.producerOf(c, h)
	r.l.ev = discard{r}
	if n := testing.AllocsPerRun(100, func() { r.l.tell(i, p) }); n != 0 {
		t.Errorf("%.1f allocations without news", n)
	}
	told := p.told
	n := testing.AllocsPerRun(100, func() {
		now.CPU ^= 32
		r.s.load.Store(packLoad(now))
		r.s.changes.Add(1)
		r.l.tell(i, p)
	})
	if n != 0 || p.told == told {
		t.Errorf("%.1f allocations with news, told %+v", n, p.told)
	}
}

// discard takes what is sent and keeps nothing.
type discard struct{ *rig }

func (discard) Send(evloop.Conn, []byte) error { return nil }

// told expects one ADVICE for each of several producers of a connection.
func (r *rig) told(c evloop.Conn, want map[uint32]wire.Advice) {
	r.t.Helper()
	for range len(want) {
		var x wire.Advice
		if h := r.answer(c, wire.OpAdvice, &x); x != want[h.Handle] {
			r.t.Fatalf("handle %d: %+v, want %+v", h.Handle, x, want[h.Handle])
		}
	}
}

// A broker without readings says what it knows.
func TestLoadOfNobody(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	r.adviser(c, "orders", wire.WantLoad)
	for range 3 {
		r.s.measureLoad()
	}
	r.quiet(c)
}

func TestLoadSteps(t *testing.T) {
	for _, c := range []struct{ old, now, want uint8 }{
		{50, 54, 50}, {50, 55, 55}, {50, 46, 50}, {50, 45, 45}, {0, 4, 0}, {3, 0, 3}, {98, 100, 98},
		{wire.LoadUnknown, 1, 1}, {50, 101, wire.LoadUnknown}, {50, wire.LoadUnknown, wire.LoadUnknown},
	} {
		if got := stepped(c.old, c.now); got != c.want {
			t.Errorf("told %d, now %d: %d, want %d", c.old, c.now, got, c.want)
		}
	}
	x := wire.Load{CPU: 1, Memory: 2, Disk: 3, Link: 255}
	if got := unpackLoad(packLoad(x)); got != x {
		t.Errorf("%+v became %+v", x, got)
	}
}

// sampleReport is what a producer says that sent n batches, all but one by zstd.
func sampleReport(n uint64) wire.Report {
	return wire.Report{Strategy: 3, Chosen: 1, CPU: 30, FanOut: 2, Batches: n, Switches: 1, Artefact: "a", Arms: []wire.ReportArm{
		{Batches: 1, In: 100, Out: 100}, {Algorithm: message.Zstd, Batches: n - 1, In: 100 * (n - 1), Out: 25 * (n - 1), EncodeNs: 7 * (n - 1), Predicted: 9}, {Algorithm: message.LZ4},
	}, Recent: []wire.ReportSwitch{{AtUs: 1000, From: wire.NoArm, To: 0}, {AtUs: int64(n), From: 0, To: 1, Reason: 2}}}
}

// Reports are kept for each open producer, and summed for the topic; what a
// producer sent twice counts once, and what it sent stays when it goes.
func TestReports(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	a, _ := r.adviser(c, "orders", 0)
	b, _ := r.adviser(c, "orders", 0)
	say := func(h uint32, x wire.Report) {
		r.t.Helper()
		r.request(c, h, wire.OpReport, &x)
		r.quiet(c)
	}
	say(a, sampleReport(2000))
	say(a, sampleReport(3000))
	say(b, sampleReport(5000))
	say(77, sampleReport(100)) // of a handle that is not open
	all := r.s.Choices("")
	if len(all) != 1 || all[0].Topic != "orders" || len(all[0].Producers) != 2 || all[0].Producers[0].Report.Batches != 5000 {
		t.Fatalf("%+v", all)
	}
	check := func(n int) {
		t.Helper()
		all := r.s.Choices("orders")
		if len(all) != 1 || len(all[0].Producers) != n {
			t.Fatalf("%+v", all)
		}
		x := all[0]
		if x.Batches != 8000 || x.Switches != 2 || len(x.Arms) != 2 || x.Arms[1].Algorithm != message.Zstd || x.Arms[1].Batches != 7998 || x.Arms[1].In != 799800 || x.Arms[1].Out != 7998*25 {
			t.Errorf("%+v", x)
		}
		if len(x.Recent) != 5 || x.Recent[0].From.Level != wire.NoArm || x.Recent[4].To.Algorithm != message.Zstd {
			t.Errorf("turns %+v", x.Recent)
		}
	}
	check(2)
	// Counters that fall, times of another age, and more arms than there are.
	odd := sampleReport(10)
	odd.Chosen, odd.Recent = 200, []wire.ReportSwitch{{AtUs: 1 << 62, From: 99, To: 98}}
	say(b, odd)
	check(2)
	r.request(c, b, wire.OpCloseProducer, &wire.CloseProducer{})
	r.answer(c, wire.OpCloseProducer.Response(), new(wire.Empty))
	check(1)
	r.end(c, nil)
	check(0)
	if got := r.s.Choices("other"); got != nil {
		t.Errorf("%+v of a topic that is not there", got)
	}
	r.s.choices.sweep(func(*topic.Topic) bool { return false })
	if got := r.s.Choices(""); len(got) != 1 || got[0].Topic != "" || got[0].Batches != 8000 || len(got[0].Arms) != 2 {
		t.Errorf("%+v after the topic went", got)
	}
}

// Arms are names of series: whatever a peer makes up, it is folded into one, and
// counters neither fall nor overflow.
func TestHostileReports(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.adviser(c, "orders", 0)
	say := func(x wire.Report) Choices {
		t.Helper()
		r.request(c, h, wire.OpReport, &x)
		r.quiet(c)
		all := r.s.Choices("orders")
		if len(all) != 1 || len(all[0].Producers) != 1 {
			t.Fatalf("%+v", all)
		}
		return all[0]
	}
	// Every pair that can be written, 16 to a report.
	var got Choices
	sent, total := wire.Report{}, uint64(0)
	for n := range 1 << 16 {
		sent.Arms = append(sent.Arms, wire.ReportArm{Algorithm: message.Algorithm(n >> 8), Level: uint8(n), Batches: uint64(n + 1), In: 1})
		if len(sent.Arms) == wire.MaxArms {
			sent.Recent = []wire.ReportSwitch{{AtUs: int64(n), From: 0, To: wire.MaxArms - 1}}
			sent.Batches = uint64(n)
			got = say(sent)
			sent.Arms = sent.Arms[:0]
		}
	}
	const known = 1 + 5*3 // none, and five algorithms at three levels
	if len(got.Arms) != known+1 || len(got.Recent) != recentMax {
		t.Fatalf("%d arms, %d turns", len(got.Arms), len(got.Recent))
	}
	seen := map[[2]uint8]bool{}
	for _, a := range append(got.Arms, ChosenArm{Algorithm: got.Recent[0].To.Algorithm, Level: got.Recent[0].To.Level}) {
		if a.Algorithm != OtherArm && (a.Algorithm > message.Brotli || a.Level > 2) || a.Algorithm == OtherArm && a.Level != 0 {
			t.Errorf("an arm %d at level %d", a.Algorithm, a.Level)
		}
		seen[[2]uint8{uint8(a.Algorithm), a.Level}] = true
		total += a.In
	}
	if len(seen) != known+1 || total == 0 {
		t.Errorf("arms %v", seen)
	}

	// The same arm twice counts as one; what falls counts for nothing; sums stop.
	twice := wire.Report{Arms: []wire.ReportArm{{Algorithm: message.Zstd, Batches: 1 << 20, In: 7}, {Algorithm: message.Zstd, Batches: 1 << 20, In: 8}}}
	zstd := func(x Choices) ChosenArm {
		return x.Arms[slices.IndexFunc(x.Arms, func(a ChosenArm) bool { return a.Algorithm == message.Zstd && a.Level == 0 })]
	}
	before := zstd(got)
	if now := zstd(say(twice)); now.Batches != before.Batches+2<<20 || now.In != before.In+15 {
		t.Errorf("%+v after %+v", now, before)
	}
	if now := zstd(say(twice)); now.Batches != before.Batches+2<<20 {
		t.Errorf("%+v after the same again", now)
	}
	for range 3 {
		zero, most := twice, twice
		zero.Arms, most.Arms = []wire.ReportArm{{}}, []wire.ReportArm{{Algorithm: message.Zstd, Batches: math.MaxUint64, Out: math.MaxUint64}, {Algorithm: message.Zstd, Batches: 5}}
		most.Batches, most.Switches = math.MaxUint64, math.MaxUint64
		say(zero)
		got = say(most)
	}
	if a := zstd(got); a.Batches != math.MaxUint64 || a.Out != math.MaxUint64 || got.Batches != math.MaxUint64 || got.Switches != math.MaxUint64 {
		t.Errorf("%+v, %d batches, %d switches", a, got.Batches, got.Switches)
	}
	r.s.choices.sweep(func(*topic.Topic) bool { return false })
	if got := r.s.Choices(""); len(got) != 1 || len(got[0].Arms) != known+1 || got[0].Batches != math.MaxUint64 {
		t.Errorf("of deleted topics: %+v", got)
	}
}

// A producer says what it wants from now on.
func TestReportChangesWishes(t *testing.T) {
	r := newRig(t, Options{Load: func() wire.Load { return wire.Load{CPU: 33} }})
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.adviser(c, "orders", 0)
	r.request(c, h, wire.OpReport, &wire.Report{HasWants: true, Wants: wire.WantLoad})
	r.advised(c, h, wire.Advice{HasAccept: true, Accept: 0x3f, HasFanOut: true})
	r.s.measureLoad()
	r.s.measureLoad()
	r.advised(c, h, wire.Advice{HasLoad: true, Load: wire.Load{CPU: 33}})
	r.request(c, h, wire.OpReport, &wire.Report{HasWants: true})
	r.quiet(c)
	if n := r.s.loadWanted.Load(); n != 0 {
		t.Errorf("%d want the load", n)
	}
}

// The number of reports that are kept is bounded; the sums go on.
func TestReportsAreBounded(t *testing.T) {
	x := new(choices)
	topics := make([]*topic.Topic, chosenTopicsMax+1)
	for i := range topics {
		topics[i] = &topic.Topic{Name: fmt.Sprint(i)}
	}
	m := sampleReport(1000)
	var first, last *producer
	for i := range choosersMax + 5 {
		last = &producer{topic: topics[0]}
		if i == 0 {
			first = last
		}
		x.take(chooserKey{0, uint32(i + 1)}, last, &m)
	}
	// One goes, and one that was not kept is from its next report on.
	x.forget(chooserKey{0, 1}, first)
	x.take(chooserKey{0, choosersMax + 5}, last, &m)
	if c := x.topics[topics[0]]; len(x.open) != choosersMax || c.others != 4 {
		t.Errorf("%d producers, %d others", len(x.open), c.others)
	}
	x.take(chooserKey{0, 1}, &producer{topic: topics[0]}, &m)
	if c := x.topics[topics[0]]; len(x.open) != choosersMax || c.others != 5 || len(c.recent) != recentMax {
		t.Errorf("%d producers, %d others, %d turns", len(x.open), c.others, len(c.recent))
	}
	for i := range topics {
		x.take(chooserKey{1, uint32(i + 1)}, &producer{topic: topics[i]}, &m)
	}
	if len(x.topics) != chosenTopicsMax {
		t.Errorf("%d topics", len(x.topics))
	}
}

// A topic that no open producer reports of gives way to a new one, the one that was
// heard of first before others; what has no place is counted.
func TestTopicsGiveWay(t *testing.T) {
	s := new(Server)
	x := &s.choices
	m := sampleReport(1000)
	producers := make([]*producer, chosenTopicsMax+1)
	key := func(i int) chooserKey { return chooserKey{0, uint32(i + 1)} }
	say := func(i int) { x.take(key(i), producers[i], &m) }
	for i := range producers {
		producers[i] = &producer{topic: &topic.Topic{Name: fmt.Sprint(i)}}
	}
	for i := range chosenTopicsMax {
		say(i)
	}
	check := func(nowhere int, gone uint64, names ...string) {
		t.Helper()
		all, batches := s.Choices(""), uint64(0)
		if all[0].Topic != "" {
			t.Error("no sums of what gave way")
		} else if all[0].Batches != gone {
			t.Errorf("%d batches of what gave way, not %d", all[0].Batches, gone)
		}
		for _, c := range all {
			batches += c.Batches
		}
		if want := (chosenTopicsMax * 1000) + gone; batches != want {
			t.Errorf("%d batches in all, not %d", batches, want)
		}
		if n := s.ChoicesNowhere(); n != nowhere {
			t.Errorf("%d have no place, not %d", n, nowhere)
		}
		for _, name := range names {
			if len(s.Choices(name)) != 1 {
				t.Errorf("nothing of topic %s", name)
			}
		}
	}
	// All places are held: it is counted once, and no more when it closes.
	const late = chosenTopicsMax
	say(late)
	say(late)
	if n := s.ChoicesNowhere(); n != 1 || len(s.Choices(fmt.Sprint(late))) != 0 {
		t.Errorf("%d have no place", n)
	}
	x.forget(key(late), producers[late])
	if n := s.ChoicesNowhere(); n != 0 {
		t.Errorf("%d have no place after it closed", n)
	}
	producers[late].reports = reportNone // another one
	say(late)
	// Of two that nobody holds, 7 was heard of first.
	say(3)
	for _, i := range []int{3, 7} {
		x.forget(key(i), producers[i])
		producers[i].reports = reportNone
	}
	say(late)
	check(0, 1000, fmt.Sprint(late), "3")
	if len(s.Choices("7")) != 0 {
		t.Error("topic 7 has not given way")
	}
	// It comes back, and 3 gives way; then there is none.
	say(7)
	check(0, 2000, fmt.Sprint(late), "7")
	say(3)
	check(1, 2000)
}

// Changes of several producers are in the order of their times, whichever was told of
// first; those that were told of first are dropped first, so that a clock that is
// ahead keeps no place.
func TestChangesAreInOrder(t *testing.T) {
	s := new(Server)
	orders := &topic.Topic{Name: "orders"}
	say := func(h uint32, at ...int64) {
		m := sampleReport(10)
		m.Recent = m.Recent[:0]
		for _, us := range at {
			m.Recent = append(m.Recent, wire.ReportSwitch{AtUs: us, To: 1})
		}
		s.choices.take(chooserKey{0, h}, &producer{topic: orders}, &m)
	}
	order := func() (at []int64) {
		for _, r := range s.Choices("orders")[0].Recent {
			at = append(at, r.At.UnixMicro())
		}
		return at
	}
	say(1, 100, 300)
	say(2, lastMicro)
	say(3, 50, 200)
	if got := order(); !slices.Equal(got, []int64{50, 100, 200, 300, lastMicro}) {
		t.Errorf("in the order %v", got)
	}
	for i := range int64(recentMax) {
		say(4, 1000+i)
	}
	if got := order(); len(got) != recentMax || got[0] != 1000 || !slices.IsSorted(got) {
		t.Errorf("then in the order %v", got)
	}
}

func TestBadReportEndsTheConnection(t *testing.T) {
	r := newRig(t, Options{})
	r.topic("orders", 1, message.AckAccepted)
	c := r.open()
	h, _ := r.adviser(c, "orders", 0)
	b, mark := wire.BeginFrame(nil, wire.Header{Opcode: wire.OpReport, Handle: h})
	r.bytes(c, wire.EndFrame(append(b, 1, 2, 3), mark))
	r.refusal(c, fault.ProtocolViolation, "cpu")
	if r.users[c] != nil {
		t.Error("the connection lives")
	}
}
