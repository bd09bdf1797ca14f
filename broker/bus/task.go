package bus

import "sync/atomic"

// Task is a piece of work that exists once and may be asked for often. Bind
// gives it its work; the zero Task cannot be scheduled. It must not be copied.
//
// Its run function is never called twice at the same time, and after each
// Schedule there is a whole run that sees everything the caller did before.
// Schedules before that run begins are one.
//
//	          Schedule             a worker has it
//	┌──────┐ ──────────▶ ┌────────┐ ──────────▶ ┌─────────┐
//	│ idle │             │ queued │             │ running │ ─┐ Schedule
//	└──────┘             └────────┘ ◀────────── └─────────┘  │
//	    ▲              ▲   │  ▲ │    run says      │         ▼
//	    │     Schedule │   └──┘ │    "again"       │     ┌───────┐
//	    │  (no change) └────────┘                  │     │ again │ ─▶ queued,
//	    └──────────────────────────────────────────┘     └───────┘    when run
//	                     run is done                                  returns
//
// A task that is queued again goes behind those that wait in its lane.
type Task struct {
	lane  *lane
	run   func() (again bool)
	state atomic.Uint32
	next  *Task // owned by the lane while the task is queued
}

const (
	idle uint32 = iota
	queued
	running
	again
)

// Bind says what the task does and where: in a lane of p, by its place in
// Options.Lanes. run reports whether it wants to be queued again. It may schedule
// tasks, this one too. Bind comes before the first Schedule and not after.
func (t *Task) Bind(p *Pool, lane int, run func() (again bool)) {
	t.lane, t.run = &p.lanes[lane], run
}

// Schedule asks for a run, from any goroutine. It does not wait. It reports false
// only if the pool has been closed; there is no run then.
func (t *Task) Schedule() bool {
	p := t.lane.pool
	if p.closed.Load() {
		return false
	}
	for {
		switch s := t.state.Load(); s {
		case idle:
			if t.state.CompareAndSwap(idle, queued) {
				t.lane.push(t)
				if t.lane.side.full() || !p.kick() {
					t.lane.behind() // whoever leaves a task looks at the lanes
				}
				return true
			}
		case running:
			if t.state.CompareAndSwap(running, again) {
				return true
			}
		default:
			// Nothing changes, but the write is needed: it is what the worker's
			// Swap in exec follows. After a mere load the worker might begin
			// without seeing what the caller stored before.
			if t.state.CompareAndSwap(s, s) {
				return true
			}
		}
	}
}

// exec is one run, on the worker that took the task from its lane. When the
// state is idle, or the task is in the lane again, it may be another's: nothing
// of it is touched after that.
func (t *Task) exec() {
	l := t.lane
	t.state.Swap(running)
	if !t.run() && t.state.CompareAndSwap(running, idle) {
		return
	}
	t.state.Swap(queued)
	l.push(t) // the worker looks at its lanes next
}
