package load

import (
	"context"
	"time"
)

// Snapshot is a run's state while it goes on.
type Snapshot struct {
	Elapsed, Planned time.Duration
	// Since the beginning.
	Sent, Acked, Delivered, Failed uint64
	// Last is the interval that has just ended.
	Last Interval
}

// counts are sums over all clients since the beginning.
type counts struct{ sent, acked, failed, delivered, bytes, held uint64 }

func (r *Run) counts() (c counts) {
	for _, p := range r.producers {
		c.failed += p.failed.Load()
		for i := range p.sent {
			c.sent += p.sent[i].Load()
			c.acked += p.acked[i].Load()
		}
	}
	for _, x := range r.readers {
		for i := range x.delivered {
			c.delivered += x.delivered[i].Load()
			c.bytes += x.bytes[i].Load()
		}
	}
	for i := range r.held {
		c.held += uint64(r.held[i].Load())
	}
	return c
}

// watch makes an interval about once a second, and a last one when ctx ends. It
// alone touches totals and series.
func (r *Run) watch(ctx context.Context, u *usage) {
	const every = time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	w := &watcher{r: r, u: u, at: r.timeline[0], parts: make([]Histograms, len(r.totals))}
	w.cpu, _ = u.cpuTime()
	if r.target != nil {
		w.targetCPU, _, _ = r.target.read()
	}
	for {
		select {
		case <-ctx.Done():
			w.interval()
			return
		case <-tick.C:
		}
		w.interval()
	}
}

// watcher is what watch remembers of the interval before.
type watcher struct {
	r         *Run
	u         *usage
	at        int64
	last      counts
	cpu       time.Duration
	spun      int64
	targetCPU time.Duration
	parts     []Histograms // by phase; empty between intervals
}

func (w *watcher) interval() {
	r := w.r
	now := max(r.clock.Now(), w.at+1)
	start, end := r.timeline[0], r.timeline[len(r.timeline)-1]
	seconds := float64(now-w.at) / 1e9
	c := r.counts()
	v := Interval{
		Start: float64(w.at-start) / 1e9, End: float64(now-start) / 1e9,
		Sent: c.sent - w.last.sent, Acked: c.acked - w.last.acked, Failed: c.failed - w.last.failed,
		Delivered: c.delivered - w.last.delivered, Bytes: c.bytes - w.last.bytes, HeldBack: c.held - w.last.held,
	}
	if p := r.phaseAt(w.at, 0); p < len(r.s.Phases) {
		v.Phase = r.s.Phases[p].Name
	}
	if r.sequence != nil {
		v.Offered = r.sequence.Due(w.at, now)
	}
	if done := c.delivered + c.failed; c.sent > done {
		v.Outstanding = c.sent - done
	}
	if cpu, err := w.u.cpuTime(); err == nil {
		v.Generator = (cpu - w.cpu).Seconds() / seconds
		w.cpu = cpu
	}
	spun := r.spun.Load()
	v.Spin = float64(spun-w.spun) / 1e9 / seconds
	w.spun = spun
	if r.target != nil {
		r.target.sample()
		cpu, rss, fds := r.target.read()
		v.Target = &TargetSample{CPUs: (cpu - w.targetCPU).Seconds() / seconds, RSSBytes: rss, FDs: fds}
		w.targetCPU = cpu
	}
	h := w.histograms()
	v.Latency = h.summarise()
	r.series.add(v, &h)
	if r.cfg.OnInterval != nil {
		r.cfg.OnInterval(v, h)
	}
	for s := range allSeries {
		if x := *h.at(s); x != nil {
			r.pool.put(x)
		}
	}
	if r.cfg.Progress != nil {
		r.cfg.Progress(Snapshot{
			Elapsed: time.Duration(now - start), Planned: time.Duration(end - start),
			Sent: c.sent, Acked: c.acked, Delivered: c.delivered, Failed: c.failed, Last: v,
		})
	}
	w.at, w.last = now, c
}

// histograms takes what was recorded since the last call: it is added to the
// phases' totals, and the sum over phases returned.
func (w *watcher) histograms() Histograms {
	r := w.r
	for _, rec := range r.recorders {
		rec.drain(w.parts)
	}
	var sum Histograms
	for p := range w.parts {
		r.totals[p].Merge(w.parts[p])
		for s := range allSeries {
			part := w.parts[p].at(s)
			switch to := sum.at(s); {
			case *part == nil:
			case *to == nil:
				*to = *part
			default:
				(*to).Merge(*part)
				r.pool.put(*part)
			}
			*part = nil
		}
	}
	return sum
}
