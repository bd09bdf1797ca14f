package bus

import (
	"sync"
	"sync/atomic"
	"time"
)

// Lane describes one lane of a Pool.
type Lane struct {
	// Name is for Stats.
	Name string
	// Control lanes go before the others. They come first in Options.Lanes.
	Control bool
}

// Options of a Pool.
type Options struct {
	// Name is for Stats.
	Name string
	// Workers is how many tasks may run at once; at least 1.
	Workers int
	// Lanes are the pool's queues, at least one. If some are control lanes and
	// others are not, all control lanes together leave one worker to the others
	// and the other way round, unless Workers is 1.
	Lanes []Lane
	// IdleAfter is how long a worker is kept that has nothing to do, 10 s by
	// default: to begin costs a microsecond, so this is about memory.
	IdleAfter time.Duration
}

// Pool runs tasks on workers, which are goroutines.
//
// A worker takes from the control lanes first, in the order of Options.Lanes, and
// then from the others in turns, so that none of these starves another. When it
// finds nothing it parks:
//
//	         kick: nobody is parked, fewer than Workers
//	(none) ─────────────────────────────────────────────▶ looks ◀──────────┐
//	   ▲                                       nothing │  ▲   │ a task     │
//	   │                                               ▼  │   ▼            │
//	   └───────────────────────────────────────────── parked  runs ────────┘
//	     not needed for IdleAfter; Close             kick └───┘
//
// No task is left alone: who schedules kicks after it pushed, a worker looks at
// the lanes once more after it is listed as parked, and a worker that took a task
// and sees more kicks the next. A worker is woken only for a task; the timer that
// ends idle workers is set only while there are some.
//
// All methods may be called from any goroutine.
type Pool struct {
	opts  Options
	lanes []lane
	ctl   int // lanes[:ctl] are control lanes

	sides  [2]side // of the control lanes, of the others
	parked atomic.Int32
	size   atomic.Int32
	closed atomic.Bool // all workers have ended, for good

	mu      sync.Mutex
	stack   []*worker   // guarded by mu: those parked, the latest last
	lowest  int         // guarded by mu: least of len(stack) since the timer was set
	timer   *time.Timer // guarded by mu
	armed   bool        // guarded by mu: timer is set
	closing bool        // guarded by mu
	started uint64      // guarded by mu
	woken   uint64      // guarded by mu
	ended   chan struct{}
}

type worker struct {
	wake chan struct{} // capacity 1; a value each time another takes it from the stack
	stop bool          // stored before wake
	turn int
}

// New makes a pool. It has no workers until a task is scheduled; Close ends them.
func New(o Options) *Pool {
	if o.IdleAfter <= 0 {
		o.IdleAfter = 10 * time.Second
	}
	o.Workers = max(o.Workers, 1)
	p := &Pool{opts: o, lanes: make([]lane, len(o.Lanes)), ended: make(chan struct{})}
	for p.ctl < len(o.Lanes) && o.Lanes[p.ctl].Control {
		p.ctl++
	}
	most := int32(o.Workers)
	if p.ctl > 0 && p.ctl < len(o.Lanes) && o.Workers > 1 {
		most--
	}
	p.sides[0].most, p.sides[1].most = most, most
	for i := range p.lanes {
		l := &p.lanes[i]
		l.ring.init()
		l.pool, l.name, l.side = p, o.Lanes[i].Name, &p.sides[1]
		if i < p.ctl {
			l.side = &p.sides[0]
		}
	}
	return p
}

// hands reports whether there is somebody to kick.
func (p *Pool) hands() bool { return p.parked.Load() > 0 || int(p.size.Load()) < p.opts.Workers }

// kick finds someone for the tasks that wait: a parked worker, else a new one. It
// reports false if all there may be are at work; each looks at the lanes when it
// has done its task.
func (p *Pool) kick() bool {
	if !p.hands() {
		return false
	}
	p.mu.Lock()
	if n := len(p.stack); n > 0 {
		w := p.unpark(n - 1)
		p.woken++
		p.mu.Unlock()
		w.wake <- struct{}{}
		return true
	}
	if int(p.size.Load()) >= p.opts.Workers || p.closed.Load() {
		p.mu.Unlock()
		return false
	}
	p.size.Add(1)
	p.started++
	p.mu.Unlock()
	go p.work()
	return true
}

// unpark takes worker i off the stack; called with mu held.
func (p *Pool) unpark(i int) *worker {
	w := p.stack[i]
	n := len(p.stack) - 1
	copy(p.stack[i:], p.stack[i+1:])
	p.stack[n] = nil
	p.stack = p.stack[:n]
	p.parked.Store(int32(n))
	p.lowest = min(p.lowest, n)
	return w
}

func (p *Pool) work() {
	w := &worker{wake: make(chan struct{}, 1)}
	for {
		t := p.next(w)
		if t == nil {
			if !p.park(w) {
				return
			}
			continue
		}
		if p.hands() && p.backlog() {
			p.kick()
		}
		l := t.lane
		t.exec()
		l.leave()
	}
}

// next takes a task for w, nil if there is none that it may have.
func (p *Pool) next(w *worker) *Task {
	for i := range p.lanes[:p.ctl] {
		if t := p.lanes[i].take(); t != nil {
			return t
		}
	}
	others := p.lanes[p.ctl:]
	for range others {
		if w.turn++; w.turn >= len(others) {
			w.turn = 0
		}
		if t := others[w.turn].take(); t != nil {
			return t
		}
	}
	return nil
}

func (p *Pool) backlog() bool {
	for i := range p.lanes {
		if p.lanes[i].ready() {
			return true
		}
	}
	return false
}

// park waits until there may be a task, and reports false when the worker is to
// end instead. It is not counted in size then.
func (p *Pool) park(w *worker) bool {
	p.mu.Lock()
	if p.closing {
		defer p.mu.Unlock()
		if p.backlog() {
			return true
		}
		p.leave(1)
		return false
	}
	p.stack = append(p.stack, w)
	p.parked.Store(int32(len(p.stack)))
	if !p.armed {
		p.armed, p.lowest = true, len(p.stack)
		if p.timer == nil {
			p.timer = time.AfterFunc(p.opts.IdleAfter, p.thin)
		} else {
			p.timer.Reset(p.opts.IdleAfter)
		}
	}
	p.mu.Unlock()

	// The second look is needed. Without it: the worker finds the lanes empty; a
	// task is pushed and its kick finds nobody parked; the worker parks.
	late := p.backlog()
	if late {
		p.mu.Lock()
		for i := len(p.stack) - 1; i >= 0; i-- {
			if p.stack[i] == w {
				p.unpark(i)
				p.mu.Unlock()
				return true
			}
		}
		p.mu.Unlock() // another has taken it off, and its value is on the way
	}
	<-w.wake
	if w.stop && late {
		p.kick() // in its place
	}
	return !w.stop
}

// thin ends the workers that were not needed since the timer was set, the bottom
// of the stack.
func (p *Pool) thin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	if p.closing {
		return
	}
	for range min(p.lowest, len(p.stack)) {
		w := p.unpark(0)
		w.stop = true
		w.wake <- struct{}{}
		p.leave(1)
	}
	if p.lowest = len(p.stack); p.lowest > 0 {
		p.armed = true
		p.timer.Reset(p.opts.IdleAfter)
	}
}

// leave counts n workers out; called with mu held.
func (p *Pool) leave(n int32) {
	if p.size.Add(-n) == 0 && p.closing && !p.closed.Swap(true) {
		close(p.ended)
	}
}

// Close runs what is scheduled, by tasks that run too, ends the workers and
// returns when they have ended. Others than tasks must not schedule any more.
// Closing twice is allowed.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closing = true
	if p.timer != nil {
		p.timer.Stop()
	}
	for len(p.stack) > 0 {
		p.unpark(len(p.stack) - 1).wake <- struct{}{} // it looks once more, and ends
	}
	p.leave(0)
	p.mu.Unlock()
	<-p.ended
}
