package bus

// Stats are a pool's figures: gauges of the moment, and counts since it was made.
type Stats struct {
	Name    string
	Workers int    // goroutines now
	Busy    int    // of them, those that run a task
	Most    int    // what Workers may become
	Started uint64 // workers begun
	Woken   uint64 // times a parked worker was woken for a task
	Lanes   []LaneStats
}

// LaneStats are those of a lane.
type LaneStats struct {
	Name    string
	Control bool
	Depth   int    // tasks that wait now
	Deepest int    // most that waited at once
	Taken   uint64 // tasks that a worker took
	Waited  uint64 // tasks that found all workers at work when they were scheduled
}

// Stats takes a snapshot. Its figures are not of one instant.
func (p *Pool) Stats() Stats {
	s := Stats{Name: p.opts.Name, Most: p.opts.Workers, Workers: int(p.size.Load()), Lanes: make([]LaneStats, len(p.lanes))}
	p.mu.Lock()
	s.Started, s.Woken = p.started, p.woken
	p.mu.Unlock()
	for i := range p.sides {
		s.Busy += int(p.sides[i].running.Load())
	}
	for i := range p.lanes {
		l := &p.lanes[i]
		s.Lanes[i] = LaneStats{Name: l.name, Control: i < p.ctl, Depth: int(l.len()), Deepest: int(l.deepest.Load()),
			Taken: l.taken(), Waited: l.waited.Load()}
	}
	return s
}
