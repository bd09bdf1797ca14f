package client

import (
	"math"
	"sync"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/broker/wire"
)

// What the world is like is read beside the hot path, by a goroutine of each
// producer that is adaptive and sends: every watchEvery it reads the machine, the
// connection and the producer's queue, tells the chooser, and the broker once a
// second. It ends after a second without batches.
const (
	watchEvery  = 100 * time.Millisecond
	reportEvery = time.Second
	watchIdle   = time.Second
)

// machine is the load of this process's machine, shared by all clients of the
// process. One reading takes some 0.15 ms, so two a second take 0.03 % of a core.
var machine struct {
	mu     sync.Mutex
	reader *sysmetrics.LoadReader // guarded by mu, as all below
	failed bool
	load   sysmetrics.Load
}

const machineEvery = 500 * time.Millisecond

// machineLoad is at most machineEvery old, or what could be read last: At says.
func machineLoad() sysmetrics.Load {
	m := &machine
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reader == nil && !m.failed {
		var err error
		if m.reader, err = sysmetrics.NewLoadReader(""); err != nil {
			m.failed = true // this system tells nothing, now or later
		}
	}
	every := machineEvery
	if math.IsNaN(m.load.CPU) { // the first reading has nothing before it
		every = watchEvery
	}
	if m.reader != nil && time.Since(m.load.At) >= every {
		m.load = m.reader.Read()
	}
	return m.load
}

// hints is what the broker says of itself, and when it was heard of last: what it
// has told holds until it tells another, for as long as it is alive.
type hints struct {
	load   wire.Load
	fanOut uint16
	known  bool // fanOut was told
	heard  time.Time
}

// greetingHolds is how long what HELLO_OK said counts: as long as any reading does.
const greetingHolds = 10 * time.Second

// greeting is what HELLO_OK said of the broker. Batches that wait for a producer to be
// opened are decided on by it; what comes with the handle takes its place.
func (cn *conn) greeting(now time.Time) hints {
	h := hints{load: wire.UnknownLoad}
	if cn.hello.HasLoad && now.Sub(cn.begun) < greetingHolds {
		h.load, h.heard = cn.hello.Load, cn.begun
	}
	return h
}

// conditionsOf puts readings together; local ones go before the broker's where both
// are of the same, and the other way round where the broker's say more.
func conditionsOf(now time.Time, l sysmetrics.Load, h *hints) (c adaptive.Conditions) {
	age := func(at time.Time) int64 {
		if at.IsZero() {
			return math.MaxInt64
		}
		return now.Sub(at).Nanoseconds() // by the monotonic clock
	}
	local := func(v float64) adaptive.Reading {
		return adaptive.Reading{Value: v, Source: adaptive.Local, Age: age(l.At)}
	}
	told := func(v float64) adaptive.Reading {
		return adaptive.Reading{Value: v, Source: adaptive.Broker, Age: age(h.heard)}
	}
	c.CPU, c.Memory = local(l.CPU), local(l.Memory)
	if math.IsNaN(l.CPU) || l.At.IsZero() {
		if v, ok := wire.Share(h.load.CPU); ok {
			c.CPU = told(v)
		}
	}
	if math.IsNaN(l.Memory) || l.At.IsZero() {
		if v, ok := wire.Share(h.load.Memory); ok {
			c.Memory = told(v)
		}
	}
	// A resource in use by a share of x is dearer by 1/(1-x), as the policy prices
	// processors.
	price := func(percent uint8) float64 {
		v, ok := wire.Share(percent)
		if !ok {
			return 1
		}
		return min(1/max(1-v, 0.1), 10)
	}
	if h.known {
		// Once to the broker, and to each subscription.
		c.FanOut = told(1 + float64(h.fanOut)*price(h.load.Link))
	}
	if _, ok := wire.Share(h.load.Disk); ok {
		c.Disk = told(price(h.load.Disk))
	}
	return c
}

// chooses makes batches be decided on by p's chooser, which is made if there is
// none, and reports whether it is there. Measuring the host may take 40 ms, which
// nobody waits for here: until then the old method goes on. mu is held.
func (p *Producer) chooses() bool {
	p.policyAdvised()
	if p.chooser != nil {
		p.chooser.allow(p.armsAllowed())
		return true
	}
	if !p.choosing && !p.closing {
		p.choosing = true
		by := p.policies
		p.fetches.Go(func() {
			ch := newChooser(by, p.topic, p.c.cfg.name)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.choosing, p.chooser = false, ch
			if p.policies != by {
				p.chooser = ch.successor(p.policies)
			}
			if p.policyNote != "" {
				p.chooser.remark(p.policyNote)
			}
			p.flow = new(flow)
			p.follow()
		})
	}
	return false
}

// armsAllowed are the arms whose algorithms the broker takes.
func (p *Producer) armsAllowed() adaptive.ArmSet {
	if !p.advice.hasAccept {
		return adaptive.AllArms
	}
	return adaptive.ArmsFor(func(a message.Algorithm) bool { return p.advice.accept>>a&1 != 0 })
}

// watched begins to watch what the world is like, unless that is done. The batch
// that begins it is decided on by what is known without looking: neither by
// nothing nor by what was so before a pause. mu is held.
func (p *Producer) watched() {
	p.stirred = true
	if !p.watching && !p.closing {
		p.watching = true
		if ch := p.method.chooser; ch != nil {
			ch.conditions(p.readings(time.Now(), lastLoad(), new(tcpRate)))
		}
		p.fetches.Go(p.watch)
	}
}

// lastLoad is what was read last, however long ago: At says. It reads nothing.
func lastLoad() sysmetrics.Load {
	m := &machine
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.load.At.IsZero() {
		return sysmetrics.Load{CPU: math.NaN(), Memory: math.NaN(), Disk: math.NaN(), Link: math.NaN()}
	}
	return m.load
}

// readings are the conditions of p's next batches, with what tcp knows of the
// connection. mu is held.
func (p *Producer) readings(now time.Time, load sysmetrics.Load, tcp *tcpRate) adaptive.Conditions {
	c := conditionsOf(now, load, &p.hints)
	if p.o.budget > 0 {
		c.Latency = adaptive.Reading{Value: float64(max(p.o.budget-p.held, time.Microsecond)), Source: adaptive.Local}
	}
	c.Queue = adaptive.Reading{Value: float64(p.ready), Source: adaptive.Local}
	told := p.hints.load.CPU
	broker, _ := wire.Share(told)
	// As long as it is not known how busy the processors are, they may be.
	crowded := !(load.CPU < crowdedCPU) || broker >= crowdedCPU && told <= 100
	if rate := linkRate(now, p.flow, tcp, crowded); rate > 0 {
		c.Link = adaptive.Reading{Value: rate, Source: adaptive.Local}
	}
	return c
}

// watch runs while p is adaptive and sends.
func (p *Producer) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var w watcher
	for {
		if !w.look(p) {
			return
		}
		select {
		case <-tick.C:
		case <-p.life.Done():
			return
		}
	}
}

// watcher is the state of a watch.
type watcher struct {
	cn       *conn
	tcp      tcpRate
	reads    uint64
	reported time.Time
	told     uint64    // batches that were reported
	stirred  time.Time // a batch was sent last
}

// look reads everything once. It returns false if the watch has ended.
func (w *watcher) look(p *Producer) bool {
	load := machineLoad()
	now := time.Now() // the load may have been read just now, and must not come from the future

	p.mu.Lock()
	ch, adaptiveNow := p.chooser, p.method.chooser != nil
	cn, handle, strategy := p.cn, p.handle, p.method.policy.Strategy
	if p.stirred || w.stirred.IsZero() {
		p.stirred, w.stirred = false, now
	}
	idle := now.Sub(w.stirred) >= watchIdle
	if idle || !adaptiveNow {
		p.watching = false
	}
	p.mu.Unlock()

	heard := false
	if cn != nil {
		if cn != w.cn {
			w.cn, w.tcp = cn, tcpRate{}
		}
		if n := cn.reads.Load(); n != w.reads {
			w.reads, heard = n, true
		}
		w.tcp.sample(now, readTCP(cn.nc))
	}
	p.mu.Lock()
	if heard {
		p.hints.heard = now
	}
	c := p.readings(now, load, &w.tcp)
	p.mu.Unlock()
	ch.conditions(c)
	w.report(ch, cn, handle, strategy, now, idle || !adaptiveNow)
	return !idle && adaptiveNow
}

// report tells the broker, once a second and at the end.
func (w *watcher) report(ch *chooser, cn *conn, handle uint32, strategy compression.Strategy, now time.Time, last bool) {
	if cn == nil || handle == 0 || !last && now.Sub(w.reported) < reportEvery {
		return
	}
	if n := ch.decided(); n == w.told {
		return
	}
	x, ok := ch.report(strategy)
	if !ok {
		return
	}
	w.reported, w.told = now, x.Batches
	cn.report(handle, &x)
}

// lastReport tells the broker how it ended.
func (p *Producer) lastReport(cn *conn, handle uint32) {
	p.mu.Lock()
	ch, strategy := p.chooser, p.method.policy.Strategy
	p.mu.Unlock()
	if ch == nil {
		return
	}
	if x, ok := ch.report(strategy); ok {
		cn.report(handle, &x)
	}
}

// report queues a REPORT, if the broker takes any.
func (cn *conn) report(handle uint32, x *wire.Report) {
	if _, ok := cn.hello.Range(wire.OpReport); !ok {
		return
	}
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.usable() != nil {
		return
	}
	cn.out.add(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpReport, Handle: handle}, x))
	cn.signal()
}

// hint takes what x says of the broker. mu is held.
func (p *Producer) hint(x *wire.Advice, now time.Time) {
	h := &p.hints
	h.heard = now
	if x.HasLoad {
		h.load = x.Load
	}
	if x.HasFanOut {
		h.fanOut, h.known = x.FanOut, true
	}
}
