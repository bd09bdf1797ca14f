package monitor

import (
	"cmp"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/topic"
)

// sums are the counters of partitions, added up. They never go down while the
// partitions are open.
type sums struct {
	batches, messages, bytes      uint64 // stored
	appends, writes, syncs, rolls uint64
	removed                       uint64 // bytes, by retention
}

func (s *sums) add(o sums) {
	s.batches += o.batches
	s.messages += o.messages
	s.bytes += o.bytes
	s.appends += o.appends
	s.writes += o.writes
	s.syncs += o.syncs
	s.rolls += o.rolls
	s.removed += o.removed
}

// state is what partitions are now, added up.
type state struct {
	bytes                 int64
	segments, corruptions int
	failed, partitions    int
	lag                   int64 // messages written and not durable
}

func (s *state) add(o state) {
	s.bytes += o.bytes
	s.segments += o.segments
	s.corruptions += o.corruptions
	s.failed += o.failed
	s.partitions += o.partitions
	s.lag += o.lag
}

// topicFigures are those of one topic.
type topicFigures struct {
	topic *topic.Topic
	own   bool // it has metrics of its own
	parts bool // and its partitions too
	sums
	state
}

// ledger remembers, for as long as the Monitor lives, which topics have metrics
// of their own and what deleted ones had counted.
//
// A topic is given its series when it is first seen, if there is room, and keeps
// them until it is deleted; one that was not given any never gets them later. So
// no counter goes down: not the totals, to which a deleted topic's counts stay
// added, nor those of "(other)", which no topic ever leaves for series of its own.
type ledger struct {
	mu            sync.Mutex
	topics, parts int                       // guarded by mu: series left to give
	known         map[ulid.ULID]*knownTopic // guarded by mu
	gone          sums                      // guarded by mu: of deleted topics
	goneOther     sums                      // guarded by mu: of those of them that had no series
}

type knownTopic struct {
	own, parts bool
	partitions int
	last       sums
	seen       bool // in the reading under way
}

func (l *ledger) init(topics, parts int) {
	l.topics, l.parts, l.known = max(topics, 0), max(parts, 0), map[ulid.ULID]*knownTopic{}
}

// figures are those of all topics.
type figures struct {
	topics           []topicFigures // in the order of their creation
	total            sums
	now              state
	other            sums // of those without series
	otherNow         state
	otherTopics      int
	withoutPartition int // partitions without series
}

// read looks at every partition of topics, which it sorts. durable: the engine can
// make messages durable, else none lags.
func (l *ledger) read(topics []*topic.Topic, durable bool) figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortFunc(topics, func(a, b *topic.Topic) int {
		return cmp.Or(cmp.Compare(a.CreatedUs, b.CreatedUs), cmp.Compare(a.Name, b.Name))
	})
	f := figures{topics: make([]topicFigures, len(topics))}
	for i, t := range topics {
		k := l.known[t.ID]
		if k == nil {
			k = &knownTopic{own: l.topics > 0, partitions: len(t.Partitions)}
			if k.own {
				l.topics--
				if k.parts = k.partitions <= l.parts; k.parts {
					l.parts -= k.partitions
				}
			}
			l.known[t.ID] = k
		}
		k.seen = true
		tf := &f.topics[i]
		tf.topic, tf.own, tf.parts = t, k.own, k.parts
		for _, p := range t.Partitions {
			tf.partition(p, durable)
		}
		k.last = tf.sums
		f.total.add(tf.sums)
		f.now.add(tf.state)
		if !k.own {
			f.otherTopics++
			f.other.add(tf.sums)
			f.otherNow.add(tf.state)
		}
		if !k.parts {
			f.withoutPartition += k.partitions
		}
	}
	for id, k := range l.known {
		if k.seen {
			k.seen = false
			continue
		}
		delete(l.known, id)
		l.gone.add(k.last)
		if !k.own {
			l.goneOther.add(k.last)
			continue
		}
		l.topics++
		if k.parts {
			l.parts += k.partitions
		}
	}
	f.total.add(l.gone)
	f.other.add(l.goneOther)
	return f
}

func (t *topicFigures) partition(p *partition.Partition, durable bool) {
	m, ls := p.Figures()
	t.sums.add(sums{batches: m.Batches, messages: m.Messages, bytes: m.Appended, appends: ls.Appends, writes: ls.Writes,
		syncs: ls.Syncs, rolls: ls.Rolls, removed: uint64(ls.Removed)})
	s := state{bytes: m.Bytes, segments: m.Segments, corruptions: int(m.Corruptions), partitions: 1}
	if durable {
		s.lag = int64(m.Written - m.Durable)
	}
	if m.Failed {
		s.failed = 1
	}
	t.state.add(s)
}
