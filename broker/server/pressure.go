package server

import (
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/wire"
)

// Producers that choose how to compress from batch to batch are told how busy the
// broker is and how many subscriptions follow their topic: bytes cost the broker
// and every consumer, not only them. It is advice like any other: nothing is
// queued, the broker knows what each producer was told, and says what is new; only
// that who has answers coming is told with the next of them, and nobody else for a
// second. HELLO_OK says it to everybody once.
//
// The load is read once a second by housekeeping, every loadRest seconds while
// nobody wants it. What producers are told changes by loadStep at least and so at
// most once a second, whatever the system does; a producer that wants none gets no
// frame because of it.

// loadStep is the least change of a share that is told, in percent points. CPU
// readings of an even load on two cores scatter by two to three; at 5 points the
// price of CPU, 1/(1-load), is off by a twentieth at half load.
const loadStep = 5

// loadRest is how many seconds a load may be old that only HELLO_OK tells. Reading
// takes 0.16 ms. It is less than what package sysmetrics makes an average over.
const loadRest = 5

// wantsLoad reports whether a producer with these wants, advised strategy, is to
// be told the load.
func wantsLoad(wants wire.AdviceWants, strategy compression.Strategy) bool {
	return wants&wire.WantLoad != 0 || wants&wire.WantStrategy != 0 && strategy == compression.Adaptive
}

// measureLoad reads the load and lets producers be told if it has changed, and
// tells those that had no answer since the change before. Only housekeeping calls
// it, once a second.
func (s *Server) measureLoad() {
	wanted := s.loadWanted.Load() > 0
	if !wanted && s.loadSkip > 0 {
		s.loadSkip--
		return
	}
	s.loadSkip = loadRest - 1
	changed := false
	if s.opts.Load != nil {
		old, now := unpackLoad(s.load.Load()), s.opts.Load()
		next := wire.Load{CPU: stepped(old.CPU, now.CPU), Memory: stepped(old.Memory, now.Memory), Disk: stepped(old.Disk, now.Disk), Link: stepped(old.Link, now.Link)}
		changed = next != old
		s.load.Store(packLoad(next))
	}
	if wanted {
		for _, t := range s.cat.List() {
			changed = t.CountFanOut() || changed
		}
	}
	changed = changed && wanted
	before := s.changes.Load()
	if changed {
		s.changes.Add(1)
	}
	if s.loadOwed {
		s.adviseThose(before)
	}
	s.loadOwed = changed
}

// stepped is what is told of a share that was told as old and is now.
func stepped(old, now uint8) uint8 {
	switch {
	case now > 100:
		return wire.LoadUnknown
	case old > 100 || now >= old+loadStep || now+loadStep <= old:
		return now
	}
	return old
}

func packLoad(x wire.Load) uint32 {
	return uint32(x.CPU) | uint32(x.Memory)<<8 | uint32(x.Disk)<<16 | uint32(x.Link)<<24
}

func unpackLoad(v uint32) wire.Load {
	return wire.Load{CPU: uint8(v), Memory: uint8(v >> 8), Disk: uint8(v >> 16), Link: uint8(v >> 24)}
}

// note remembers what p was told.
func (l *loop) note(p *producer, now told) {
	if now.hasLoad != p.told.hasLoad {
		l.srv.countLoadWanted(now.hasLoad)
	}
	p.told = now
}

func (s *Server) countLoadWanted(more bool) {
	if more {
		s.loadWanted.Add(1)
	} else {
		s.loadWanted.Add(-1)
	}
}
