package client

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/broker/wire"
)

func TestConditions(t *testing.T) {
	now := time.Now()
	nan := math.NaN()
	blind := sysmetrics.Load{CPU: nan, Memory: nan, Disk: nan, Link: nan}
	local := sysmetrics.Load{At: now.Add(-time.Second), CPU: 0.4, Memory: 0.5, Disk: nan, Link: nan}
	old := local
	old.At = now.Add(-time.Minute)
	ahead := local
	ahead.At = now.Add(time.Hour)
	told := hints{load: wire.Load{CPU: 80, Memory: 70, Disk: 50, Link: 75}, fanOut: 2, known: true, heard: now}
	silent := told
	silent.heard = now.Add(-time.Minute)
	none := hints{load: wire.UnknownLoad}
	for _, c := range []struct {
		name  string
		load  sysmetrics.Load
		hints hints
		cpu   float64
		from  adaptive.Source
		fan   float64
		disk  float64
	}{
		{"nobody knows", blind, none, 0.25, adaptive.Unknown, 1, 1},
		{"before the first reading", sysmetrics.Load{}, none, 0.25, adaptive.Unknown, 1, 1},
		{"this machine, no broker's hints", local, none, 0.4, adaptive.Local, 1, 1},
		{"a stale reading", old, none, 0.25, adaptive.Unknown, 1, 1},
		{"a clock that jumped", ahead, none, 0.25, adaptive.Unknown, 1, 1},
		{"the broker alone", blind, told, 0.8, adaptive.Broker, 1 + 2*4, 2},
		{"both", local, told, 0.4, adaptive.Local, 1 + 2*4, 2},
		{"a broker not heard of for a minute", blind, silent, 0.25, adaptive.Unknown, 1, 1},
		{"shares beyond 100", blind, hints{load: wire.Load{CPU: 101, Memory: 200, Disk: 254, Link: 130}, fanOut: 3, known: true, heard: now}, 0.25, adaptive.Unknown, 4, 1},
		{"a full link and disk", blind, hints{load: wire.Load{CPU: 100, Disk: 100, Link: 100}, fanOut: 1, known: true, heard: now}, 0.9, adaptive.Broker, 11, 10},
	} {
		got := conditionsOf(now, c.load, &c.hints).Sanitised()
		if got.CPU.Value != c.cpu || got.CPU.Source != c.from || math.Abs(got.FanOut.Value-c.fan) > 1e-9 || math.Abs(got.Disk.Value-c.disk) > 1e-9 {
			t.Errorf("%s: cpu %v, fan-out %v, disk %v", c.name, got.CPU, got.FanOut, got.Disk)
		}
	}
}

// What HELLO_OK says of the broker counts until a producer is open, and goes with the
// connection; where it was long ago, or a broker says nothing, nothing is known.
func TestGreeting(t *testing.T) {
	load := wire.Load{CPU: 80, Memory: 70, Disk: 50, Link: 75}
	cn := newConn(nil, "", nil, nil, wire.HelloOK{HasLoad: true, Load: load})
	p := &Producer{wake: make(chan struct{}, 1)}
	p.connected(cn)
	blind := sysmetrics.Load{CPU: math.NaN(), Memory: math.NaN(), Disk: math.NaN(), Link: math.NaN()}
	got := conditionsOf(time.Now(), blind, &p.hints).Sanitised()
	if got.CPU.Value != 0.8 || got.CPU.Source != adaptive.Broker || got.Disk.Value != 2 || got.FanOut.Value != 1 {
		t.Errorf("connected: cpu %v, disk %v, fan-out %v", got.CPU, got.Disk, got.FanOut)
	}
	p.disconnected(cn, nil)
	if p.hints.load != wire.UnknownLoad {
		t.Errorf("disconnected: %+v", p.hints)
	}
	if got := cn.greeting(cn.begun.Add(greetingHolds)); got.load != wire.UnknownLoad {
		t.Errorf("later: %+v", got)
	}
	if got := newConn(nil, "", nil, nil, wire.HelloOK{}).greeting(time.Now()); got.load != wire.UnknownLoad {
		t.Errorf("of a broker that says nothing: %+v", got)
	}
}

// A connection made anew while its producer cannot be opened yet knows the load.
func TestLoadBeforeOpening(t *testing.T) {
	f := newFake(t)
	f.topic("orders", 1)
	c := f.client()
	defer c.Close()
	p, err := c.Producer(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	defer p.abort()
	f.set(func() {
		f.load = &wire.Load{CPU: 11, Memory: 22, Disk: 33, Link: 44}
		f.hook = func(_ *session, h wire.Header, _ []byte) bool { return h.Opcode == wire.OpOpenProducer }
	})
	f.cut()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		h, handle := p.hints, p.handle
		p.mu.Unlock()
		if h.load == *f.load && handle == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", h)
		}
	}
}

// A path of 2.5 MB/s whose batches queue is found, and kept while stronger
// compression empties the queue; after a while it is let go.
func TestFlowFindsASlowPath(t *testing.T) {
	now := time.Now()
	f := new(flow)
	f.answered(2 * time.Millisecond)
	const rate, batch, window = 2.5e6, 64 << 10, 5
	each := time.Duration(float64(batch) / rate * float64(time.Second))
	sent := make([]uint64, 0, 100)
	for range 100 { // each finds four others before it
		sent = append(sent, f.delivered)
		if len(sent) < window {
			continue
		}
		now = now.Add(each)
		f.acked(now, batch, sent[len(sent)-window], window*each)
	}
	if got := f.rate(now, false); math.Abs(got-rate) > rate/10 {
		t.Fatalf("%.0f bytes a second, want %.0f", got, rate)
	}
	if got := linkRate(now, f, new(tcpRate), true); math.Abs(got-rate) > rate/10 {
		t.Errorf("%.0f bytes a second while the processors are busy, though every answer says the same", got)
	}
	// Now nothing queues: answers take what the smallest took.
	held := f.rate(now, false)
	for range 150 {
		now = now.Add(100 * time.Millisecond)
		f.acked(now, batch/10, f.delivered, 3*time.Millisecond)
	}
	if got := f.rate(now, false); got != held {
		t.Errorf("%.0f bytes a second after 15 s without a queue, want %.0f still", got, held)
	}
	now = now.Add(flowHold)
	if got := f.rate(now, false); got <= held {
		t.Errorf("%.0f bytes a second: not released", got)
	}
	now = now.Add(time.Minute)
	if got := f.rate(now, false); got != 0 {
		t.Errorf("%.0f bytes a second: held for ever", got)
	}
}

// Answers that are late because nobody ran say nothing of the link.
func TestFlowOfBusyProcessors(t *testing.T) {
	now := time.Now()
	f := new(flow)
	f.answered(time.Millisecond)
	for i := range 200 {
		d := time.Duration(5+i*37%60) * time.Millisecond
		now = now.Add(d)
		f.acked(now, 64<<10, f.delivered, d)
	}
	if got := linkRate(now, f, new(tcpRate), true); got != 0 {
		t.Errorf("%.0f bytes a second", got)
	}
	if got := linkRate(now, f, new(tcpRate), false); got == 0 {
		t.Error("nothing, though the processors are idle and batches queue")
	}
}

// Answers that take long because the broker syncs, all of them, are no queue.
func TestFlowOfSlowAnswers(t *testing.T) {
	now := time.Now()
	f := new(flow)
	for i := range 200 {
		d := 20*time.Millisecond + time.Duration(i%7)*time.Millisecond
		now = now.Add(d)
		f.acked(now, 64<<10, f.delivered, d)
	}
	if got := f.rate(now, false); got != 0 {
		t.Errorf("%.0f bytes a second", got)
	}
	f.acked(now, 64<<10, f.delivered, 0)  // a clock that stands still
	f.acked(now, 64<<10, f.delivered, -1) // or goes back
	if got := f.rate(now.Add(-time.Hour), false); got != 0 {
		t.Errorf("%.0f bytes a second an hour ago", got)
	}
}

func TestTCPRate(t *testing.T) {
	now := time.Now()
	var r tcpRate
	s := tcpState{ok: true}
	step := func(bytes uint64, busy time.Duration, rate float64, app bool) {
		now = now.Add(100 * time.Millisecond)
		s.acked, s.busy, s.rate, s.appLimited = s.acked+bytes, s.busy+busy, rate, app
		r.sample(now, s)
	}
	for range 20 {
		step(250_000, 100*time.Millisecond, 2.5e6, false)
	}
	if got := linkRate(now, new(flow), &r, true); math.Abs(got-2.5e6) > 1e5 {
		t.Errorf("a busy connection: %.0f bytes a second", got)
	}
	for range 300 {
		step(10_000, 5*time.Millisecond, 3e9, true)
	}
	if got := linkRate(now, new(flow), &r, false); got < 2e9 {
		t.Errorf("an idle connection that was seen to carry 3 GB/s: %.0f", got)
	}
	s.acked = 5 // another connection
	step(0, 0, 0, false)
	if got := linkRate(now, new(flow), &r, false); got != 0 {
		t.Errorf("of another connection: %.0f", got)
	}
	r.sample(now, tcpState{})
	if got := linkRate(now, new(flow), &r, false); got != 0 {
		t.Errorf("of no TCP: %.0f", got)
	}
}

// arms that the broker does not take are never used.
func TestAcceptedArms(t *testing.T) {
	p := &Producer{}
	if got := p.armsAllowed(); got != adaptive.AllArms {
		t.Errorf("%b before the broker said", got)
	}
	p.advice.accept, p.advice.hasAccept = 1<<message.Snappy, true
	ch := chooserOf(t)
	ch.allow(p.armsAllowed())
	body := lines(64 << 10)
	for range 300 {
		d, _, _ := ch.decide(body)
		if a := d.Arm.Algorithm(); a != message.None && a != message.Snappy {
			t.Fatalf("%v was chosen", d.Arm)
		}
		ch.observe(d, len(body), len(body)/4, true, 50_000)
	}
}

// The first batch after a pause is decided on by what is known then, not by readings
// of before; and a decider that begins anew, for other algorithms or by another
// artefact, begins with what is known.
func TestConditionsAfterAPause(t *testing.T) {
	ch := chooserOf(t)
	state := func() adaptive.Conditions {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		return ch.d.Explain(4096).Conditions
	}
	local := func(v float64) adaptive.Reading { return adaptive.Reading{Value: v, Source: adaptive.Local} }
	ch.conditions(adaptive.Conditions{CPU: local(0.8), Memory: local(0.97), Latency: local(1000)})
	ch.allow(adaptive.AllArms &^ (1 << lz4Arm))
	if c := state(); c.CPU.Value != 0.8 || c.Memory.Value != 0.97 || c.Latency.Value != 1000 {
		t.Errorf("with other algorithms: %+v", c)
	}
	ch = ch.successor(ch.policies)
	if c := state(); c.CPU.Value != 0.8 || c.Memory.Value != 0.97 || c.Latency.Value != 1000 {
		t.Errorf("by another artefact: %+v", c)
	}
	ch.mu.Lock()
	ch.toldAt = ch.toldAt.Add(-time.Minute)
	ch.mu.Unlock()
	ch.allow(adaptive.AllArms)
	if c := state(); c.CPU.Source != adaptive.Unknown || c.Memory.Source != adaptive.Unknown {
		t.Errorf("told a minute ago: %+v", c)
	}

	machine.mu.Lock()
	before := machine.load
	machine.load = sysmetrics.Load{At: time.Now().Add(-time.Minute), CPU: 0.8, Memory: 0.97}
	machine.mu.Unlock()
	defer func() {
		machine.mu.Lock()
		machine.load = before
		machine.mu.Unlock()
	}()
	ch.conditions(adaptive.Conditions{CPU: local(0.8), Memory: local(0.97)})
	p := &Producer{chooser: ch, method: &method{chooser: ch}, flow: new(flow), hints: hints{load: wire.UnknownLoad}}
	p.o.budget = time.Second
	p.life, p.end = context.WithCancel(t.Context())
	p.end() // the watch looks once at most
	p.mu.Lock()
	p.watched()
	if c := state(); c.CPU.Source != adaptive.Unknown || c.Memory.Source != adaptive.Unknown || c.Latency.Value != 1e9 {
		t.Errorf("after a pause: %+v", c)
	}
	p.mu.Unlock()
	p.fetches.Wait()
}
